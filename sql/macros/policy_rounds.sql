-- one row per impression: its ratio under a policy (candidate, active, champion or a version), reward, reward model
create or replace macro m6.policy_rounds(for_policy) as table
with

target as (
    select case for_policy
        when 'active' then (select policy_version from m6.active)
        when 'champion' then (select max(policy_version) from m6.policy_versions where status = 'champion')
        when 'candidate' then (
            select coalesce(max(p.policy_version), any_value(a.policy_version))
            from m6.active as a
            left join m6.policy_versions as p
                on p.status in ('candidate', 'shadow') and p.policy_version > a.policy_version
        )
        else try_cast(for_policy as bigint)
    end as policy_version
),

groups as (
    select distinct domain, segment from m6.impression_rewards
),

resolved as (
    select g.domain, g.segment, w.policy_version, s.bit, w.strategy, w.weight
    from groups as g
    inner join m6.strategy_weights as w
        on w.domain in (g.domain, '*') and w.segment in (g.segment, '*')
    inner join m6.strategies as s on w.strategy = s.strategy
    qualify rank() over (
        partition by g.domain, g.segment, w.policy_version
        order by (w.segment = g.segment) desc, (w.domain = g.domain) desc
    ) = 1
),

rewards as (
    select *, cast(hash(user_id) % 2 as integer) as fold from m6.impression_rewards
),

cells as (
    select domain, segment, rank, strategy, fold, sum(reward) as reward, count(*) as n
    from rewards
    group by all
),

levels as (
    select domain, segment, rank, fold, sum(reward) as reward, sum(n) as n
    from cells
    group by all
),

places as (
    select l.domain, l.segment, l.rank, f.fold, r.strategy, r.bit, r.weight
    from (select distinct domain, segment, rank from levels) as l
    cross join (select unnest([0, 1]) as fold) as f
    inner join resolved as r on l.domain = r.domain and l.segment = r.segment
    where r.policy_version = (select policy_version from target)
),

models as (
    select
        p.*,
        (coalesce(c.reward, 0) + 100 * coalesce(l.reward / l.n, 0)) / (coalesce(c.n, 0) + 100) as predicted
    from places as p
    left join levels as l
        on p.domain = l.domain and p.segment = l.segment and p.rank = l.rank and l.fold = 1 - p.fold
    left join cells as c
        on
            p.domain = c.domain
            and p.segment = c.segment
            and p.rank = c.rank
            and p.strategy = c.strategy
            and c.fold = 1 - p.fold
),

masks as (
    select distinct domain, segment, rank, fold, supporters, eligible, policy_version from rewards
),

shares as (
    select
        m.domain,
        m.segment,
        m.rank,
        m.fold,
        m.supporters,
        m.eligible,
        m.policy_version,
        coalesce(sum(q.weight) filter (where (m.supporters >> q.bit) & 1 = 1), 0.0)
        / nullif(sum(q.weight) filter (where (m.eligible >> q.bit) & 1 = 1), 0) as propensity,
        coalesce(
            sum(q.weight * q.predicted) filter (where (m.supporters >> q.bit) & 1 = 1)
            / nullif(sum(q.weight) filter (where (m.supporters >> q.bit) & 1 = 1), 0),
            0.0
        ) as predicted,
        sum(q.weight * q.predicted) filter (where (m.eligible >> q.bit) & 1 = 1)
        / nullif(sum(q.weight) filter (where (m.eligible >> q.bit) & 1 = 1), 0) as expected,
        coalesce(
            sum(q.weight) filter (
                where (m.eligible >> q.bit) & 1 = 1 and m.policy_version is not null and coalesce(w.weight, 0) = 0
            ),
            0.0
        ) as unsupported
    from masks as m
    inner join models as q
        on m.domain = q.domain and m.segment = q.segment and m.rank = q.rank and m.fold = q.fold
    left join resolved as w
        on
            m.domain = w.domain
            and m.segment = w.segment
            and m.policy_version = w.policy_version
            and q.strategy = w.strategy
    group by m.domain, m.segment, m.rank, m.fold, m.supporters, m.eligible, m.policy_version
),

rounds as (
    select
        r.impression_id,
        r.request_id,
        r.user_id,
        r.rank,
        r.domain,
        r.segment,
        r.reward,
        s.propensity / r.propensity as ratio,
        s.predicted,
        s.expected,
        s.unsupported
    from rewards as r
    inner join shares as s
        on
            r.domain = s.domain
            and r.segment = s.segment
            and r.rank = s.rank
            and r.fold = s.fold
            and r.supporters = s.supporters
            and r.eligible = s.eligible
            and r.policy_version is not distinct from s.policy_version
    where s.propensity is not null
)

select * from rounds;
comment on macro table m6.policy_rounds is 'one row per impression: ratio under a policy, reward, reward model, as policy_value averages it';
