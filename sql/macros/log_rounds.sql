-- one row per logged round: its ratio under a target policy, with a cross-fitted reward model
-- for_log names a table or view with context, action, reward, propensity (NULL: estimated as n(context, action) /
-- n(context)); for_target one with context, action, probability (it sums to 1 in every context)
create or replace macro m6.log_rounds(for_log, for_target) as table
with

numbered as (
    select
        cast(context as varchar) as context,
        cast(action as varchar) as action,
        cast(reward as double) as reward,
        cast(propensity as double) as propensity,
        row_number() over (order by context, action, reward, propensity) as round_id
    from query_table(for_log)
),

log as (select *, round_id % 2 as fold from numbered),

target as (
    select cast(context as varchar) as context, cast(action as varchar) as action, sum(probability) as probability
    from query_table(for_target)
    group by all
),

cells as (select context, action, fold, sum(reward) as reward, count(*) as n from log group by all),

seen as (
    select
        context,
        action,
        sum(n) as n,
        sum(n) / sum(sum(n)) over (partition by context) as share
    from cells
    group by context, action
),

levels as (select fold, sum(reward) / sum(n) as reward from cells group by fold),

actions as (
    select context, action from target
    union
    select context, action from seen
),

models as (
    select
        a.context,
        a.action,
        l.fold,
        (coalesce(c.reward, 0) + 10 * o.reward) / (coalesce(c.n, 0) + 10) as predicted,
        coalesce(t.probability, 0.0) as probability,
        s.n is null as is_unseen
    from actions as a
    cross join (select unnest([0, 1]) as fold) as l
    inner join levels as o on o.fold = 1 - l.fold
    left join cells as c on a.context = c.context and a.action = c.action and c.fold = 1 - l.fold
    left join target as t on a.context = t.context and a.action = t.action
    left join seen as s on a.context = s.context and a.action = s.action
),

expectations as (
    select
        context,
        fold,
        sum(probability * predicted) as expected,
        coalesce(sum(probability) filter (where is_unseen), 0.0) as unsupported
    from models
    group by context, fold
)

select
    l.context,
    l.action,
    l.reward,
    m.probability / coalesce(l.propensity, s.share) as ratio,
    m.predicted,
    e.expected,
    e.unsupported,
    l.propensity is null as is_estimated
from log as l
inner join seen as s on l.context = s.context and l.action = s.action
inner join models as m on l.context = m.context and l.action = m.action and l.fold = m.fold
inner join expectations as e on l.context = e.context and l.fold = e.fold;
comment on macro table m6.log_rounds is 'Rounds of a log of your own under a target policy: ratio, reward, reward model; NULL propensities estimated';
