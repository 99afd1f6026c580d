-- The contract tables. Every table and column carries a comment: `from m6.data_dictionary`.
create sequence m6.event_seq;
create sequence m6.feedback_seq;

create table m6.items (
    item_id varchar primary key,
    domain varchar not null default 'default',
    title varchar,
    description varchar,
    category varchar,
    brand varchar,
    tags varchar[],
    price double,
    image_path varchar,
    created_at timestamp,
    is_available boolean not null default true,
    attributes json
);
comment on table m6.items is 'one row per item: what can be recommended';
comment on column m6.items.item_id is 'key of the item, any text';
comment on column m6.items.domain is 'shop, movies, news, ...: lists can be kept inside one domain';
comment on column m6.items.title is 'short name shown to people';
comment on column m6.items.description is 'free text, embedded by the encoder';
comment on column m6.items.category is 'category; several are joined by |';
comment on column m6.items.brand is 'maker, author, channel';
comment on column m6.items.tags is 'free labels';
comment on column m6.items.price is 'price in the shop''s currency';
comment on column m6.items.image_path is 'path of a picture, optional';
comment on column m6.items.created_at is 'UTC; when the item became available (NULL: its first event)';
comment on column m6.items.is_available is 'false: never recommended, effective in the next query';
comment on column m6.items.attributes is 'anything else, as JSON';

create table m6.events (
    event_id varchar unique,
    user_id varchar not null,
    item_id varchar not null,
    event_type varchar not null,
    value double,
    happened_at timestamp not null,
    batch_id varchar,
    event_seq bigint not null default nextval('m6.event_seq')
);
comment on table m6.events is 'one row per behaviour of a user towards an item';
comment on column m6.events.event_id is 'optional key; a second load of the same id changes nothing';
comment on column m6.events.user_id is 'who';
comment on column m6.events.item_id is 'with which item';
comment on column m6.events.event_type is 'what was done, see m6.event_types';
comment on column m6.events.value is 'stars, money, seconds: the unit belongs to the event type';
comment on column m6.events.happened_at is 'UTC; when it was done';
comment on column m6.events.batch_id is 'the load that brought the row, see m6.load_batches';
comment on column m6.events.event_seq is 'order of arrival; tells what a build has already read';

create table m6.users (
    user_id varchar primary key,
    segment varchar,
    profile varchar,
    attributes json
);
comment on table m6.users is 'one row per user (optional): users also exist by their events';
comment on column m6.users.user_id is 'key of the user';
comment on column m6.users.segment is 'group for trends and strategy weights (NULL: all)';
comment on column m6.users.profile is 'free text about the user, embedded for new users';
comment on column m6.users.attributes is 'anything else, as JSON';

create table m6.relations (
    user_id varchar not null,
    other_user_id varchar not null,
    kind varchar not null default 'follows',
    weight double not null default 1.0,
    primary key (user_id, other_user_id, kind)
);
comment on table m6.relations is 'one row per edge between two users (optional, social)';
comment on column m6.relations.user_id is 'from';
comment on column m6.relations.other_user_id is 'to';
comment on column m6.relations.kind is 'follows, friend, blocks, ...';
comment on column m6.relations.weight is 'strength of the tie, above 0';

create table m6.event_types (
    event_type varchar primary key,
    interest double not null,
    satisfaction double not null check (satisfaction between 0 and 1),
    value_low double,
    value_high double,
    unit varchar,
    description varchar
);
comment on table m6.event_types is 'one row per kind of behaviour: what it says about interest and satisfaction; edit with UPDATE';
comment on column m6.event_types.event_type is 'name used in events and feedback';
comment on column m6.event_types.interest is 'weight in the user''s history vector; negative: the user turned away';
comment on column m6.event_types.satisfaction is 'y in [0, 1] when the event has no value scale';
comment on column m6.event_types.value_low is 'value at which y = 0 (NULL: value does not grade y)';
comment on column m6.event_types.value_high is 'value at which y = 1';
comment on column m6.event_types.unit is 'unit of value: stars, currency, seconds, share';
comment on column m6.event_types.description is 'in words';

insert into m6.event_types values
    ('view', 0.3, 0.1, null, null, null, 'looked at the item'),
    ('click', 0.4, 0.2, null, null, null, 'clicked the item in a list'),
    ('cart', 0.7, 0.5, null, null, null, 'put it in the basket'),
    ('purchase', 1.0, 1.0, null, null, 'currency', 'bought it'),
    ('rating', 1.0, 0.5, 1.0, 5.0, 'stars', 'rated it'),
    ('play', 0.8, 0.8, null, null, 'seconds', 'played or read it'),
    ('complete', 1.0, 1.0, null, null, null, 'played or read it to the end'),
    ('follow', 1.0, 1.0, null, null, null, 'follows it'),
    ('like', 1.0, 1.0, null, null, null, 'likes it'),
    ('share', 1.0, 1.0, null, null, null, 'passed it on'),
    ('dismiss', -0.5, 0.0, null, null, null, 'does not want to see it'),
    ('return', -1.0, 0.0, null, null, 'currency', 'sent it back');

