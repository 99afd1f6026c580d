-- What an advertiser's log has taught stays in the file under a name, like every other model.
create table m6.probability_models (
    name varchar primary key,
    content_hash varchar not null,
    content blob not null,
    learned_from varchar not null,
    rows bigint not null,
    outcomes double not null
);
comment on table m6.probability_models is 'one row per model of the probability of an outcome, see m6.probabilities';
comment on column m6.probability_models.name is 'name it is asked for by';
comment on column m6.probability_models.content_hash is 'SHA-256 of content, checked before use';
comment on column m6.probability_models.content is 'weights, levels, trees (LightGBM text) as JSON';
comment on column m6.probability_models.learned_from is 'table or view of the log';
comment on column m6.probability_models.rows is 'rows of the log';
comment on column m6.probability_models.outcomes is 'sum of their outcomes';
