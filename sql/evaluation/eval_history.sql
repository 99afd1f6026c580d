-- one row per event of interest up to $as_of: what a method may learn from
with

history as (
    select user_id, item_id, happened_at, y
    from eval_events
    where is_interest and happened_at <= $as_of
)

select * from history
