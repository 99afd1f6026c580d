-- one row per (user, item): inner product of the folded-in user factors and the item factors, times the trend
--   on Spark a list is gathered without an order: factors and weights come as one list of pairs, sorted afterwards
with

users as (select user_idx from candidate_users),

history as (
    select h.user_idx, h.item_idx, h.long_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
    where h.long_weight > 0
),

pairs as (
    select
        h.user_idx,
        array_sort(collect_list(struct(h.item_idx, f.fold_in, cast(h.long_weight as float) as weight))) as pairs
    from history as h
    inner join item_factors as f on h.item_idx = f.item_idx
    group by h.user_idx
),

user_factors as (
    select
        user_idx,
        m6_weighted_sum(transform(pairs, p -> p.fold_in), transform(pairs, p -> p.weight)) as factors
    from pairs
),

proposed as (
    select
        u.user_idx,
        f.item_idx,
        aggregate(
            zip_with(u.factors, f.factors, (a, b) -> cast(a as double) * cast(b as double)),
            cast(0 as double),
            (total, product) -> total + product
        ) * t.trend_factor as raw_score
    from user_factors as u
    cross join item_factors as f
    inner join item_trend as t on f.item_idx = t.item_idx
)

select * from proposed where round(raw_score, 9) > 0
