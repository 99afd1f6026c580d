-- one row per event dated after the moment of the check ($checked_at): the build takes the latest for its clock
-- remedy (fail): correct happened_at (UTC, not local time; seconds, not milliseconds), or delete the rows
with

events as (select event_seq, user_id, item_id, happened_at from m6.events),

future as (select * from events where happened_at > $checked_at)

select * from future
order by happened_at desc, event_seq
