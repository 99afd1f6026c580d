-- one row per (user, item): what the people a user is tied to did lately, never through a block
with

users as (
    select c.user_idx, s.user_id
    from candidate_users as c
    inner join stg_users as s on c.user_idx = s.user_idx
),

ties as (
    select u.user_idx, o.user_idx as other_user_idx, max(r.weight) as weight
    from m6.relations as r
    inner join users as u on r.user_id = u.user_id
    inner join stg_users as o on r.other_user_id = o.user_id
    where r.kind <> 'blocks'
    group by u.user_idx, o.user_idx
),

blocks as (
    select u.user_idx, o.user_idx as other_user_idx
    from m6.relations as r
    inner join users as u on r.user_id = u.user_id
    inner join stg_users as o on r.other_user_id = o.user_id
    where r.kind = 'blocks'
),

open_ties as (
    select t.user_idx, t.other_user_idx, t.weight
    from ties as t
    anti join blocks as b on t.user_idx = b.user_idx and t.other_user_idx = b.other_user_idx
),

proposed as (
    select t.user_idx, h.item_idx, sum(t.weight * h.long_weight) as raw_score
    from open_ties as t
    inner join feat_user_item as h on t.other_user_idx = h.user_idx
    where h.long_weight > 0
    group by t.user_idx, h.item_idx
)

select * from proposed
