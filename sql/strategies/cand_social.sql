-- one row per (user, item): what those a user is tied to did lately, and people they may know, never through a block
--   people are items of the domain people; their raw_score is that of m6.people: 1 / ln(1 + ties) per common friend
--   (Adamic and Adar 2003), 1 / ln(1 + members) per common group, 1 for following the user already. Nobody is known
--   through somebody with more than 500 ties, or a group of more: the pairs of a hub grow with its square
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

persons as (
    select item_idx, item_id as person_id
    from stg_items
    where domain = 'people'
),

askers as (
    select u.user_idx, u.user_id
    from users as u
    cross join (select count(*) as persons from persons) as p
    where p.persons > 0
),

friends as (
    select user_id, other_user_id
    from m6.relations
    where kind <> 'blocks'
    union
    select other_user_id as user_id, user_id as other_user_id
    from m6.relations
    where kind <> 'blocks'
),

degrees as (
    select user_id, count(*) as ties
    from friends
    group by user_id
),

members as (
    select h.item_idx, h.user_idx
    from feat_user_item as h
    inner join stg_items as i on h.item_idx = i.item_idx
    where i.domain = 'groups' and h.interest > 0
),

sizes as (
    select item_idx, count(*) as members
    from members
    group by item_idx
),

through_friends as (
    select a.user_idx, t.other_user_id as person_id, 1.0 / ln(1.0 + d.ties) as raw_score
    from askers as a
    inner join friends as f on a.user_id = f.user_id
    inner join degrees as d on f.other_user_id = d.user_id and d.ties <= 500
    inner join friends as t on d.user_id = t.user_id
),

through_groups as (
    select a.user_idx, o.user_id as person_id, 1.0 / ln(1.0 + s.members) as raw_score
    from askers as a
    inner join members as m on a.user_idx = m.user_idx
    inner join sizes as s on m.item_idx = s.item_idx and s.members <= 500
    inner join members as n on s.item_idx = n.item_idx
    inner join stg_users as o on n.user_idx = o.user_idx
),

followers as (
    select a.user_idx, r.user_id as person_id, cast(1.0 as double) as raw_score
    from m6.relations as r
    inner join askers as a on r.other_user_id = a.user_id
    where r.kind <> 'blocks'
),

kept_out as (
    select a.user_idx, a.user_id as person_id
    from askers as a
    union
    select a.user_idx, r.other_user_id as person_id
    from m6.relations as r
    inner join askers as a on r.user_id = a.user_id
    union
    select a.user_idx, r.user_id as person_id
    from m6.relations as r
    inner join askers as a on r.other_user_id = a.user_id
    where r.kind = 'blocks'
),

known_through as (
    select * from through_friends
    union all
    select * from through_groups
    union all
    select * from followers
),

people as (
    select k.user_idx, p.item_idx, sum(k.raw_score) as raw_score
    from known_through as k
    inner join persons as p on k.person_id = p.person_id
    anti join kept_out as o on k.user_idx = o.user_idx and k.person_id = o.person_id
    group by k.user_idx, p.item_idx
),

acts as (
    select t.user_idx, h.item_idx, sum(t.weight * h.long_weight) as raw_score
    from open_ties as t
    inner join feat_user_item as h on t.other_user_idx = h.user_idx
    where h.long_weight > 0
    group by t.user_idx, h.item_idx
),

proposed as (
    select user_idx, item_idx, sum(raw_score) as raw_score
    from (
        select * from acts
        union all
        select * from people
    ) as found
    group by user_idx, item_idx
)

select * from proposed
