-- one row per behaviour: what counts seconds is graded by the item's own length, else by how long people stay with it
--   length: attributes.seconds of the item, y = the share of it; usual stay u: the median of at least 5 stays with
--   the item, else of its kind of event, y = value / (value + u), 0.5 at the usual stay; the rest as by sat_graded
with

behaviour as (
    select user_id, item_id, event_type, value, interest, satisfaction, happened_at
    from stg_behaviour
),

timed as (
    select event_type, interest as type_interest
    from m6.event_types
    where unit = 'seconds' and interest > 0
),

lengths as (
    select item_id, try_cast(attributes ->> '$.seconds' as double) as seconds
    from m6.items
    where attributes is not null
),

stays as (
    select b.event_type, b.item_id, b.value
    from behaviour as b
    inner join timed as t on b.event_type = t.event_type
    where b.value > 0
),

usual_of_item as (
    select event_type, item_id, median(value) as seconds
    from stays
    group by event_type, item_id
    having count(*) >= 5
),

usual_of_type as (
    select event_type, median(value) as seconds
    from stays
    group by event_type
),

measured as (
    select
        b.*,
        t.type_interest,
        case
            when t.event_type is null or b.value is null then null
            when b.value <= 0 then 0.0
            when l.seconds > 0 then least(1.0, b.value / l.seconds)
            else b.value / (b.value + coalesce(i.seconds, k.seconds))
        end as share
    from behaviour as b
    left join timed as t on b.event_type = t.event_type
    left join lengths as l on b.item_id = l.item_id
    left join usual_of_item as i on b.event_type = i.event_type and b.item_id = i.item_id
    left join usual_of_type as k on b.event_type = k.event_type
),

graded as (
    select
        user_id,
        item_id,
        event_type,
        value,
        case when share is null then interest else type_interest * greatest(share, 0.2) end as interest,
        coalesce(share, satisfaction) as satisfaction,
        happened_at
    from measured
)

select * from graded
