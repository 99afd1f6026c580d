-- one row per (user, item): cosine of the user's text vector and the item's, for items the user does not know yet
with

users as (select user_idx from candidate_users),

known as (select item_idx from stg_items where created_at is null or created_at <= $as_of),

history as (
    select h.user_idx, h.item_idx, h.long_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
),

user_vectors as (
    select
        h.user_idx,
        m6_user_vector(
            list(v.vector order by h.item_idx),
            list(cast(h.long_weight as float) order by h.item_idx)
        ) as vector
    from history as h
    inner join item_text_vectors as v on h.item_idx = v.item_idx
    where h.long_weight > 0
    group by h.user_idx
),

proposed as (
    select
        u.user_idx,
        v.item_idx,
        list_inner_product(cast(u.vector as double[]), cast(v.vector as double[])) as raw_score
    from user_vectors as u
    cross join item_text_vectors as v
    inner join known as k on v.item_idx = k.item_idx
    anti join history as h on u.user_idx = h.user_idx and v.item_idx = h.item_idx
)

select * from proposed where round(raw_score, 9) > 0
