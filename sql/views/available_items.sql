-- one row per item that may be recommended now
select item_id
from m6.items
where is_available
