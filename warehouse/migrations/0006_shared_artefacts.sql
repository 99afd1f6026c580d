-- The bytes of an artefact are kept once, by their hash, and as they are: a rebuild writes only the arrays that changed, and a
-- start needs no decompression (reading one of several hundred megabytes took longer than all else).
create table m6.artefact_contents (
    content_hash varchar primary key,
    content blob using compression uncompressed not null
);
insert into m6.artefact_contents
select distinct on (content_hash) content_hash, content
from m6.artefacts
order by content_hash, model_version desc;
comment on table m6.artefact_contents is 'one row per content of an artefact: builds that made the same share it';
comment on column m6.artefact_contents.content_hash is 'SHA-256 of content, checked before use';
comment on column m6.artefact_contents.content is 'the bytes';

create table m6.artefact_names (
    model_version bigint not null,
    name varchar not null,
    content_hash varchar not null,
    primary key (model_version, name)
);
insert into m6.artefact_names
select model_version, name, content_hash
from m6.artefacts;
comment on table m6.artefact_names is 'one row per array or trained model of a build';
comment on column m6.artefact_names.model_version is 'see m6.models';
comment on column m6.artefact_names.name is 'name of the array (NumPy .npy bytes) or model (LightGBM text)';
comment on column m6.artefact_names.content_hash is 'see m6.artefact_contents';

drop table m6.artefacts;

create view m6.artefacts as
select n.model_version, n.name, n.content_hash, c.content
from m6.artefact_names as n
left join m6.artefact_contents as c on n.content_hash = c.content_hash;
comment on view m6.artefacts is 'one row per array or trained model of a build, with its bytes';
comment on column m6.artefacts.model_version is 'see m6.models';
comment on column m6.artefacts.name is 'name of the array (NumPy .npy bytes) or model (LightGBM text)';
comment on column m6.artefacts.content_hash is 'SHA-256 of content, checked before use';
comment on column m6.artefacts.content is 'the bytes; NULL: they are missing';

-- What a build has read of the data, so that the next one can tell whether the stored histories still say the same.
alter table m6.history_marks add column events bigint;
alter table m6.history_marks add column read_hash varchar;
comment on column m6.history_marks.events is 'rows of m6.events up to event_seq';
comment on column m6.history_marks.read_hash is 'hash of the behaviour in feedback up to feedback_seq, and of the SQL of stg_events';
