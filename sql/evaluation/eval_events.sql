-- one row per event: how satisfied it shows the user to be (y in [0, 1]), and whether it is a sign of interest
with

events as (
    select user_id, item_id, event_type, value, happened_at
    from m6.events
),

event_types as (
    select event_type, interest, satisfaction, value_low, value_high
    from m6.event_types
),

graded as (
    select
        events.user_id,
        events.item_id,
        events.happened_at,
        coalesce(event_types.interest > 0, false) as is_interest,
        case
            when events.value is null or event_types.value_low is null or event_types.value_high is null
                then event_types.satisfaction
            else least(greatest(
                (events.value - event_types.value_low) / (event_types.value_high - event_types.value_low), 0
            ), 1)
        end as y
    from events
    left join event_types on events.event_type = event_types.event_type
)

select * from graded
