-- one row per (user_id, item_id): baseline "item_item" by score, filled up to $k with the user's popular items
with

scored as (
    select user_id, item_id, score
    from eval_item_item_scores
),

popular as (
    select user_id, item_id, rank as popular_rank
    from eval_popular
),

filled as (
    select user_id, item_id, score, 0 as popular_rank
    from scored
    union all
    select popular.user_id, popular.item_id, -1 as score, popular.popular_rank
    from popular
    anti join scored on popular.user_id = scored.user_id and popular.item_id = scored.item_id
),

ranked as (
    select
        user_id,
        item_id,
        cast(
            row_number() over (partition by user_id order by score desc, popular_rank, item_id) as integer
        ) as rank
    from filled
    qualify rank <= $k
)

select * from ranked
