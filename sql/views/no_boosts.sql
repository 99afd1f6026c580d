-- one row per boosted item: none; the default of `boosts`, and the columns such a table needs
select
    cast(null as varchar) as item_id,
    cast(null as double) as boost
where false
