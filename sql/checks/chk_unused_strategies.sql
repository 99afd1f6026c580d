-- one row per enabled strategy without a weight in force, or behind none of 100 or more impressions shown under it
-- remedy (warn): look at m6.strategy_weights and at what the strategy proposes, or set is_enabled to false
with

strategies as (select strategy, bit from m6.strategies where is_enabled),

active as (select policy_version from m6.active where policy_version is not null),

weights as (
    select weights.strategy, max(weights.weight) as weight
    from m6.strategy_weights as weights
    inner join active on weights.policy_version = active.policy_version
    group by weights.strategy
),

shown as (
    select impressions.supporters
    from m6.impressions as impressions
    inner join active on impressions.policy_version = active.policy_version
    where impressions.supporters > 0
),

support as (
    select
        strategies.strategy,
        (select count(*) from shown) as impressions,
        count(shown.supporters) as supported
    from strategies
    left join shown on ((shown.supporters >> strategies.bit) & 1) = 1
    group by strategies.strategy
),

unused as (
    select
        support.strategy,
        case
            when coalesce(weights.weight, 0) = 0 then 'no weight in force' else 'supported no impression'
        end as reason
    from support
    cross join active
    left join weights on support.strategy = weights.strategy
    where
        coalesce(weights.weight, 0) = 0
        or (support.impressions >= 100 and support.supported = 0)
)

select * from unused
order by strategy
