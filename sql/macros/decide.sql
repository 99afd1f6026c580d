-- one row per (domain, segment), and (all) together: a decision on a policy, against the weights in force
-- read are the lists shown under the weights in force; difference: sum over a list's slots of
-- (probability under the policy / logged - 1) * (reward - mean of segment and slot), slots above held fixed;
-- its interval is a 95 % confidence sequence, its spread clustered by user: look as often as you like
create or replace macro m6.decide(for_policy := 'candidate') as table
with

target as materialized (select m6.policy_number(for_policy) as policy_version),

rounds as (
    select
        p.domain,
        p.segment,
        p.user_id,
        p.request_id,
        p.reward,
        p.ratio,
        p.reward - avg(p.reward) over (partition by p.domain, p.segment, p.rank) as advantage,
        p.unsupported
    from m6.policy_rounds(cast((select policy_version from target) as varchar)) as p
    inner join m6.impressions as i on p.impression_id = i.impression_id
    where i.policy_version = (select policy_version from m6.active)
),

lists as (
    select
        domain,
        segment,
        user_id,
        request_id,
        sum(reward) as value_in_force,
        sum((ratio - 1) * advantage) as difference,
        product(ratio) as weight,
        max(ratio) as largest_ratio,
        avg(unsupported) as unsupported
    from rounds
    group by domain, segment, user_id, request_id
),

scopes as (
    select * from lists
    union all by name
    select * replace ('(all)' as domain, '(all)' as segment) from lists
),

sums as (
    select
        domain,
        segment,
        count(*) as lists,
        avg(value_in_force) as value_in_force,
        avg(difference) as difference,
        stddev_samp(difference) as deviation,
        sum(weight) ^ 2 / nullif(sum(weight * weight), 0) as effective_lists,
        max(largest_ratio) as largest_ratio,
        avg(unsupported) as unsupported_share
    from scopes
    group by domain, segment
),

-- lists of one user hang together: the deviation of a list is at least the one that the sums of users show
people as (
    select
        c.domain,
        c.segment,
        c.user_id,
        sum(c.difference - s.difference) as excess
    from scopes as c
    inner join sums as s on c.domain = s.domain and c.segment = s.segment
    group by c.domain, c.segment, c.user_id
),

clusters as (
    select domain, segment, sum(excess * excess) * count(*) / nullif(count(*) - 1, 0) as spread
    from people
    group by domain, segment
),

asked as (
    select '(all)' as domain, '(all)' as segment
    union
    select distinct domain, segment from lists
),

measured as (
    select
        a.domain,
        a.segment,
        coalesce(s.lists, 0) as lists,
        s.* exclude (domain, segment, lists),
        m6.ope_radius(
            s.lists, greatest(s.deviation, sqrt(c.spread / s.lists)), 0.025, 3000
        ) as radius
    from asked as a
    left join sums as s on a.domain = s.domain and a.segment = s.segment
    left join clusters as c on a.domain = c.domain and a.segment = c.segment
),

judged as (
    select
        *,
        case
            when lists < 200 then format('{} lists, at least 200 needed', lists)
            when coalesce(effective_lists, 0) < 200
                then format(
                    'the log is worth {:.0f} lists of this policy, at least 200 needed', coalesce(effective_lists, 0)
                )
            when largest_ratio > 10.0000001
                then format('one shown item counts {:.1f} times, at most 10 allowed', largest_ratio)
            when unsupported_share > 0.05
                then format('{:.1f} % of the policy was never possible in the log', 100 * unsupported_share)
        end as problem
    from measured
),

decide as (
    select
        (select policy_version from target) as policy_version,
        domain,
        segment,
        lists,
        value_in_force,
        case when problem is null then difference end as difference,
        case when problem is null then difference - radius end as low,
        case when problem is null then difference + radius end as high,
        effective_lists,
        largest_ratio,
        unsupported_share,
        case
            when problem is not null then 'insufficient_support'
            when difference - radius > 0 then 'adopt'
            when difference + radius < 0 then 'keep'
            else 'wait'
        end as decision,
        coalesce(
            problem,
            case
                when difference - radius > 0 then 'better than the weights in force: m6.adopt, or m6rec adopt'
                when difference + radius < 0 then 'worse than the weights in force'
                else 'the log does not tell them apart yet'
            end
        ) as reason
    from judged
)

select * from decide order by domain <> '(all)', segment <> '(all)', domain, segment;
comment on macro table m6.decide is 'from the log to a decision: adopt, keep, wait or insufficient_support, per segment and for all';
