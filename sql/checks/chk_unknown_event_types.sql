-- one row per event type used in events or feedback but missing in m6.event_types: such rows count for nothing
-- remedy (fail): insert the type into m6.event_types with its interest and satisfaction, then build
with

used as (
    select event_type from m6.events
    union
    select event_type from m6.feedback
),

unknown as (
    select used.event_type
    from used
    anti join m6.event_types as known on used.event_type = known.event_type
)

select * from unknown
order by event_type
