-- one row per broken identity: events counted per item, per user and per pair must all be those of stg_events
with

counted as (
    select 'feat_user_activity' as model, (select coalesce(sum(events), 0) from feat_user_activity) as found
    union all
    select 'feat_user_item' as model, (select coalesce(sum(events), 0) from feat_user_item) as found
),

expected as (select count(*) as found from stg_events)

select c.model, c.found, e.found as expected
from counted as c
cross join expected as e
where c.found <> e.found
