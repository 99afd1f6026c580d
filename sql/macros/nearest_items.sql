-- one row per item near a vector
create or replace macro m6.nearest_items(near_vector, k := 10, in_domain := null, among := 'm6.available_items', version := null) as table
with

allowed as (
    select m6_item_set(coalesce(list(item_id order by item_id), []), null) as handle
    from query_table(among)
    where among <> 'm6.available_items'
),

blocked as (
    select m6_item_set(coalesce(list(item_id order by item_id), []), null) as handle
    from m6.items
    where not is_available
),

found as (
    select
        unnest(
            m6_nearest(
                coalesce(cast(version as bigint), a.model_version),
                near_vector,
                cast(in_domain as varchar),
                case when among <> 'm6.available_items' then l.handle end,
                b.handle,
                cast(k as integer)
            )
        ) as hit
    from m6.active_version as a
    cross join allowed as l
    cross join blocked as b
)

select
    f.hit.item_id as item_id,
    i.title,
    row_number() over (order by f.hit.score desc, f.hit.item_id) as rank,
    f.hit.score as score,
    i.domain
from found as f
left join m6.items as i on f.hit.item_id = i.item_id
order by rank;
comment on macro table m6.nearest_items is 'Items nearest to a vector by cosine';
