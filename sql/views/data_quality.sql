-- one row per measure of the data: the figure, a verdict (good, fair, poor, unknown) and what to do about it
--   good_to and fair_to are where the verdict changes; rules of thumb, shares unless the measure names a unit
with

events as (select user_id, item_id, event_type, value, happened_at from m6.events),

items as (
    select
        item_id,
        is_available,
        len(
            string_split(trim(concat_ws(' ', title, description, category, brand, array_to_string(tags, ' '))), ' ')
        ) as words,
        trim(concat_ws(' ', title, description)) <> '' as has_text
    from m6.items
),

totals as (
    select
        count(*) as events,
        count(distinct user_id) as users,
        count(distinct item_id) as items,
        date_diff('day', min(happened_at), max(happened_at)) as days
    from events
),

of_users as (select user_id, count(*) as events from events group by user_id),

of_items as (select item_id, count(*) as events from events group by item_id),

pairs as (select count(*) as pairs from (select distinct user_id, item_id from events)),

moments as (
    select user_id, happened_at, count(*) as events
    from events
    group by user_id, happened_at
),

copies as (
    select count(*) as events
    from events
    group by user_id, item_id, event_type, value, happened_at
),

days as (
    select
        user_id,
        date_trunc('day', happened_at) as day,
        count(*) as events,
        count(distinct hour(happened_at)) as hours
    from events
    group by user_id, day
),

-- nobody is awake around the clock, or does a thousand things a day
bots as (select distinct user_id from days where events >= 1000 or (hours >= 22 and events >= 100)),

gaps as (
    select date_diff('day', lag(day) over (order by day), day) as days_since
    from (select distinct day from days)
),

kinds as (
    select
        e.event_type,
        count(*) as events,
        count(*) filter (where e.value is null) as without_value,
        any_value(t.satisfaction) as satisfaction,
        any_value(t.value_high) as value_high
    from events as e
    left join m6.event_types as t on e.event_type = t.event_type
    group by e.event_type
),

