-- one row per (user, item): most behaviour over all time, then the rest of the catalogue, so that no list runs dry
with

users as (select user_idx from candidate_users),

known as (select item_idx from stg_items where created_at is null or created_at <= $as_of),

items as (
    select a.item_idx, cast(a.events as double) as raw_score
    from feat_item_activity as a
    inner join known as k on a.item_idx = k.item_idx
),

proposed as (
    select u.user_idx, i.item_idx, i.raw_score
    from users as u
    cross join items as i
)

select * from proposed
