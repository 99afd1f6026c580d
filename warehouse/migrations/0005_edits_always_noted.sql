-- Events that are edited while a build runs are noted whatever their number: the build may have read them.
create or replace trigger history_event_deleted after delete on m6.events referencing old table as gone for each statement
    insert into m6.history_edits select distinct user_id from gone;
create or replace trigger history_event_updated after update on m6.events referencing old table as gone new table as came for each statement
    insert into m6.history_edits
    select distinct user_id
    from (select user_id from gone union all select user_id from came);
