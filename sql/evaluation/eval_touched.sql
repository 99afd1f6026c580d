-- one row per (user_id, item_id) with an event of any kind up to $as_of: never a target, not to be recommended
with

touched as (
    select distinct user_id, item_id
    from eval_events
    where happened_at <= $as_of
)

select * from touched
