-- one row per (user, item): most behaviour lately, exponentially decayed
with

users as (select user_idx from candidate_users),

items as (
    select item_idx, trend_short + trend_medium as raw_score
    from feat_item_activity
    where round(trend_short + trend_medium, 6) > 0
),

proposed as (
    select u.user_idx, i.item_idx, i.raw_score
    from users as u
    cross join items as i
)

select * from proposed
