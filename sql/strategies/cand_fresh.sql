-- one row per (user, item): items that came within the last 5 % of the span, youngest first, the same for everybody
with

users as (select user_idx from candidate_users),

known as (select item_idx from stg_items where created_at is null or created_at <= $as_of),

items as (
    select a.item_idx, -coalesce(a.age_days, 0.0) as raw_score
    from feat_item_activity as a
    inner join known as k on a.item_idx = k.item_idx
    where coalesce(a.age_days, 0.0) <= 0.05 * $span_days
),

proposed as (
    select u.user_idx, i.item_idx, i.raw_score
    from users as u
    cross join items as i
)

select * from proposed
