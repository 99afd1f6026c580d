-- one row per (user, item): trending inside the user's segment
with

users as (
    select c.user_idx, s.segment
    from candidate_users as c
    inner join stg_users as s on c.user_idx = s.user_idx
),

proposed as (
    select u.user_idx, t.item_idx, t.trend as raw_score
    from users as u
    inner join feat_segment_item as t on u.segment = t.segment
)

select * from proposed
