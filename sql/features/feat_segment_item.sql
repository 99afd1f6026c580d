-- one row per (segment, item): recent popularity inside the segment
with

users as (select user_idx, segment from stg_users where segment <> '*'),

events as (select user_idx, item_idx, age_days from stg_events where interest > 0),

trends as (
    select
        u.segment,
        e.item_idx,
        sum(pow(0.5, e.age_days / (0.03 * $span_days))) as trend
    from events as e
    inner join users as u on e.user_idx = u.user_idx
    group by u.segment, e.item_idx
)

select * from trends
