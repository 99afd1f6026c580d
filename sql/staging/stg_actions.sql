-- one row per event or feedback up to $as_of; feedback is of the impression's user, else its own, else the request's
with

to_impressions as (
    select i.user_id, i.item_id, f.event_type, f.value, f.happened_at
    from m6.feedback as f
    inner join m6.impressions as i on f.impression_id = i.impression_id
    where f.happened_at <= $as_of
),

by_name as (
    select f.user_id, f.item_id, f.event_type, f.value, f.happened_at
    from m6.feedback as f
    anti join m6.impressions as i on f.impression_id = i.impression_id
    where f.user_id is not null and f.happened_at <= $as_of
),

unnamed as (
    select request_id, item_id, event_type, value, happened_at
    from m6.feedback
    where impression_id is null and user_id is null and happened_at <= $as_of
),

requests as (
    select distinct request_id, user_id
    from m6.impressions
    where request_id in (select request_id from unnamed)
),

to_requests as (
    select r.user_id, f.item_id, f.event_type, f.value, f.happened_at
    from unnamed as f
    inner join requests as r on f.request_id = r.request_id
),

actions as (
    select user_id, item_id, event_type, value, happened_at
    from m6.events
    where happened_at <= $as_of
    union all
    select * from to_impressions
    union all
    select * from by_name
    union all
    select * from to_requests
)

select user_id, item_id, event_type, value, happened_at
from actions
where item_id is not null
