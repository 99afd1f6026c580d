-- one row per arm, then one for b - a: reward per request of everybody the hash put there, whatever they were shown
-- standard error of the ratio of sums, clustered by user (linearised); the interval holds for one look at the end
create or replace macro m6.ab_report(
    experiment,
    share := 0.5,
    since := timestamp '-infinity',
    until := timestamp 'infinity'
) as table
with

people as (
    select
        user_id,
        m6.assign(user_id, experiment, share := share) as arm,
        count(distinct request_id) as requests,
        sum(reward) as reward
    from m6.shown_rewards
    where shown_at >= since and shown_at < until
    group by user_id
),

arms as (
    select
        n.arm,
        count(p.user_id) as users,
        coalesce(sum(p.requests), 0) as requests,
        coalesce(sum(p.reward), 0.0) as reward,
        sum(p.reward) / nullif(sum(p.requests), 0) as reward_per_request
    from (select unnest(['a', 'b']) as arm) as n
    left join people as p on n.arm = p.arm
    group by n.arm
),

spread as (
    select
        m.arm,
        sqrt(
            sum(pow(p.reward - m.reward_per_request * p.requests, 2)) * m.users / nullif(m.users - 1, 0)
        ) / nullif(m.requests, 0) as std_error
    from people as p
    inner join arms as m on p.arm = m.arm
    group by m.arm, m.users, m.requests
),

measured as (
    select m.*, s.std_error
    from arms as m
    left join spread as s on m.arm = s.arm
),

differences as (
    select
        'b - a' as arm,
        cast(null as bigint) as users,
        cast(null as bigint) as requests,
        cast(null as double) as reward,
        max(reward_per_request) filter (where arm = 'b') - max(reward_per_request) filter (where arm = 'a')
            as reward_per_request,
        sqrt(sum(pow(std_error, 2))) as std_error
    from measured
),

split as (
    select
        case when sum(users) > 0 and share > 0 and share < 1
            then m6.normal_test(
                (max(users) filter (where arm = 'b') - share * sum(users)) / sqrt(sum(users) * share * (1.0 - share))
            )
        end as mismatch_p_value,
        min(users) as fewest_users
    from arms
),

rows_of as (
    select *, cast(null as double) as p_value from measured
    union all by name
    select *, m6.normal_test(reward_per_request / nullif(std_error, 0)) as p_value from differences
),

ab_report as (
    select
        r.arm,
        cast(r.users as bigint) as users,
        cast(r.requests as bigint) as requests,
        r.reward,
        r.reward_per_request,
        r.std_error,
        r.reward_per_request - 1.959963984540054e0 * r.std_error as low,
        r.reward_per_request + 1.959963984540054e0 * r.std_error as high,
        r.p_value,
        s.mismatch_p_value,
        case
            when s.mismatch_p_value < 0.001 then 'sample_ratio_mismatch'
            when s.fewest_users < 50 then 'too_few_users'
            when r.arm <> 'b - a' then 'ok'
            when r.p_value < 0.05 and r.reward_per_request > 0 then 'b_is_better'
            when r.p_value < 0.05 and r.reward_per_request < 0 then 'a_is_better'
            else 'no_difference_shown'
        end as status
    from rows_of as r
    cross join split as s
)

select * from ab_report order by len(arm), arm;
comment on macro table m6.ab_report is 'per arm and for their difference: users, requests, reward per request with interval, sample ratio check';
