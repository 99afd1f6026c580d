-- one row per group: expected calibration error, the mean gap between promised and seen satisfaction over the bins
create or replace macro m6.calibration_error(
    predictions := 'eval_predictions', bins := 10, least_rows := 1000
) as table
with

reliability as (select * from m6.calibration(predictions := predictions, bins := bins)),

errors as (
    select
        group_kind,
        group_name,
        cast(sum(n) as bigint) as n,
        round(sum(n * abs(gap)) / sum(n), 9) as ece,
        max(abs(gap)) as largest_gap,
        round(sum(n * predicted) / sum(n), 9) as predicted,
        round(sum(n * observed) / sum(n), 9) as observed
    from reliability
    group by group_kind, group_name
)

select * from errors
where group_kind = 'all' or n >= least_rows
order by group_kind, group_name;
comment on macro table m6.calibration_error is 'Expected calibration error of satisfaction, overall and per domain and segment of enough rows';
