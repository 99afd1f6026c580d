-- one row per behaviour of one user, the latest first
create or replace macro m6.history(for_user, k := 100) as table
select b.user_id, b.item_id, i.title, b.event_type, b.value, b.satisfaction, b.happened_at
from m6.behaviour as b
left join m6.items as i on b.item_id = i.item_id
where b.user_id = cast(for_user as varchar)
order by b.happened_at desc, b.item_id, b.event_type
limit k;
comment on macro table m6.history is 'What one user did, events and feedback, the latest first';
