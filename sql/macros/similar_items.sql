-- one row per item near an item in text
create or replace macro m6.similar_items(to_item, k := 10, in_domain := null, among := 'm6.available_items') as table
select
    n.item_id,
    n.title,
    row_number() over (order by n.score desc, n.item_id) as rank,
    n.score,
    n.domain
from m6.nearest_items(
    (select v.vector from m6.item_vectors as v where v.item_id = cast(to_item as varchar)),
    k := k + 1,
    in_domain := in_domain,
    among := among
) as n
where n.item_id <> cast(to_item as varchar)
order by rank
limit k;
comment on macro table m6.similar_items is 'Items whose text is near an item''s text';
