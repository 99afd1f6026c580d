-- one row per (period, domain, segment): share of its evidence that still counts: little before a fall of the reward
with

lists as (
    select
        domain,
        segment,
        period,
        request_id,
        cast(sum(cast(reward as decimal(38, 12))) as double) / count(*) as reward
    from fb_log
    group by domain, segment, period, request_id
),

sums as (
    select
        domain,
        segment,
        period,
        count(*) as lists,
        cast(sum(cast(reward as decimal(38, 12))) as double) / count(*) as level,
        cast(sum(cast(reward * reward as decimal(38, 12))) as double) / count(*) as level_squared
    from lists
    group by domain, segment, period
),

levels as (
    select
        domain,
        segment,
        period,
        lists,
        cast(level as decimal(38, 12)) as level,
        cast(greatest(0.0, level_squared - level * level) / greatest(1, lists - 1) as decimal(38, 12)) as variance
    from sums
),

compared as (
    select
        *,
        sum(level) over earlier / count(*) over earlier as earlier_level,
        sum(variance) over earlier / (count(*) over earlier) ^ 2 as earlier_variance
    from levels
    window earlier as (
        partition by domain, segment
        order by period
        rows between 3 preceding and 1 preceding
    )
),

marked as (
    select
        *,
        coalesce(
            lists >= $min_lists
            and earlier_level - level > $drop * abs(earlier_level)
            and earlier_level - level > $drop_z * sqrt(variance + earlier_variance),
            false
        ) as has_fallen
    from compared
),

memory as (
    select
        period,
        domain,
        segment,
        cast(level as double) as level,
        has_fallen,
        $forget ^ coalesce(sum(cast(has_fallen as integer)) over later, 0) as memory
    from marked
    window later as (
        partition by domain, segment
        order by period
        rows between 1 following and unbounded following
    )
)

select * from memory order by domain, segment, period
