-- one row per (domain, segment, step): difference to the champion per list (slot ratios), cross-fitted over users
with

recent as (
    select
        l.domain,
        l.segment,
        l.fold,
        l.request_id,
        l.supporters,
        l.eligible,
        l.propensity,
        l.reward,
        m.memory,
        l.reward - cast(sum(cast(l.reward as decimal(38, 12))) over slot as double) / count(*) over slot as advantage
    from fb_log as l
    inner join fb_memory as m on l.domain = m.domain and l.segment = m.segment and l.period = m.period
    where l.period > $last_period - $gate_periods
    window slot as (partition by l.domain, l.segment, l.period, l.rank)
),

masks as (
    select distinct domain, segment, fold, supporters, eligible from recent
),

propensities as (
    select
        m.domain,
        m.segment,
        m.fold,
        m.supporters,
        m.eligible,
        p.step,
        coalesce(sum(p.weight order by p.bit) filter (where (m.supporters >> p.bit) & 1 = 1), 0.0)
        / greatest(1e-12, sum(p.weight order by p.bit) filter (where (m.eligible >> p.bit) & 1 = 1)) as propensity
    from masks as m
    inner join fb_policies as p on m.domain = p.domain and m.segment = p.segment and m.fold = p.fold
    group by m.domain, m.segment, m.fold, m.supporters, m.eligible, p.step
),

compared as (
    select p.*, c.propensity as champion
    from propensities as p
    inner join propensities as c using (domain, segment, fold, supporters, eligible)
    where p.step >= 0 and c.step = -1
),

lists as (
    select
        r.domain,
        r.segment,
        r.request_id,
        c.step,
        max(r.memory) as memory,
        cast(sum(cast((c.propensity - c.champion) / r.propensity * r.advantage as decimal(38, 12))) as double) as delta,
        cast(sum(cast(c.propensity / r.propensity * r.reward as decimal(38, 12))) as double) as value,
        max(c.propensity / r.propensity) as largest_ratio
    from recent as r
    inner join compared as c using (domain, segment, fold, supporters, eligible)
    group by r.domain, r.segment, r.request_id, c.step
),

sums as (
    select
        domain,
        segment,
        step,
        count(*) as lists,
        cast(sum(cast(memory as decimal(38, 12))) as double) as memory,
        cast(sum(cast(memory * delta as decimal(38, 12))) as double) as delta,
        cast(sum(cast(memory * value as decimal(38, 12))) as double) as value,
        cast(sum(cast(memory ^ 2 as decimal(38, 12))) as double) as memory_squared,
        cast(sum(cast(memory ^ 2 * delta as decimal(38, 12))) as double) as weighted_delta,
        cast(sum(cast(memory ^ 2 * delta ^ 2 as decimal(38, 12))) as double) as weighted_square,
        max(largest_ratio) as largest_ratio
    from lists
    group by domain, segment, step
),

means as (
    select
        domain,
        segment,
        step,
        lists,
        memory,
        delta / memory as delta,
        value / memory as value,
        weighted_square - 2 * delta / memory * weighted_delta + (delta / memory) ^ 2 * memory_squared as deviations,
        largest_ratio
    from sums
),

gate as (
    select
        domain,
        segment,
        step,
        lists,
        delta,
        sqrt(greatest(0.0, deviations) * lists / greatest(1, lists - 1)) / memory as std_error,
        value,
        max(value) filter (where step = 0.0) over (partition by domain, segment) as current_value,
        largest_ratio
    from means
)

select * from gate order by domain, segment, step
