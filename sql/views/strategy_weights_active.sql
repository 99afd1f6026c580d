-- one row per (domain, segment, strategy): the weights in force
select
    w.policy_version,
    w.domain,
    w.segment,
    w.strategy,
    s.bit,
    w.weight,
    w.floor
from m6.strategy_weights as w
inner join m6.active as a on w.policy_version = a.policy_version
inner join m6.strategies as s on w.strategy = s.strategy
