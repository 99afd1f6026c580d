-- one row per (estimator, parameter): value of a target policy on a log of your own
-- for_log names a table or view with ratio (target / logged probability), reward, predicted, expected
create or replace macro m6.log_value(for_log) as table
with

rounds as (
    select ratio, reward, predicted, expected, avg(ratio) over () as mean_ratio
    from query_table(for_log)
),

grid as (
    select unnest([
        {'estimator': 'ips', 'parameters': [null]},
        {'estimator': 'snips', 'parameters': [null]},
        {'estimator': 'ips_clip', 'parameters': [1, 5, 10, 100]},
        {'estimator': 'sgips', 'parameters': [0.01, 0.1]},
        {'estimator': 'dm', 'parameters': [null]},
        {'estimator': 'dr', 'parameters': [null]},
        {'estimator': 'sndr', 'parameters': [null]},
        {'estimator': 'dr_clip', 'parameters': [1, 5, 10, 100]},
        {'estimator': 'switch_dr', 'parameters': [1, 2, 5, 10, 50, 100]},
        {'estimator': 'dros', 'parameters': [1, 10, 100, 1000]},
        {'estimator': 'sgdr', 'parameters': [0.01, 0.1]}
    ], recursive := true)
),

settings as (
    select estimator, cast(unnest(parameters) as double) as parameter from grid
),

terms as (
    select
        s.estimator,
        s.parameter,
        m6.ope_term(s.estimator, s.parameter, r.ratio, r.reward, r.predicted, r.expected, r.mean_ratio) as term
    from rounds as r
    cross join settings as s
),

sums as (
    select
        estimator,
        parameter,
        avg(term) as value,
        stddev_samp(term) as round_sd,
        count(*) as n,
        stddev_samp(term) / sqrt(count(*)) as std_error
    from terms
    group by estimator, parameter
),

estimates as (
    select
        estimator,
        parameter,
        value,
        round_sd,
        n,
        std_error,
        value - 1.959963984540054e0 * std_error as low,
        value + 1.959963984540054e0 * std_error as high,
        value - 1.6448536269514722e0 * std_error as lower_95,
        value - m6.ope_student(n - 1) * std_error as lower_95_t
    from sums
)

select * from estimates order by estimator, parameter nulls first;
comment on macro table m6.log_value is 'off-policy value of a target policy on a log of your own: ratio, reward, predicted, expected';
