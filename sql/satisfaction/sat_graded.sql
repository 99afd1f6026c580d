-- one row per behaviour: the default; every event type says its own y (m6.event_types), stars by their scale
select user_id, item_id, event_type, value, interest, satisfaction, happened_at
from stg_behaviour