create table m6.impressions (
    impression_id varchar primary key,
    request_id varchar not null,
    user_id varchar not null,
    item_id varchar not null,
    rank integer not null,
    strategy varchar not null,
    supporters ubigint not null,
    eligible ubigint not null,
    propensity double not null check (propensity > 0 and propensity <= 1.0000001),
    seed bigint,
    score double,
    satisfaction double,
    policy_version bigint,
    model_version bigint,
    domain varchar,
    segment varchar,
    shown_at timestamp not null
);
comment on table m6.impressions is 'one row per item shown to a user in a slot, with the probability it had';
comment on column m6.impressions.impression_id is 'request_id and rank';
comment on column m6.impressions.request_id is 'one list shown to one user';
comment on column m6.impressions.user_id is 'to whom';
comment on column m6.impressions.item_id is 'what was shown';
comment on column m6.impressions.rank is 'slot, from 1';
comment on column m6.impressions.strategy is 'strategy that was drawn for the slot (pinned: placed by hand)';
comment on column m6.impressions.supporters is 'bitmask over m6.strategies.bit: strategies whose next item this was';
comment on column m6.impressions.eligible is 'bitmask: strategies whose list was not exhausted';
comment on column m6.impressions.propensity is 'probability of this item in this slot given the slots above, in (0, 1]';
comment on column m6.impressions.seed is 'seed of the draw; the same seed gives the same list';
comment on column m6.impressions.score is 'ranking score: satisfaction times boost';
comment on column m6.impressions.satisfaction is 'calibrated expected satisfaction in [0, 1]';
comment on column m6.impressions.policy_version is 'strategy weights in force, see m6.policy_versions';
comment on column m6.impressions.model_version is 'build in force, see m6.models';
comment on column m6.impressions.domain is 'domain of the weights used (*: all)';
comment on column m6.impressions.segment is 'segment of the weights used (*: all)';
comment on column m6.impressions.shown_at is 'UTC';

create table m6.feedback (
    feedback_id varchar primary key default cast(uuid() as varchar),
    impression_id varchar,
    request_id varchar,
    user_id varchar,
    item_id varchar,
    event_type varchar not null,
    value double,
    happened_at timestamp not null default cast(now() at time zone 'UTC' as timestamp),
    ingested_at timestamp not null default cast(now() at time zone 'UTC' as timestamp),
    feedback_seq bigint not null default nextval('m6.feedback_seq')
);
comment on table m6.feedback is 'one row per reaction to an impression; deduplicated on feedback_id alone';
comment on column m6.feedback.feedback_id is 'key; a second row with the same id is refused';
comment on column m6.feedback.impression_id is 'the impression it answers, or NULL';
comment on column m6.feedback.request_id is 'the list it answers, where impression_id is not known';
comment on column m6.feedback.user_id is 'who, where impression_id is not known';
comment on column m6.feedback.item_id is 'which item, where impression_id is not known';
comment on column m6.feedback.event_type is 'see m6.event_types';
comment on column m6.feedback.value is 'see m6.event_types.unit';
comment on column m6.feedback.happened_at is 'UTC; when it was done';
comment on column m6.feedback.ingested_at is 'UTC; when it reached this file';
comment on column m6.feedback.feedback_seq is 'order of arrival';

create table m6.strategies (
    strategy varchar primary key,
    bit utinyint not null unique check (bit < 63),
    is_enabled boolean not null default true,
    description varchar
);
comment on table m6.strategies is 'one row per candidate strategy';
comment on column m6.strategies.strategy is 'name; sql/strategies/cand_<strategy>.sql is its definition';
comment on column m6.strategies.bit is 'bit number in supporters and eligible; never changes';
comment on column m6.strategies.is_enabled is 'false: proposes nothing from the next build on';
comment on column m6.strategies.description is 'in words';

