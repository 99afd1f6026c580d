-- Each user's behaviour as one row, written by a build; what came later is read beside it, and what was edited since is read afresh.
create table m6.stored_histories (
    user_id varchar primary key,
    history struct(item_id varchar, interest float, satisfaction float, happened_at double)[] not null
);
comment on table m6.stored_histories is 'one row per user: the events the build in force has read, graded, as m6.user_history gives them; a cache of m6.behaviour';
comment on column m6.stored_histories.user_id is 'whose';
comment on column m6.stored_histories.history is 'by happened_at (seconds since 1970), item_id, interest, satisfaction';

create table m6.history_marks (event_seq bigint not null, types_hash ubigint, definition varchar not null);
comment on table m6.history_marks is 'at most one row: what m6.stored_histories has read; none: nothing';
comment on column m6.history_marks.event_seq is 'last m6.events.event_seq';
comment on column m6.history_marks.types_hash is 'of m6.event_types: another one and no stored history is read';
comment on column m6.history_marks.definition is 'SHA-256 of the SQL of m6.behaviour they were made with';

create table m6.history_edits (user_id varchar);
comment on table m6.history_edits is 'one row per user whose events were updated or deleted since the build: m6.stored_histories is not read for them';
comment on column m6.history_edits.user_id is 'who';

create trigger history_event_deleted after delete on m6.events referencing old table as gone for each statement
    insert into m6.history_edits select distinct user_id from gone where event_seq <= (select max(event_seq) from m6.history_marks);
create trigger history_event_updated after update on m6.events referencing old table as gone new table as came for each statement
    insert into m6.history_edits
    select distinct user_id
    from (select * from gone union all select * from came)
    where event_seq <= (select max(event_seq) from m6.history_marks);
