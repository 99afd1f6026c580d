-- one row per item: how much, how lately and how well it was received up to $as_of
with

items as (select item_idx, item_id, domain, price, created_at from stg_items),

events as (select * from stg_events where interest > 0),

per_item as (
    select
        item_idx,
        count(*) as events,
        avg(satisfaction) as satisfaction,
        sum(pow(0.5, age_days / (0.003 * $span_days))) as trend_very_short,
        sum(pow(0.5, age_days / (0.01 * $span_days))) as trend_short,
        sum(pow(0.5, age_days / (0.03 * $span_days))) as trend_medium,
        sum(pow(0.5, age_days / (0.1 * $span_days))) as trend_long,
        count(*) filter (where is_positive) as successes,
        sum(case when is_positive then pow(0.5, age_days / (0.01 * $span_days)) else 0.0 end) as success_short,
        sum(case when is_positive then pow(0.5, age_days / (0.03 * $span_days)) else 0.0 end) as success_medium,
        sum(case when is_positive then pow(0.5, age_days / (0.1 * $span_days)) else 0.0 end) as success_long,
        max(age_days) as age_days,
        min(age_days) as idle_days
    from events
    group by item_idx
),

moments as (
    select item_idx, user_idx, happened_at, max(age_days) as age_days
    from events
    group by item_idx, user_idx, happened_at
),

per_pair as (
    select
        item_idx,
        user_idx,
        count(*) as times,
        (max(age_days) - min(age_days)) / nullif(count(*) - 1, 0) as repurchase_days
    from moments
    group by item_idx, user_idx
),

repurchase as (
    select
        item_idx,
        count(*) as users,
        avg(case when times > 1 then 1.0 else 0.0 end) as repurchase_rate,
        median(repurchase_days) as repurchase_days
    from per_pair
    group by item_idx
),

joined as (
    select
        i.item_idx,
        i.item_id,
        i.domain,
        coalesce(p.events, 0) as events,
        coalesce(r.users, 0) as users,
        p.satisfaction,
        coalesce(p.trend_very_short, 0.0) as trend_very_short,
        coalesce(p.trend_short, 0.0) as trend_short,
        coalesce(p.trend_medium, 0.0) as trend_medium,
        coalesce(p.trend_long, 0.0) as trend_long,
        coalesce(p.successes, 0) as successes,
        coalesce(p.success_short, 0.0) as success_short,
        coalesce(p.success_medium, 0.0) as success_medium,
        coalesce(p.success_long, 0.0) as success_long,
        case
            when i.created_at is not null and i.created_at <= $as_of
                then greatest(coalesce(p.age_days, 0.0), date_diff('second', i.created_at, $as_of) / 86400.0)
            else p.age_days
        end as age_days,
        p.age_days as first_event_days,
        p.idle_days,
        coalesce(r.repurchase_rate, 0.0) as repurchase_rate,
        r.repurchase_days,
        i.price
    from items as i
    left join per_item as p on i.item_idx = p.item_idx
    left join repurchase as r on i.item_idx = r.item_idx
)

select * from joined