create table m6.policy_versions (
    policy_version bigint primary key,
    parent bigint,
    period bigint,
    as_of timestamp,
    input_hash varchar,
    parameters json,
    status varchar not null check (status in ('shadow', 'candidate', 'active', 'champion', 'superseded', 'rolled_back', 'frozen')),
    decision json,
    reason varchar,
    created_at timestamp not null default cast(now() at time zone 'UTC' as timestamp)
);
comment on table m6.policy_versions is 'one row per version of the strategy weights';
comment on column m6.policy_versions.policy_version is 'number, from 1';
comment on column m6.policy_versions.parent is 'the version it was computed from';
comment on column m6.policy_versions.period is 'number of the period of feedback it learned from';
comment on column m6.policy_versions.as_of is 'feedback ingested later was not read';
comment on column m6.policy_versions.input_hash is 'hash of log, weights and parameters: same hash, same weights';
comment on column m6.policy_versions.parameters is 'parameters of the reweighting, as JSON';
comment on column m6.policy_versions.status is 'shadow, candidate, active, champion, superseded, rolled_back or frozen';
comment on column m6.policy_versions.decision is 'off-policy values and steps per segment, as JSON';
comment on column m6.policy_versions.reason is 'why, in words';
comment on column m6.policy_versions.created_at is 'UTC';

create table m6.strategy_weights (
    policy_version bigint not null,
    domain varchar not null default '*',
    segment varchar not null default '*',
    strategy varchar not null,
    weight double not null check (weight >= 0),
    floor double not null default 0,
    primary key (policy_version, domain, segment, strategy)
);
comment on table m6.strategy_weights is 'one row per (policy_version, domain, segment, strategy); * stands for every other';
comment on column m6.strategy_weights.policy_version is 'see m6.policy_versions';
comment on column m6.strategy_weights.domain is 'domain, * for every other';
comment on column m6.strategy_weights.segment is 'segment, * for every other';
comment on column m6.strategy_weights.strategy is 'see m6.strategies';
comment on column m6.strategy_weights.weight is 'probability of the strategy in a slot; sums to 1';
comment on column m6.strategy_weights.floor is 'the weight never falls below: support for off-policy evaluation';

create table m6.models (
    model_version bigint primary key,
    as_of timestamp not null,
    event_seq bigint not null,
    feedback_seq bigint not null,
    encoder varchar not null,
    seed bigint not null,
    parameters json,
    created_at timestamp not null default cast(now() at time zone 'UTC' as timestamp)
);
comment on table m6.models is 'one row per build';
comment on column m6.models.model_version is 'number, from 1';
comment on column m6.models.as_of is 'UTC; behaviour after this moment was not read';
comment on column m6.models.event_seq is 'last m6.events.event_seq the build has read';
comment on column m6.models.feedback_seq is 'last m6.feedback.feedback_seq the build has read';
comment on column m6.models.encoder is 'name of the text encoder';
comment on column m6.models.seed is 'seed of every random choice';
comment on column m6.models.parameters is 'settings of the build, as JSON';
comment on column m6.models.created_at is 'UTC';

create table m6.artefacts (
    model_version bigint not null,
    name varchar not null,
    content_hash varchar not null,
    content blob not null,
    primary key (model_version, name)
);
comment on table m6.artefacts is 'one row per array or trained model of a build';
comment on column m6.artefacts.model_version is 'see m6.models';
comment on column m6.artefacts.name is 'name of the array (NumPy .npy bytes) or model (LightGBM text)';
comment on column m6.artefacts.content_hash is 'SHA-256 of content, checked before use';
comment on column m6.artefacts.content is 'the bytes';

create table m6.active (
    model_version bigint,
    policy_version bigint,
    is_only_row boolean primary key default true check (is_only_row)
);
insert into m6.active (model_version, policy_version) values (null, null);
comment on table m6.active is 'one row: the versions in force; flipped in one transaction';
comment on column m6.active.model_version is 'build in force';
comment on column m6.active.policy_version is 'strategy weights in force';
comment on column m6.active.is_only_row is 'guards that there is one row';

create table m6.text_vectors (
    encoder varchar not null,
    content_hash varchar not null,
    vector float[] not null,
    primary key (encoder, content_hash)
);
comment on table m6.text_vectors is 'one row per (encoder, text): the same text is never embedded twice';
comment on column m6.text_vectors.encoder is 'name of the text encoder';
comment on column m6.text_vectors.content_hash is 'SHA-256 of the text';
comment on column m6.text_vectors.vector is 'unit length';

create table m6.item_vectors (
    item_id varchar primary key,
    encoder varchar not null,
    content_hash varchar not null,
    vector float[] not null
);
comment on table m6.item_vectors is 'one row per item: its text vector in the build in force';
comment on column m6.item_vectors.item_id is 'see m6.items';
comment on column m6.item_vectors.encoder is 'name of the text encoder';
comment on column m6.item_vectors.content_hash is 'SHA-256 of the item''s text';
comment on column m6.item_vectors.vector is 'unit length';

