-- one row per pair of rankers that were interleaved: whose items people liked more
-- a list is won by the team with more reward, and counts once somebody reacted
-- delta = (wins of a + ties / 2) / lists answered - 1 / 2
-- interval clustered by user; sign test over users, who vote once each: for the team that won more of their lists
create or replace macro m6.interleave_report(
    since := timestamp '-infinity',
    until := timestamp 'infinity'
) as table
with

shown as (
    select
        request_id,
        user_id,
        split_part(strategy, ':', 2) as name_a,
        split_part(strategy, ':', 3) as name_b,
        starts_with(strategy, 'team_a:') as is_a,
        is_answered,
        reward
    from m6.shown_rewards
    where starts_with(strategy, 'team_') and shown_at >= since and shown_at < until
),

sorted as (
    select
        * exclude (name_a, name_b, is_a),
        (len(name_a), name_a) > (len(name_b), name_b) as is_turned,
        case when is_turned then name_b else name_a end as name_a,
        case when is_turned then name_a else name_b end as name_b,
        is_a <> is_turned as is_a
    from shown
),

lists as (
    select
        name_a,
        name_b,
        user_id,
        request_id,
        bool_or(is_answered) as is_answered,
        coalesce(sum(reward) filter (where is_a), 0.0) as credit_a,
        coalesce(sum(reward) filter (where not is_a), 0.0) as credit_b,
        sign(round(credit_a - credit_b, 9)) as outcome
    from sorted
    group by name_a, name_b, user_id, request_id
),

people as (
    select
        name_a,
        name_b,
        user_id,
        count(*) as lists,
        count(*) filter (where is_answered) as answered,
        count(*) filter (where is_answered and outcome > 0) as wins_a,
        count(*) filter (where is_answered and outcome < 0) as wins_b,
        sum(credit_a) as credit_a,
        sum(credit_b) as credit_b
    from lists
    group by name_a, name_b, user_id
),

pairs as (
    select
        name_a,
        name_b,
        sum(lists) as lists,
        sum(answered) as answered,
        sum(wins_a) as wins_a,
        sum(wins_b) as wins_b,
        sum(credit_a) as credit_a,
        sum(credit_b) as credit_b,
        count(*) filter (where answered > 0) as users,
        count(*) filter (where wins_a > wins_b) as users_a,
        count(*) filter (where wins_b > wins_a) as users_b,
        sum(wins_a - wins_b) / nullif(2.0 * sum(answered), 0) as delta
    from people
    group by name_a, name_b
),

spread as (
    select
        p.name_a,
        p.name_b,
        sqrt(
            sum(pow((u.wins_a - u.wins_b) / 2.0 - p.delta * u.answered, 2)) * p.users / nullif(p.users - 1, 0)
        ) / nullif(p.answered, 0) as std_error
    from people as u
    inner join pairs as p on u.name_a = p.name_a and u.name_b = p.name_b
    where u.answered > 0
    group by p.name_a, p.name_b, p.users, p.answered
),

tested as (
    select
        p.*,
        s.std_error,
        p.delta - 1.959963984540054e0 * s.std_error as low,
        p.delta + 1.959963984540054e0 * s.std_error as high,
        m6.sign_test(p.users_a, p.users_b) as p_value
    from pairs as p
    left join spread as s on p.name_a = s.name_a and p.name_b = s.name_b
),

interleave_report as (
    select
        name_a as a,
        name_b as b,
        cast(lists as bigint) as lists,
        cast(answered as bigint) as answered,
        cast(wins_a as bigint) as wins_a,
        cast(wins_b as bigint) as wins_b,
        cast(answered - wins_a - wins_b as bigint) as ties,
        credit_a,
        credit_b,
        delta,
        std_error,
        low,
        high,
        users_a,
        users_b,
        p_value,
        case
            when users_a + users_b < 20 then 'too_few_users'
            when p_value < 0.05 and users_a > users_b and low > 0 then 'a_is_better'
            when p_value < 0.05 and users_b > users_a and high < 0 then 'b_is_better'
            else 'no_difference_shown'
        end as status
    from tested
)

select * from interleave_report order by a, b;
comment on macro table m6.interleave_report is 'per pair of interleaved rankers: wins, ties, credit, delta with interval, sign test';
