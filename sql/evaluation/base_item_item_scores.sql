-- one row per (user_id, item_id): baseline "item_item", cosine of co-visitation summed over the user's items
-- Cosine over binary user-item pairs (Sarwar et al., WWW 2001), kept for the $neighbours nearest items of each item,
-- in whole billionths so that sums are exact. Best $k untouched items per user.
with

pairs as (
    select distinct user_id, item_id
    from eval_history
    where y >= $least_y
),

sizes as (
    select item_id, count(*) as n_users
    from pairs
    group by item_id
),

together as (
    select one.item_id, other.item_id as neighbour_id, count(*) as n_both
    from pairs as one
    inner join pairs as other on one.user_id = other.user_id and one.item_id <> other.item_id
    group by one.item_id, other.item_id
),

cosines as (
    select
        together.item_id,
        together.neighbour_id,
        cast(
            floor(together.n_both / sqrt(cast(one.n_users * other.n_users as double)) * 1e9 + 0.5) as bigint
        ) as cosine_e9
    from together
    inner join sizes as one on together.item_id = one.item_id
    inner join sizes as other on together.neighbour_id = other.item_id
),

neighbours as (
    select item_id, neighbour_id, cosine_e9
    from cosines
    qualify row_number() over (partition by item_id order by cosine_e9 desc, neighbour_id) <= $neighbours
),

scores as (
    select pairs.user_id, neighbours.neighbour_id as item_id, cast(sum(neighbours.cosine_e9) as bigint) as score
    from pairs
    semi join eval_users on pairs.user_id = eval_users.user_id
    inner join neighbours on pairs.item_id = neighbours.item_id
    group by pairs.user_id, neighbours.neighbour_id
),

best as (
    select scores.user_id, scores.item_id, scores.score
    from scores
    anti join eval_touched on scores.user_id = eval_touched.user_id and scores.item_id = eval_touched.item_id
    qualify row_number() over (partition by scores.user_id order by scores.score desc, scores.item_id) <= $k
)

select * from best
