-- one row per (user_id, item_id) with an event of any kind up to $as_of: never a target, not to be recommended;
-- nothing where $repeats are asked for
with

touched as (
    select distinct user_id, item_id
    from eval_events
    where happened_at <= $as_of and not $repeats
)

select * from touched
