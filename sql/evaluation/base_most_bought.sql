-- one row per (user_id, item_id): baseline "most bought", the user's own items by how often (halved every
-- $half_life_days), the latest first among equals; filled up to $k with recently popular items
with

history as (
    select
        eval_history.user_id,
        eval_history.item_id,
        eval_history.happened_at,
        date_diff('second', eval_history.happened_at, cast($as_of as timestamp)) / 86400.0 as age_days
    from eval_history
    semi join eval_users on eval_history.user_id = eval_users.user_id
    where eval_history.y >= $least_y
),

own as (
    select
        user_id,
        item_id,
        round(ln(greatest(sum(power(0.5, age_days / $half_life_days)), 1e-300)), 9) as score,
        max(happened_at) as last_at
    from history
    group by user_id, item_id
),

popular as (
    select user_id, item_id, rank as popular_rank
    from eval_popular
),

filled as (
    select user_id, item_id, score, last_at, 0 as popular_rank
    from own
    union all
    select popular.user_id, popular.item_id, null as score, null as last_at, popular.popular_rank
    from popular
    anti join own on popular.user_id = own.user_id and popular.item_id = own.item_id
),

ranked as (
    select
        user_id,
        item_id,
        cast(
            row_number() over (
                partition by user_id
                order by score desc nulls last, last_at desc nulls last, popular_rank, item_id
            ) as integer
        ) as rank
    from filled
    qualify rank <= $k
)

select * from ranked
