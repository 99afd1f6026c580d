-- one row per user: how much, how lately and what kind of behaviour up to $as_of
with

users as (select user_idx, user_id, segment from stg_users),

events as (select * from stg_events),

items as (select item_idx, events, age_days, price from feat_item_activity),

per_user as (
    select
        e.user_idx,
        count(*) as events,
        count(distinct e.item_idx) as items,
        avg(e.satisfaction) as satisfaction,
        min(e.age_days) as idle_days,
        max(e.age_days) as tenure_days,
        count(*) filter (where e.age_days <= 0.01 * $span_days) as events_short,
        count(*) filter (where e.age_days <= 0.1 * $span_days) as events_long,
        count(*) filter (where e.age_days <= 7) as events_7_days,
        count(*) filter (where e.age_days <= 30) as events_30_days,
        avg(ln(1.0 + i.events)) as mean_log_popularity,
        avg(case when i.price is not null then ln(1.0 + greatest(i.price, 0.0)) end) as mean_log_price
    from events as e
    inner join items as i on e.item_idx = i.item_idx
    group by e.user_idx
),

joined as (
    select
        u.user_idx,
        u.user_id,
        u.segment,
        coalesce(p.events, 0) as events,
        coalesce(p.items, 0) as items,
        p.satisfaction,
        p.idle_days,
        p.tenure_days,
        coalesce(p.events_short, 0) as events_short,
        coalesce(p.events_long, 0) as events_long,
        coalesce(p.events_7_days, 0) as events_7_days,
        coalesce(p.events_30_days, 0) as events_30_days,
        p.mean_log_popularity,
        p.mean_log_price
    from users as u
    left join per_user as p on u.user_idx = p.user_idx
)

select * from joined
