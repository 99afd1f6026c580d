-- one row per (user, item): items the user returns to, when the item's own repurchase rhythm says it is time
with

users as (select user_idx from candidate_users),

history as (
    select h.user_idx, h.item_idx, h.events, h.last_days
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
    where h.interest > 0
),

items as (select item_idx, repurchase_rate, repurchase_days from feat_item_activity),

proposed as (
    select
        h.user_idx,
        h.item_idx,
        i.repurchase_rate
        * ln(1.0 + h.events)
        * exp(
            -abs(h.last_days - coalesce(i.repurchase_days, 0.1 * $span_days))
            / (coalesce(i.repurchase_days, 0.0) + 0.1 * $span_days)
        ) as raw_score
    from history as h
    inner join items as i on h.item_idx = i.item_idx
    where i.repurchase_rate > 0
)

select * from proposed
