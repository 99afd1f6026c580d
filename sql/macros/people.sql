-- one row per person a user may know, best first: friends of friends, members of the same groups, who follows them already
--   read from m6.relations as it is now; never who is tied to the user, and never across a block in either direction
--   raw_score: sum of 1 / ln(1 + ties) over common friends (Adamic and Adar 2003), of 1 / ln(1 + members) over common
--   groups (items of the domain groups), and 1 for following the user already; nobody is known through somebody with
--   more than 500 ties, or a group of more than 500, whom everybody has in common
create or replace macro m6.people(for_user, k := 10) as table
with

ties as (
    select user_id, other_user_id
    from m6.relations
    where kind <> 'blocks'
    union
    select other_user_id as user_id, user_id as other_user_id
    from m6.relations
    where kind <> 'blocks'
),

friends as (
    select other_user_id as friend_id
    from ties
    where user_id = cast(for_user as varchar)
),

degrees as (
    select user_id, count(*) as ties
    from ties
    where user_id in (select friend_id from friends)
    group by user_id
    having count(*) <= 500
),

through_friends as (
    select
        t.other_user_id as person_id,
        1.0 / ln(1.0 + d.ties) as weight,
        1 as common_friends,
        0 as common_groups,
        0 as follows_back
    from degrees as d
    inner join ties as t on d.user_id = t.user_id
),

members as (
    select distinct e.item_id, e.user_id
    from m6.events as e
    inner join m6.items as i on e.item_id = i.item_id and i.domain = 'groups'
    inner join m6.event_types as t on e.event_type = t.event_type and t.interest > 0
),

own_groups as (
    select item_id, count(*) as members
    from members
    where item_id in (select item_id from members where user_id = cast(for_user as varchar))
    group by item_id
    having count(*) <= 500
),

through_groups as (
    select
        m.user_id as person_id,
        1.0 / ln(1.0 + g.members) as weight,
        0 as common_friends,
        1 as common_groups,
        0 as follows_back
    from own_groups as g
    inner join members as m on g.item_id = m.item_id
),

followers as (
    select
        user_id as person_id,
        1.0 as weight,
        0 as common_friends,
        0 as common_groups,
        1 as follows_back
    from m6.relations
    where other_user_id = cast(for_user as varchar) and kind <> 'blocks'
),

kept_out as (
    select cast(for_user as varchar) as person_id
    union
    select other_user_id as person_id
    from m6.relations
    where user_id = cast(for_user as varchar)
    union
    select user_id as person_id
    from m6.relations
    where other_user_id = cast(for_user as varchar) and kind = 'blocks'
),

gathered as (
    from through_friends
    union all by name
    from through_groups
    union all by name
    from followers
),

found as (
    select
        person_id,
        sum(weight) as raw_score,
        sum(common_friends) as common_friends,
        sum(common_groups) as common_groups,
        max(follows_back) = 1 as follows_user
    from gathered
    where person_id not in (select person_id from kept_out)
    group by person_id
)

select
    person_id,
    cast(row_number() over (order by round(raw_score, 9) desc, person_id) as integer) as rank,
    raw_score,
    cast(common_friends as bigint) as common_friends,
    cast(common_groups as bigint) as common_groups,
    follows_user
from found
order by rank
limit k;
comment on macro table m6.people is 'People a user may know: friends of friends, common groups, followers; never across a block';
