-- one row per way in which behaviour tells a label: an action loaded as event and as feedback, two types logged as one
-- remedy (warn): load an action once, as feedback where it answers an impression; leave out the weaker type of a pair
with

events as (select user_id, item_id, event_type, happened_at from m6.events),

types as (select event_type, interest, satisfaction from m6.event_types),

feedback as (
    select
        coalesce(f.user_id, i.user_id) as user_id,
        coalesce(f.item_id, i.item_id) as item_id,
        f.event_type,
        f.happened_at
    from m6.feedback as f
    left join m6.impressions as i on f.impression_id = i.impression_id
),

twins as (
    select f.event_type, count(*) as twins
    from feedback as f
    semi join events as e
        on
            f.user_id = e.user_id
            and f.item_id = e.item_id
            and f.event_type = e.event_type
            and f.happened_at = e.happened_at
    group by f.event_type
),

moments as (
    select
        user_id,
        item_id,
        happened_at,
        list(distinct event_type) as event_types
    from events
    group by user_id, item_id, happened_at
    having count(*) > 1
),

pairs as (
    select
        weak.event_type as weak_type,
        strong.event_type as event_type,
        count(*) as together
    from moments as m
    inner join types as weak on list_contains(m.event_types, weak.event_type)
    inner join types as strong on list_contains(m.event_types, strong.event_type)
    where weak.satisfaction < strong.satisfaction and weak.interest > 0
    group by weak.event_type, strong.event_type
),

all_of_type as (
    select event_type, count(*) as events
    from (select distinct user_id, item_id, event_type, happened_at from events)
    group by event_type
),

companions as (
    select p.weak_type, p.event_type, p.together, a.events
    from pairs as p
    inner join all_of_type as a on p.event_type = a.event_type
    where p.together >= 50 and p.together >= 0.9 * a.events
),

found as (
    select event_type, 'also loaded as feedback' as problem, twins as rows_found
    from twins
    where twins >= 10
    union all
    select event_type, 'always with a ' || weak_type || ' at the same moment' as problem, together as rows_found
    from companions
)

select event_type, problem, rows_found
from found
order by rows_found desc, event_type, problem
