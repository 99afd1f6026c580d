-- one row per behaviour: events and feedback alike, with interest and satisfaction as numbers
with

graded as (
    select
        b.user_id,
        b.item_id,
        b.event_type,
        b.value,
        t.interest as type_interest,
        case
            when t.value_high > t.value_low and b.value is not null
                then least(1.0, greatest(0.0, (b.value - t.value_low) / (t.value_high - t.value_low)))
            else t.satisfaction
        end as satisfaction,
        t.value_high > t.value_low and b.value is not null as is_graded,
        b.happened_at
    from stg_actions as b
    inner join m6.event_types as t on b.event_type = t.event_type
)

select
    user_id,
    item_id,
    event_type,
    value,
    case when is_graded then type_interest * greatest(satisfaction, 0.2) else type_interest end as interest,
    satisfaction,
    happened_at
from graded
