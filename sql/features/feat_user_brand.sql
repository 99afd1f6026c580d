-- one row per (user, brand): share of the user's interest that went to the brand
with

pairs as (select user_idx, item_idx, long_weight from feat_user_item where long_weight > 0),

items as (select item_idx, brand from stg_items where brand is not null),

per_brand as (
    select p.user_idx, i.brand, sum(p.long_weight) as weight
    from pairs as p
    inner join items as i on p.item_idx = i.item_idx
    group by p.user_idx, i.brand
),

per_user as (
    select user_idx, sum(long_weight) as weight
    from pairs
    group by user_idx
),

shares as (
    select b.user_idx, b.brand, b.weight / u.weight as share
    from per_brand as b
    inner join per_user as u on b.user_idx = u.user_idx
)

select * from shares
