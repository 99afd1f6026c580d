-- one row per (user, item): cosine of the user's text vector and the item's, for items the user does not know yet
--   on Spark a list is gathered without an order: vectors and weights come as one list of pairs, sorted afterwards
with

users as (select user_idx from candidate_users),

known as (select item_idx from stg_items where created_at is null or created_at <= $as_of),

history as (
    select h.user_idx, h.item_idx, h.long_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
),

pairs as (
    select
        h.user_idx,
        array_sort(collect_list(struct(h.item_idx, v.vector, cast(h.long_weight as float) as weight))) as pairs
    from history as h
    inner join item_text_vectors as v on h.item_idx = v.item_idx
    where h.long_weight > 0
    group by h.user_idx
),

user_vectors as (
    select
        user_idx,
        m6_user_vector(transform(pairs, p -> p.vector), transform(pairs, p -> p.weight)) as vector
    from pairs
),

proposed as (
    select
        u.user_idx,
        v.item_idx,
        aggregate(
            zip_with(u.vector, v.vector, (a, b) -> cast(a as double) * cast(b as double)),
            cast(0 as double),
            (total, product) -> total + product
        ) as raw_score
    from user_vectors as u
    cross join item_text_vectors as v
    inner join known as k on v.item_idx = k.item_idx
    left anti join history as h on u.user_idx = h.user_idx and v.item_idx = h.item_idx
)

select * from proposed where round(raw_score, 9) > 0
