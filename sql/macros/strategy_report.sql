-- one row per (domain, segment, strategy): weight in force, what it showed and earned
create or replace macro m6.strategy_report() as table
with

shown as (
    select
        domain,
        segment,
        strategy,
        count(*) as impressions,
        avg(reward) as mean_reward,
        coalesce(stddev_samp(reward), 0) / sqrt(count(*)) as std_error
    from m6.impression_rewards
    group by domain, segment, strategy
),

groups as (
    select distinct domain, segment from shown
    union
    select distinct domain, segment from m6.strategy_weights_active
),

weights as (
    select g.domain, g.segment, w.strategy, w.weight, w.policy_version
    from groups as g
    inner join m6.strategy_weights_active as w on w.domain in (g.domain, '*') and w.segment in (g.segment, '*')
    qualify rank() over (
        partition by g.domain, g.segment
        order by (w.segment = g.segment) desc, (w.domain = g.domain) desc
    ) = 1
),

strategy_report as (
    select
        domain,
        segment,
        strategy,
        coalesce(w.weight, 0.0) as weight,
        coalesce(s.impressions, 0) as impressions,
        s.mean_reward,
        s.mean_reward - 1.959963984540054e0 * s.std_error as low,
        s.mean_reward + 1.959963984540054e0 * s.std_error as high,
        coalesce(s.impressions / sum(s.impressions) over (partition by domain, segment), 0.0) as share_shown,
        w.policy_version
    from weights as w
    full join shown as s using (domain, segment, strategy)
)

select * from strategy_report order by domain, segment, weight desc, strategy;
comment on macro table m6.strategy_report is 'weight in force, impressions, mean reward with 95 % interval and share shown of every strategy';
