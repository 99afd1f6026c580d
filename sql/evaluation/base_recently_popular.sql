-- one row per item: baseline "recently popular", log of its events with a weight that halves every $half_life_days
with

history as (
    select item_id, date_diff('second', happened_at, cast($as_of as timestamp)) / 86400.0 as age_days
    from eval_history
    where y >= $least_y
),

scores as (
    select item_id, round(ln(greatest(sum(power(0.5, age_days / $half_life_days)), 1e-300)), 9) as score
    from history
    group by item_id
)

select * from scores
