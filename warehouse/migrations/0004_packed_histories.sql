-- A stored history is read by every recommendation: packed it is found in half the time, and feedback is stored as well.
drop table m6.stored_histories;

create table m6.stored_histories (
    user_id varchar primary key,
    history blob not null
);
comment on table m6.stored_histories is 'one row per user: the behaviour the build in force has read, graded; a cache of m6.behaviour, m6.user_history reads it';
comment on column m6.stored_histories.user_id is 'whose';
comment on column m6.stored_histories.history is 'records of 20 bytes by happened_at, item: item number (int32), interest, satisfaction (float32), seconds since 1970 (float64), all little-endian';

delete from m6.history_marks;
alter table m6.history_marks add column model_version bigint;
alter table m6.history_marks add column feedback_seq bigint;
comment on column m6.history_marks.model_version is 'whose item numbers (item_idx) the histories hold';
comment on column m6.history_marks.feedback_seq is 'last m6.feedback.feedback_seq';

-- A user's impressions are looked up whenever feedback newer than the build may be theirs.
create index impressions_of_user on m6.impressions (user_id);
