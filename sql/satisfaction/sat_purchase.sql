-- one row per behaviour: only a purchase that was not sent back satisfies
select
    user_id,
    item_id,
    event_type,
    value,
    interest,
    case when event_type = 'purchase' then 1.0 else 0.0 end as satisfaction,
    happened_at
from stg_behaviour
