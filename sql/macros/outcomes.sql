-- one row per (period, group): what was shown and what came of it, with 95 % intervals; groups: all, strategy, domain, segment
--   period: all, day, week, month or another part of a date, of the moment an item was shown.
--   Reactions: feedback on an impression, and events with the item within `within` of its last impression; a reaction that
--   came both ways counts once. Clicked: any reaction of interest; converted, returned: by event type; revenue: the
--   values of conversions. Rates are per impression, return_rate per conversion.
--   Intervals: Wilson's with the number of impressions divided by the design effect of users (Kish 1965); of revenue the
--   linearised error of a ratio of sums over users.
create or replace macro m6.outcomes(
    period := 'all',
    since := timestamp '-infinity',
    until := timestamp 'infinity',
    within := interval 7 days,
    conversions := ['purchase'],
    returns := ['return']
) as table
with

shown as materialized (
    select
        i.impression_id,
        i.request_id,
        i.user_id,
        i.item_id,
        i.strategy,
        coalesce(n.domain, i.domain, '*') as domain,
        coalesce(i.segment, '*') as segment,
        i.shown_at,
        case
            when period <> 'all' then date_trunc(case when period = 'all' then 'day' else period end, i.shown_at)
        end as period_start
    from m6.impressions as i
    left join m6.items as n on i.item_id = n.item_id
    where i.shown_at >= since and i.shown_at < until
),

by_feedback as (
    select f.impression_id, f.event_type, f.value, f.happened_at
    from m6.feedback as f
    inner join shown as s on f.impression_id = s.impression_id
),

named as (
    select
        coalesce(f.user_id, r.user_id) as user_id,
        f.item_id,
        f.event_type,
        f.value,
        f.happened_at
    from m6.feedback as f
    anti join m6.impressions as i on f.impression_id = i.impression_id
    left join (select distinct request_id, user_id from m6.impressions) as r on f.request_id = r.request_id
    union all
    select user_id, item_id, event_type, value, happened_at
    from m6.events
),

by_item as (
    select s.impression_id, e.event_type, e.value, e.happened_at
    from named as e
    asof inner join shown as s on e.user_id = s.user_id and e.item_id = s.item_id and e.happened_at >= s.shown_at
    where e.happened_at <= s.shown_at + within
),

reactions as (
    select distinct s.user_id, s.item_id, r.impression_id, r.event_type, r.value, r.happened_at
    from (
        select * from by_feedback
        union all
        select * from by_item
    ) as r
    inner join shown as s on r.impression_id = s.impression_id
),

credited as (
    select
        r.impression_id,
        bool_or(t.interest > 0) as is_clicked,
        bool_or(list_contains(conversions, r.event_type)) as is_converted,
        bool_or(list_contains(returns, r.event_type)) as is_returned,
        coalesce(sum(r.value) filter (where list_contains(conversions, r.event_type)), 0) as revenue
    from reactions as r
    left join m6.event_types as t on r.event_type = t.event_type
    group by r.impression_id
),

judged as (
    select
        s.*,
        cast(coalesce(c.is_clicked, false) as double) as clicked,
        cast(coalesce(c.is_converted, false) as double) as converted,
        cast(coalesce(c.is_returned and c.is_converted, false) as double) as returned,
        coalesce(c.revenue, 0) as revenue
    from shown as s
    left join credited as c on s.impression_id = c.impression_id
),

grouped as (
    select *, 'all' as group_kind, '*' as group_name from judged
    union all
    select *, 'strategy', strategy from judged
    union all
    select *, 'domain', domain from judged
    union all
    select *, 'segment', segment from judged
),

people as (
    select
        period_start,
        group_kind,
        group_name,
        user_id,
        count(*) as shown,
        count(distinct request_id) as requests,
        sum(clicked) as clicked,
        sum(converted) as converted,
        sum(returned) as returned,
        sum(revenue) as revenue
    from grouped
    group by period_start, group_kind, group_name, user_id
),

totals as (
    select
        period_start,
        group_kind,
        group_name,
        count(*) as users,
        count(*) filter (where clicked > 0) as active_users,
        cast(sum(requests) as bigint) as requests,
        cast(sum(shown) as bigint) as impressions,
        cast(sum(clicked) as bigint) as clicks,
        cast(sum(converted) as bigint) as converted,
        cast(sum(returned) as bigint) as returned,
        sum(revenue) as revenue,
        sum(clicked) / sum(shown) as click_rate,
        sum(converted) / sum(shown) as conversion_rate,
        sum(returned) / nullif(sum(converted), 0) as return_rate,
        sum(revenue) / sum(shown) as revenue_per_impression
    from people
    group by period_start, group_kind, group_name
),

-- variance of each ratio of sums over users, linearised
spread as (
    select
        t.period_start,
        t.group_kind,
        t.group_name,
        sum(pow(p.clicked - t.click_rate * p.shown, 2)) / pow(sum(p.shown), 2) * m6.per_degree(count(*)) as of_clicks,
        sum(pow(p.converted - t.conversion_rate * p.shown, 2)) / pow(sum(p.shown), 2) * m6.per_degree(count(*))
            as of_conversions,
        sum(pow(p.returned - t.return_rate * p.converted, 2)) / pow(sum(p.converted), 2) * m6.per_degree(count(*))
            as of_returns,
        sum(pow(p.revenue - t.revenue_per_impression * p.shown, 2)) / pow(sum(p.shown), 2) * m6.per_degree(count(*))
            as of_revenue
    from people as p
    inner join totals as t
        on
            p.period_start is not distinct from t.period_start
            and p.group_kind = t.group_kind
            and p.group_name = t.group_name
    group by t.period_start, t.group_kind, t.group_name
),

bounded as (
    select
        t.*,
        s.of_revenue,
        m6.wilson(t.click_rate, t.impressions, s.of_clicks) as click_bounds,
        m6.wilson(t.conversion_rate, t.impressions, s.of_conversions) as conversion_bounds,
        m6.wilson(t.return_rate, t.converted, s.of_returns) as return_bounds
    from totals as t
    inner join spread as s
        on
            t.period_start is not distinct from s.period_start
            and t.group_kind = s.group_kind
            and t.group_name = s.group_name
)

select
    period_start,
    group_kind,
    group_name,
    users,
    active_users,
    requests,
    impressions,
    clicks,
    click_rate,
    click_bounds.low as click_low,
    click_bounds.high as click_high,
    converted as conversions,
    conversion_rate,
    conversion_bounds.low as conversion_low,
    conversion_bounds.high as conversion_high,
    revenue,
    1000 * revenue_per_impression as revenue_per_1000,
    1000 * (revenue_per_impression - 1.959963984540054e0 * sqrt(of_revenue)) as revenue_low,
    1000 * (revenue_per_impression + 1.959963984540054e0 * sqrt(of_revenue)) as revenue_high,
    returned as returns,
    return_rate,
    return_bounds.low as return_low,
    return_bounds.high as return_high
from bounded
order by period_start nulls first, group_kind, group_name;
comment on macro table m6.outcomes is 'Clicks, conversions, revenue, returns and active users by strategy, domain, segment, period, with intervals';
