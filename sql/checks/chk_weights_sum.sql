-- one row per (domain, segment) of the policy in force whose weights do not sum to 1 or fall below their floor
-- remedy (fail): run `m6rec rollback`, then look at m6.policy_versions
with

active as (select policy_version from m6.active),

weights as (
    select weights.domain, weights.segment, weights.weight, weights.floor
    from m6.strategy_weights as weights
    inner join active on weights.policy_version = active.policy_version
),

summed as (
    select
        domain,
        segment,
        sum(weight) as weight,
        count(*) filter (where weight < floor - 1e-9) as below_floor
    from weights
    group by domain, segment
),

wrong as (select * from summed where abs(weight - 1) > 1e-6 or below_floor > 0)

select * from wrong
order by domain, segment
