-- one row per (user, item): what people went to next after the user's latest items
with

users as (select user_idx from candidate_users),

history as (
    select h.user_idx, h.item_idx, h.short_weight
    from feat_user_item as h
    inner join users as u on h.user_idx = u.user_idx
    where h.short_weight > 0
),

steps as (select item_idx, next_item_idx, weight from feat_item_transitions),

proposed as (
    select h.user_idx, s.next_item_idx as item_idx, sum(h.short_weight * s.weight) as raw_score
    from history as h
    inner join steps as s on h.item_idx = s.item_idx
    group by h.user_idx, s.next_item_idx
)

select * from proposed
