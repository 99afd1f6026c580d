-- one row per item that would go into a basket, best first: from m6.complete_basket(['i1', 'i2'], for_user := 'u42')
create or replace macro m6.complete_basket(
    of_items,
    k := 10,
    for_user := null,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    as_event := 'cart'
) as table
with

m6_this_basket as (
    select
        '1' as basket,
        cast(for_user as varchar) as user_id,
        of_items as items
)

select item_id, title, rank, score, satisfaction, because_item_id, domain
from m6.complete_baskets(
    'm6_this_basket',
    k := k,
    in_domain := in_domain,
    among := among,
    boosts := boosts,
    as_event := as_event
)
order by rank;
comment on macro table m6.complete_basket is 'What goes with the items of a basket: from m6.complete_basket([''i1'', ''i2''])';
