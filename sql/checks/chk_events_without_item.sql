-- one row per item that has events but no row in m6.items: it is recommended without title or text
-- remedy (warn): load the missing items
with

events as (select item_id, count(*) as events from m6.events group by item_id),

unnamed as (
    select events.item_id, events.events
    from events
    anti join m6.items as items on events.item_id = items.item_id
)

select * from unnamed
order by events desc, item_id
