-- one row per behaviour: stars alone say how satisfied somebody is
select
    user_id,
    item_id,
    event_type,
    value,
    interest,
    case when event_type = 'rating' then satisfaction else 0.0 end as satisfaction,
    happened_at
from stg_behaviour
