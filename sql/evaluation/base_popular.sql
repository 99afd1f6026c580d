-- one row per item: baseline "popular", its users up to the split (of events from y = $least_y on)
with

history as (
    select user_id, item_id
    from eval_history
    where y >= $least_y
),

scores as (
    select item_id, cast(count(distinct user_id) as double) as score
    from history
    group by item_id
)

select * from scores
