-- one row per item that goes with an item: co-visitation with direction and decay
create or replace macro m6.bought_together(with_item, k := 10) as table
select
    n.item_id,
    n.title,
    row_number() over (order by t.weight desc, n.item_id) as rank,
    t.weight as raw_score,
    n.domain
from m6.stg_items as s
inner join m6.feat_item_transitions as t on s.item_idx = t.item_idx
inner join m6.stg_items as n on t.next_item_idx = n.item_idx
inner join m6.items as i on n.item_id = i.item_id and i.is_available
where s.item_id = cast(with_item as varchar)
order by rank
limit k;
comment on macro table m6.bought_together is 'Items people go to with or after an item';
