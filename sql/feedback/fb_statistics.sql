-- one row per (period, domain, segment, fold, strategy): sums of u = 1[strategy supports the item] / propensity
with

masks as (
    select
        period,
        domain,
        segment,
        fold,
        supporters,
        sum(cast(1 / propensity as decimal(38, 12))) as s1,
        sum(cast(1 / propensity ^ 2 as decimal(38, 12))) as s2,
        sum(cast(advantage / propensity as decimal(38, 12))) as sy,
        sum(cast(advantage / propensity ^ 2 as decimal(38, 12))) as s2y,
        sum(cast(advantage ^ 2 / propensity ^ 2 as decimal(38, 12))) as s2yy
    from fb_log
    group by period, domain, segment, fold, supporters
),

statistics as (
    select
        m.period,
        m.domain,
        m.segment,
        m.fold,
        s.strategy,
        cast(sum(m.s1) as double) as s1,
        cast(sum(m.s2) as double) as s2,
        cast(sum(m.sy) as double) as sy,
        cast(sum(m.s2y) as double) as s2y,
        cast(sum(m.s2yy) as double) as s2yy
    from masks as m
    inner join m6.strategies as s on (m.supporters >> s.bit) & 1 = 1
    group by m.period, m.domain, m.segment, m.fold, s.strategy
)

select * from statistics order by period, domain, segment, fold, strategy
