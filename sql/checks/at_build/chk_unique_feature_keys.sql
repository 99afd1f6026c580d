-- one row per broken key: a feature model with two rows for what should be one, or a key that is null
with

keys as (
    select 'feat_item_activity' as model, cast(item_idx as varchar) as key from feat_item_activity
    union all
    select 'feat_user_activity' as model, cast(user_idx as varchar) as key from feat_user_activity
    union all
    select 'feat_user_item' as model, user_idx || ',' || item_idx as key from feat_user_item
),

broken as (
    select model, key, count(*) as found
    from keys
    group by model, key
    having count(*) > 1 or key is null
)

select model, key, found from broken