measured as (
    select
        unnest([
            struct_pack(
                measure := 'items_with_text',
                figure := cast((
                    select avg(cast(has_text as integer))
                    from items
                ) as double),
                is_more_better := true,
                good_to := cast(0.95 as double),
                fair_to := cast(0.7 as double),
                meaning := 'items with a title or a description',
                remedy := 'load titles and descriptions: new items and search live on them'
            ),
            struct_pack(
                measure := 'words_per_item',
                figure := cast((
                    select median(words)
                    from items
                ) as double),
                is_more_better := true,
                good_to := cast(6 as double),
                fair_to := cast(3 as double),
                meaning := 'words in the text of the middle item',
                remedy := 'add descriptions, categories and tags'
            ),
            struct_pack(
                measure := 'events_per_user',
                figure := cast((
                    select median(events)
                    from of_users
                ) as double),
                is_more_better := true,
                good_to := cast(5 as double),
                fair_to := cast(2 as double),
                meaning := 'behaviour of the middle user',
                remedy := 'load a longer period, or more kinds of behaviour (views, carts)'
            ),
            struct_pack(
                measure := 'events_per_item',
                figure := cast((
                    select median(events)
                    from of_items
                ) as double),
                is_more_better := true,
                good_to := cast(5 as double),
                fair_to := cast(2 as double),
                meaning := 'behaviour on the middle item that has any',
                remedy := 'load a longer period; text carries the items with less'
            ),
            struct_pack(
                measure := 'density',
                figure := cast((
                    select p.pairs / nullif(t.users * t.items, 0)
                    from pairs as p
                    cross join totals as t
                ) as double),
                is_more_better := true,
                good_to := cast(0.001 as double),
                fair_to := cast(0.0001 as double),
                meaning := 'pairs of user and item with behaviour, of all pairs',
                remedy := 'nothing to repair: the sparser, the more text and popularity decide'
            ),
            struct_pack(
                measure := 'users_with_one_event',
                figure := cast((
                    select avg(cast(events = 1 as integer))
                    from of_users
                ) as double),
                is_more_better := false,
                good_to := cast(0.3 as double),
                fair_to := cast(0.6 as double),
                meaning := 'users with a single event',
                remedy := 'check that ids last longer than a session; such users get what is popular'
            ),
            struct_pack(
                measure := 'items_without_behaviour',
                figure := cast((
                    select avg(cast(i.item_id not in (select item_id from of_items) as integer))
                    from items as i
                ) as double),
                is_more_better := false,
                good_to := cast(0.5 as double),
                fair_to := cast(0.9 as double),
                meaning := 'items nobody has touched',
                remedy := 'retire dead items (is_available := false); give the rest text'
            ),
            struct_pack(
                measure := 'events_without_item',
                figure := cast((
                    select
                        sum(case when o.item_id not in (select item_id from items) then o.events else 0 end)
                        / sum(o.events)
                    from of_items as o
                ) as double),
                is_more_better := false,
                good_to := cast(0.01 as double),
                fair_to := cast(0.1 as double),
                meaning := 'events on an item that is not in m6.items',
                remedy := 'load the missing items'
            ),
            struct_pack(
                measure := 'items_never_available',
                figure := cast((
                    select avg(cast(not is_available as integer))
                    from items
                ) as double),
                is_more_better := false,
                good_to := cast(0.2 as double),
                fair_to := cast(0.5 as double),
                meaning := 'items that may not be recommended',
                remedy := 'check is_available: lists leave them out'
            ),
            struct_pack(
                measure := 'tied_times',
                figure := cast((
                    select sum(case when events > 1 then events else 0 end) / sum(events)
                    from moments
                ) as double),
                is_more_better := false,
                good_to := cast(0.2 as double),
                fair_to := cast(0.5 as double),
                meaning := 'events that share their moment with another of the same user',
                remedy := 'load finer times: what came first is unknown inside a tie'
            ),
            struct_pack(
                measure := 'whole_days',
                figure := cast((
                    select avg(cast(happened_at = date_trunc('day', happened_at) as integer))
                    from events
                ) as double),
                is_more_better := false,
                good_to := cast(0.1 as double),
                fair_to := cast(0.5 as double),
                meaning := 'events at midnight: probably dates without a time',
                remedy := 'load the time of day where the source has it'
            ),
            struct_pack(
                measure := 'longest_gap',
                figure := cast((
                    select max(g.days_since) / nullif(any_value(t.days), 0)
                    from gaps as g
                    cross join totals as t
                ) as double),
                is_more_better := false,
                good_to := cast(0.05 as double),
                fair_to := cast(0.2 as double),
                meaning := 'longest stretch without any behaviour, of the whole period',
                remedy := 'look for a lost export; features decay over the gap as if nobody had come'
            ),
            struct_pack(
                measure := 'duplicates',
                figure := cast((
                    select sum(events - 1) / sum(events)
                    from copies
                ) as double),
                is_more_better := false,
                good_to := cast(0.01 as double),
                fair_to := cast(0.1 as double),
                meaning := 'events equal to another in user, item, type, value and moment',
                remedy := 'pass event_id to load, if one action was logged twice'
            ),
            struct_pack(
                measure := 'bots',
                figure := cast((
                    select
                        sum(case when u.user_id in (select user_id from bots) then u.events else 0 end)
                        / sum(u.events)
                    from of_users as u
                ) as double),
                is_more_better := false,
                good_to := cast(0.001 as double),
                fair_to := cast(0.05 as double),
                meaning := 'events of users active at 22 hours of one day or a thousand times',
                remedy := 'delete these users: m6.forget_user(con, user_id), or filter the source'
            ),
            struct_pack(
                measure := 'types_without_meaning',
                figure := cast((
                    select sum(case when satisfaction is null then events else 0 end) / sum(events)
                    from kinds
                ) as double),
                is_more_better := false,
                good_to := cast(0.0 as double),
                fair_to := cast(0.01 as double),
                meaning := 'events whose type is not in m6.event_types',
                remedy := 'insert the type into m6.event_types with its interest and satisfaction'
            ),
            struct_pack(
                measure := 'levels_of_satisfaction',
                figure := cast((
                    select count(distinct satisfaction) + max(cast(value_high is not null as integer))
                    from kinds
                ) as double),
                is_more_better := true,
                good_to := cast(2 as double),
                fair_to := cast(1.5 as double),
                meaning := 'kinds of behaviour that say different things about satisfaction',
                remedy := 'load purchases, ratings or returns: views alone say what is looked at, not what is liked'
            ),
            struct_pack(
                measure := 'values_missing',
                figure := cast((
                    select sum(without_value) / nullif(sum(events), 0)
                    from kinds
                    where value_high is not null
                ) as double),
                is_more_better := false,
                good_to := cast(0.01 as double),
                fair_to := cast(0.2 as double),
                meaning := 'events of graded types (ratings) without their value',
                remedy := 'load value: without it the type''s own satisfaction counts'
            ),
            struct_pack(
                measure := 'months',
                figure := cast((
                    select days / 30.4
                    from totals
                ) as double),
                is_more_better := true,
                good_to := cast(3 as double),
                fair_to := cast(1 as double),
                meaning := 'length of the log in months',
                remedy := 'load a longer period: seasons and returning users need one'
            )
        ]) as m
),

judged as (
    select
        x.m.measure as measure,
        round(x.m.figure, 4) as figure,
        case
            when x.m.figure is null then 'unknown'
            when if(x.m.is_more_better, x.m.figure >= x.m.good_to, x.m.figure <= x.m.good_to) then 'good'
            when if(x.m.is_more_better, x.m.figure >= x.m.fair_to, x.m.figure <= x.m.fair_to) then 'fair'
            else 'poor'
        end as verdict,
        x.m.meaning as meaning,
        x.m.remedy as remedy,
        x.m.good_to as good_to,
        x.m.fair_to as fair_to
    from measured as x
)

select measure, figure, verdict, meaning, case when verdict <> 'good' then remedy end as remedy, good_to, fair_to
from judged
order by list_position(['poor', 'fair', 'unknown', 'good'], verdict), measure
