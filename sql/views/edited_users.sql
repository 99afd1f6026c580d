-- one row per user whose stored history is not to be read; NULL: nobody's is, m6.event_types was edited since the build
select user_id
from m6.history_edits
union all
select null as user_id
from m6.history_marks
where types_hash is distinct from (select bit_xor(hash(t)) from m6.event_types as t)
