-- one row per (domain, segment), and ('', '') for all together: confidence sequence of weights in force minus champion
with

masks as (
    select distinct domain, segment, supporters, eligible
    from fb_log
    where policy_version = $current_version
),

propensities as (
    select
        m.domain,
        m.segment,
        m.supporters,
        m.eligible,
        p.step,
        coalesce(sum(p.weight order by p.bit) filter (where (m.supporters >> p.bit) & 1 = 1), 0.0)
        / greatest(1e-12, sum(p.weight order by p.bit) filter (where (m.eligible >> p.bit) & 1 = 1)) as propensity
    from masks as m
    inner join fb_policies as p
        on m.domain = p.domain and m.segment = p.segment and p.fold = 0 and p.step in (0.0, -1.0)
    group by m.domain, m.segment, m.supporters, m.eligible, p.step
),

compared as (
    select
        domain,
        segment,
        supporters,
        eligible,
        max(propensity) filter (where step = 0.0) - max(propensity) filter (where step = -1.0) as difference
    from propensities
    group by domain, segment, supporters, eligible
),

lists as (
    select
        l.domain,
        l.segment,
        l.request_id,
        cast(sum(cast(c.difference / l.propensity * l.advantage as decimal(38, 12))) as double) as delta
    from fb_log as l
    inner join compared as c using (domain, segment, supporters, eligible)
    where l.policy_version = $current_version
    group by l.domain, l.segment, l.request_id
),

sums as (
    select
        coalesce(domain, '') as domain,
        coalesce(segment, '') as segment,
        count(*) as n,
        cast(sum(cast(delta as decimal(38, 12))) as double) / count(*) as delta,
        cast(sum(cast(delta * delta as decimal(38, 12))) as double) / count(*) as delta_squared
    from lists
    group by grouping sets ((domain, segment), ())
),

radii as (
    select
        domain,
        segment,
        n,
        delta,
        sqrt(greatest(0.0, delta_squared - delta * delta) * n / greatest(1, n - 1)) as std_deviation,
        (2 * ln(1 / (2 * $alpha)) + ln(1 + 2 * ln(1 / (2 * $alpha)))) / $n_star as r2
    from sums
    where n >= 2
),

evidence as (
    select
        domain,
        segment,
        n,
        delta,
        delta - std_deviation * sqrt(
            2 * (n * r2 + 1) / (n * n * r2) * ln(1 + sqrt(n * r2 + 1) / (2 * $alpha))
        ) as low,
        delta + std_deviation * sqrt(
            2 * (n * r2 + 1) / (n * n * r2) * ln(1 + sqrt(n * r2 + 1) / (2 * $alpha))
        ) as high
    from radii
)

select * from evidence order by domain, segment
