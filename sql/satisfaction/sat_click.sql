-- one row per behaviour: any sign of interest satisfies, as a click-through model would have it
select
    user_id,
    item_id,
    event_type,
    value,
    interest,
    case when interest > 0 then 1.0 else 0.0 end as satisfaction,
    happened_at
from stg_behaviour
