-- one row per (user, item): inner product of the folded-in user factors and the item factors, times the trend
with

users as (select user_idx from candidate_users),

history as (
    select h.user_idx, h.item_idx, h.long_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
    where h.long_weight > 0
),

user_factors as (
    select
        h.user_idx,
        m6_weighted_sum(
            list(f.fold_in order by h.item_idx),
            list(cast(h.long_weight as float) order by h.item_idx)
        ) as factors
    from history as h
    inner join item_factors as f on h.item_idx = f.item_idx
    group by h.user_idx
),

proposed as (
    select
        u.user_idx,
        f.item_idx,
        list_inner_product(cast(u.factors as double[]), cast(f.factors as double[])) * t.trend_factor as raw_score
    from user_factors as u
    cross join item_factors as f
    inner join item_trend as t on f.item_idx = t.item_idx
)

select * from proposed where round(raw_score, 9) > 0
