-- one row: what a list may show and what it prefers, as numbers of sets that the Python core keeps
--   allowed: the items of `among`, NULL for all; blocked: items that are not available; boosted: the boosts, NULL for none
create or replace macro m6.item_sets(among, boosts) as table
with

allowed as (
    select
        case
            when among <> 'm6.available_items' then m6_item_set(coalesce(list(item_id order by item_id), []), null)
        end as handle
    from query_table(among)
    where among <> 'm6.available_items'
),

blocked as (
    select m6_item_set(coalesce(list(item_id order by item_id), []), null) as handle
    from m6.items
    where not is_available
),

boosted as (
    select
        case
            when boosts <> 'm6.no_boosts'
                then m6_item_set(
                    coalesce(list(cast(item_id as varchar) order by item_id, boost), []),
                    coalesce(list(cast(boost as double) order by item_id, boost), [])
                )
        end as handle
    from query_table(boosts)
    where boosts <> 'm6.no_boosts'
)

select
    l.handle as allowed,
    b.handle as blocked,
    o.handle as boosted
from allowed as l
cross join blocked as b
cross join boosted as o;
comment on macro table m6.item_sets is 'The sets of items that a list keeps to: among, availability, boosts';
