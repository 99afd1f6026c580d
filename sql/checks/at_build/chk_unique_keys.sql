-- one row per broken key: a staging model with two rows for what should be one, or a key that is null
with

keys as (
    select 'stg_items' as model, cast(item_idx as varchar) as key from stg_items
    union all
    select 'stg_users' as model, cast(user_idx as varchar) as key from stg_users
),

broken as (
    select model, key, count(*) as found
    from keys
    group by model, key
    having count(*) > 1 or key is null
)

select model, key, found from broken
