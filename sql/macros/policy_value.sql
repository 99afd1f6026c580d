-- one row per estimator: what a policy would have earned on the log; refuses where support is too thin
-- errors are clustered by user; unit 'impression': mean reward of an impression; unit 'list': mean reward of a list
create or replace macro m6.policy_value(for_policy) as table
with

rounds as materialized (
    select * from m6.policy_rounds(for_policy)
),

ranked as (
    select
        user_id,
        request_id,
        rank,
        reward,
        ratio,
        product(ratio) over (partition by request_id order by rank rows unbounded preceding) as prefix_ratio,
        product(ratio) over (partition by request_id) as list_ratio
    from rounds
),

support as (
    select avg(ratio) as mean_ratio, avg(unsupported) as unsupported_share from rounds
),

settings as (
    select unnest([
        {'estimator': 'ips', 'tuning': null},
        {'estimator': 'snips', 'tuning': null},
        {'estimator': 'ips_clip', 'tuning': 10},
        {'estimator': 'sgips', 'tuning': 0.1},
        {'estimator': 'dm', 'tuning': null},
        {'estimator': 'dr', 'tuning': null},
        {'estimator': 'sndr', 'tuning': null},
        {'estimator': 'switch_dr', 'tuning': 10},
        {'estimator': 'dros', 'tuning': 10},
        {'estimator': 'sgdr', 'tuning': 0.1}
    ], recursive := true)
),

terms as (
    select
        s.estimator,
        'impression' as unit,
        r.user_id,
        m6.ope_term(s.estimator, s.tuning, r.ratio, r.reward, r.predicted, r.expected, u.mean_ratio) as term,
        case s.estimator
            when 'dm' then 1.0
            when 'ips_clip' then least(r.ratio, s.tuning)
            when 'switch_dr' then case when r.ratio <= s.tuning then r.ratio else 0.0 end
            when 'dros' then s.tuning * r.ratio / (r.ratio * r.ratio + s.tuning)
            when 'sgips' then r.ratio / (1 - s.tuning + s.tuning * r.ratio)
            when 'sgdr' then r.ratio / (1 - s.tuning + s.tuning * r.ratio)
            else r.ratio
        end as weight
    from rounds as r
    cross join settings as s
    cross join support as u
),

normalisers as (
    select rank, avg(ratio) as slot_mean, avg(prefix_ratio) as prefix_mean, avg(list_ratio) as list_mean
    from ranked
    group by rank
),

slots as (
    select
        r.user_id,
        r.request_id,
        r.rank,
        unnest([
            {'estimator': 'slot_ratio', 'term': r.ratio * r.reward, 'weight': r.ratio},
            {'estimator': 'rips', 'term': r.prefix_ratio * r.reward, 'weight': r.prefix_ratio},
            {'estimator': 'sips', 'term': r.list_ratio * r.reward, 'weight': r.list_ratio},
            {'estimator': 'sn_slot_ratio', 'term': r.ratio * r.reward / n.slot_mean, 'weight': r.ratio},
            {'estimator': 'sn_rips', 'term': r.prefix_ratio * r.reward / n.prefix_mean, 'weight': r.prefix_ratio},
            {'estimator': 'sn_sips', 'term': r.list_ratio * r.reward / n.list_mean, 'weight': r.list_ratio}
        ], recursive := true)
    from ranked as r
    inner join normalisers as n on r.rank = n.rank
),

lists as (
    select estimator, 'list' as unit, user_id, sum(term) as term, arg_max(weight, rank) as weight
    from slots
    group by estimator, user_id, request_id
),

-- what one user saw and did hangs together: the error is that of a mean of clusters (Cameron and Miller 2015)
users as (
    select
        estimator,
        unit,
        user_id,
        sum(term) as term,
        count(*) as n,
        sum(weight) as weight,
        sum(weight * weight) as weight_squared,
        max(weight) as largest_weight
    from (from terms union all by name from lists)
    group by estimator, unit, user_id
),

means as (
    select estimator, unit, sum(term) / sum(n) as value
    from users
    group by estimator, unit
),

sums as (
    select
        u.estimator,
        u.unit,
        any_value(m.value) as value,
        sqrt(
            count(*) / nullif(count(*) - 1, 0) * sum((u.term - u.n * m.value) ^ 2)
        ) / sum(u.n) as std_error,
        sum(u.weight) ^ 2 / nullif(sum(u.weight_squared), 0) as effective_sample_size,
        max(u.largest_weight) as largest_weight,
        sum(u.weight) / sum(u.n) as mean_weight
    from users as u
    inner join means as m on u.estimator = m.estimator and u.unit = m.unit
    group by u.estimator, u.unit
),

judged as (
    select
        s.*,
        u.unsupported_share,
        case
            when coalesce(effective_sample_size, 0) < 200
                then format('effective sample size {:.0f}, at least 200 needed', coalesce(effective_sample_size, 0))
            when largest_weight > 10.0000001 and estimator not in ('dros')
                then format('largest weight {:.1f}, at most 10 allowed', largest_weight)
            when estimator in ('ips_clip', 'sgips') and mean_weight < 0.9 * u.mean_ratio
                then format('{:.0f} % of the weight was cut off, at most 10 allowed', 100 - 100 * mean_weight / u.mean_ratio)
            when unsupported_share > 0.05
                then format('{:.1f} % of the policy was never possible in the log', 100 * unsupported_share)
        end as problem
    from sums as s
    cross join support as u
),

policy_value as (
    select
        estimator,
        case when problem is null then value end as value,
        case when problem is null then std_error end as std_error,
        case when problem is null then value - 1.959963984540054e0 * std_error end as low,
        case when problem is null then value + 1.959963984540054e0 * std_error end as high,
        effective_sample_size,
        unsupported_share,
        largest_weight,
        case when problem is null then 'ok' else 'insufficient_support' end as status,
        coalesce(problem, 'support is sufficient') as reason,
        unit
    from judged
)

select * from policy_value order by unit, estimator;
comment on macro table m6.policy_value is 'off-policy value of candidate, active, champion or a version number, from the log alone';
