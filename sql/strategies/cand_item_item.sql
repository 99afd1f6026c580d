-- one row per (user, item): closed-form item-item weights from the user's history, times the item's trend
with

users as (select user_idx from candidate_users),

history as (
    select h.user_idx, h.item_idx, h.long_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
    where h.long_weight > 0
),

neighbours as (select item_idx, next_item_idx, weight from item_neighbours),

trend as (select item_idx, trend_factor from item_trend),

proposed as (
    select
        h.user_idx,
        n.next_item_idx as item_idx,
        sum(h.long_weight * n.weight) * max(t.trend_factor) as raw_score
    from history as h
    inner join neighbours as n on h.item_idx = n.item_idx
    inner join trend as t on n.next_item_idx = t.item_idx
    group by h.user_idx, n.next_item_idx
)

select * from proposed where raw_score > 0
