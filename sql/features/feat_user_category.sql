-- one row per (user, category): share of the user's interest that went to the category
with

pairs as (select user_idx, item_idx, long_weight from feat_user_item where long_weight > 0),

items as (select item_idx, category from stg_items where category is not null),

per_category as (
    select p.user_idx, i.category, sum(p.long_weight) as weight
    from pairs as p
    inner join items as i on p.item_idx = i.item_idx
    group by p.user_idx, i.category
),

per_user as (
    select user_idx, sum(long_weight) as weight
    from pairs
    group by user_idx
),

shares as (
    select c.user_idx, c.category, c.weight / u.weight as share
    from per_category as c
    inner join per_user as u on c.user_idx = u.user_idx
)

select * from shares
