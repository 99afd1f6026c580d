-- one row per (user, item): cosine of the user's text vector and the item's
with

users as (select user_idx from candidate_users),

history as (
    select h.user_idx, h.item_idx, h.long_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
    where h.long_weight > 0
),

user_vectors as (
    select
        h.user_idx,
        m6_user_vector(
            list(v.vector order by h.item_idx),
            list(h.long_weight order by h.item_idx)
        ) as vector
    from history as h
    inner join item_text_vectors as v on h.item_idx = v.item_idx
    group by h.user_idx
),

proposed as (
    select
        u.user_idx,
        v.item_idx,
        list_inner_product(u.vector, v.vector) as raw_score
    from user_vectors as u
    cross join item_text_vectors as v
)

select * from proposed
