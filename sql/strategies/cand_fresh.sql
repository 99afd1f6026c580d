-- one row per (user, item): newest items that the user's taste in text reaches, youngest first
with

users as (select user_idx from candidate_users),

items as (
    select item_idx, -coalesce(age_days, 0.0) as raw_score
    from feat_item_activity
    where coalesce(age_days, 0.0) <= 0.05 * $span_days
),

proposed as (
    select u.user_idx, i.item_idx, i.raw_score
    from users as u
    cross join items as i
)

select * from proposed
