-- one row per segment: the strategy weights in force for a domain, as a list the Python core reads
create or replace macro m6.policy_weights(policy, of_domain) as table
with

weights as (
    select w.domain, w.segment, s.bit, w.weight
    from m6.strategy_weights as w
    inner join m6.strategies as s on w.strategy = s.strategy
    where w.policy_version = policy and s.is_enabled and w.domain in (coalesce(of_domain, '*'), '*')
),

lists as (
    select
        domain,
        segment,
        list(struct_pack(bit := bit, weight := weight) order by bit) as weights
    from weights
    group by domain, segment
),

best as (
    select
        segment,
        domain,
        weights
    from lists
    qualify row_number() over (partition by segment order by domain = '*', domain) = 1
)

select * from best;
comment on macro table m6.policy_weights is 'Strategy weights by segment for a policy version and domain, most specific first';
