-- one row per (domain, segment) with a failed data check: why its weights are frozen
with

periods as (
    select
        domain,
        segment,
        period,
        count(*) as impressions,
        count(*) filter (where is_answered) as answered
    from fb_log
    group by domain, segment, period
),

compared as (
    select
        domain,
        segment,
        coalesce(max(impressions) filter (where period = $last_period), 0) as impressions,
        coalesce(max(answered) filter (where period = $last_period), 0) as answered,
        median(impressions) filter (where period < $last_period) as usual_impressions,
        sum(answered) filter (where period < $last_period)
        / sum(impressions) filter (where period < $last_period) as usual_rate,
        count(*) filter (where period < $last_period) as earlier_periods
    from periods
    group by domain, segment
),

combinations as (
    select domain, segment, supporters, eligible, policy_version, propensity, count(*) as n
    from fb_log
    where policy_version is not null and period = $last_period
    group by all
),

logged as (
    select
        c.domain,
        c.segment,
        c.n,
        abs(
            c.propensity
            - sum(w.weight) filter (where (c.supporters >> s.bit) & 1 = 1)
            / sum(w.weight) filter (where (c.eligible >> s.bit) & 1 = 1)
        ) as error
    from combinations as c
    inner join m6.strategy_weights as w
        on c.policy_version = w.policy_version and c.domain = w.domain and c.segment = w.segment
    inner join m6.strategies as s on w.strategy = s.strategy
    group by c.domain, c.segment, c.supporters, c.eligible, c.policy_version, c.propensity, c.n
),

failed as (
    select
        domain,
        segment,
        format('volume: {} impressions, usually {:.0f}', impressions, usual_impressions) as reason
    from compared
    where
        earlier_periods >= 3
        and usual_impressions >= 200
        and impressions > 0
        and (
            impressions > $max_volume_ratio * usual_impressions
            or impressions * $max_volume_ratio < usual_impressions
        )
    union all
    select
        domain,
        segment,
        format('reaction rate: {:.4f}, usually {:.4f}', answered / impressions, usual_rate) as reason
    from compared
    where
        impressions >= 200
        and usual_rate > 0
        and (
            answered > $max_rate_ratio * usual_rate * impressions
            or answered * $max_rate_ratio < usual_rate * impressions
        )
        and abs(answered - usual_rate * impressions)
        > $max_rate_z * sqrt(usual_rate * (1 - least(usual_rate, 0.999)) * impressions)
    union all
    select
        domain,
        segment,
        format(
            'propensities: {:.1f} % do not follow from the weights in force',
            100.0 * sum(n) filter (where error > 1e-6) / sum(n)
        ) as reason
    from logged
    group by domain, segment
    having sum(n) filter (where error > 1e-6) > 0.001 * sum(n)
),

reasons as (
    select domain, segment, string_agg(reason, '; ' order by reason) as reason
    from failed
    group by domain, segment
)

select * from reasons order by domain, segment