create table m6.runs (
    run_id varchar primary key,
    kind varchar not null,
    model_version bigint,
    parameters json,
    started_at timestamp not null,
    finished_at timestamp,
    status varchar not null
);
comment on table m6.runs is 'one row per build, evaluation or reweighting';
comment on column m6.runs.run_id is 'key';
comment on column m6.runs.kind is 'build, evaluate, reweight, ...';
comment on column m6.runs.model_version is 'see m6.models';
comment on column m6.runs.parameters is 'as JSON';
comment on column m6.runs.started_at is 'UTC';
comment on column m6.runs.finished_at is 'UTC';
comment on column m6.runs.status is 'running, done or failed';

create table m6.metrics (
    run_id varchar not null,
    method varchar not null,
    slice varchar not null,
    metric varchar not null,
    value double,
    low double,
    high double,
    n bigint
);
comment on table m6.metrics is 'one row per figure of a run';
comment on column m6.metrics.run_id is 'see m6.runs';
comment on column m6.metrics.method is 'm6rec, a baseline, or a step of the build';
comment on column m6.metrics.slice is 'all, warm, cold, a domain or a segment';
comment on column m6.metrics.metric is 'ndcg@10, recall@10, seconds, ...';
comment on column m6.metrics.value is 'the figure';
comment on column m6.metrics.low is 'lower end of the 95 % interval';
comment on column m6.metrics.high is 'upper end of the 95 % interval';
comment on column m6.metrics.n is 'number of users or rows behind it';

create table m6.rejected_rows (
    batch_id varchar not null,
    table_name varchar not null,
    row_number bigint not null,
    reason varchar not null,
    content varchar
);
comment on table m6.rejected_rows is 'one row per row that did not fit the contract, with its reason';
comment on column m6.rejected_rows.batch_id is 'see m6.load_batches';
comment on column m6.rejected_rows.table_name is 'where it should have gone';
comment on column m6.rejected_rows.row_number is 'position in the batch, from 1';
comment on column m6.rejected_rows.reason is 'what was wrong';
comment on column m6.rejected_rows.content is 'the row, as JSON text';

create table m6.load_batches (
    batch_id varchar primary key,
    table_name varchar not null,
    given bigint not null,
    loaded bigint not null,
    rejected bigint not null,
    already_there bigint not null,
    loaded_at timestamp not null default cast(now() at time zone 'UTC' as timestamp)
);
comment on table m6.load_batches is 'one row per batch loaded: given = loaded + rejected + already_there';
comment on column m6.load_batches.batch_id is 'hash of the whole batch: a second load of it changes nothing';
comment on column m6.load_batches.table_name is 'events, items, ...';
comment on column m6.load_batches.given is 'rows handed over';
comment on column m6.load_batches.loaded is 'rows new in the table';
comment on column m6.load_batches.rejected is 'rows in m6.rejected_rows';
comment on column m6.load_batches.already_there is 'rows known before (same key)';
comment on column m6.load_batches.loaded_at is 'UTC';

create table m6.decisions (
    model_version bigint not null,
    name varchar not null,
    value varchar not null,
    reason varchar not null
);
comment on table m6.decisions is 'one row per setting that a build chose by itself, and why';
comment on column m6.decisions.model_version is 'see m6.models';
comment on column m6.decisions.name is 'the setting';
comment on column m6.decisions.value is 'what was chosen';
comment on column m6.decisions.reason is 'why, with the figures';

create table m6.audit (
    action varchar not null,
    detail json,
    done_at timestamp not null default cast(now() at time zone 'UTC' as timestamp)
);
comment on table m6.audit is 'one row per rollback, deletion of a person, adoption of a setting';
comment on column m6.audit.action is 'rollback, forget_user, ...';
comment on column m6.audit.detail is 'as JSON; never a person''s id';
comment on column m6.audit.done_at is 'UTC';

create table m6.extra_candidates (
    model_version bigint not null,
    user_id varchar not null,
    item_id varchar not null,
    bit utinyint not null
);
comment on table m6.extra_candidates is 'one row per (model_version, user, item, strategy): proposals of strategies that live in SQL only';
comment on column m6.extra_candidates.model_version is 'see m6.models';
comment on column m6.extra_candidates.user_id is 'for whom';
comment on column m6.extra_candidates.item_id is 'what is proposed';
comment on column m6.extra_candidates.bit is 'see m6.strategies';

create table m6.lineage (
    model varchar not null,
    layer varchar not null,
    reads varchar,
    path varchar not null
);
comment on table m6.lineage is 'one row per (model, what it reads): the DAG of the SQL models in the build in force';
comment on column m6.lineage.model is 'name of the SQL model';
comment on column m6.lineage.layer is 'folder: staging, features, strategies, marts, ...';
comment on column m6.lineage.reads is 'a model or contract table';
comment on column m6.lineage.path is 'shipped, or the file of the user''s project';
