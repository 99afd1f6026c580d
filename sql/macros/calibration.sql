-- one row per (group, bin): satisfaction promised and satisfaction seen, in bins of equal count
--   predictions names a table of (user_id, item_id, domain, segment, satisfaction, outcome), such as
--   m6rec_udf.calibration leaves behind; the groups are everything, each domain and each segment
create or replace macro m6.calibration(predictions := 'eval_predictions', bins := 10) as table
with

predictions as (
    select user_id, item_id, domain, segment, satisfaction, outcome
    from query_table(predictions)
),

grouped as (
    select 'all' as group_kind, '*' as group_name, user_id, item_id, satisfaction, outcome
    from predictions
    union all
    select 'domain' as group_kind, domain as group_name, user_id, item_id, satisfaction, outcome
    from predictions
    where domain is not null
    union all
    select 'segment' as group_kind, segment as group_name, user_id, item_id, satisfaction, outcome
    from predictions
    where segment is not null and segment <> '*'
),

-- ntile over whole groups; equal predictions fall into a bin by user and item, never by luck
binned as (
    select
        group_kind,
        group_name,
        satisfaction,
        outcome,
        1 + (
            (
                row_number() over (
                    partition by group_kind, group_name
                    order by satisfaction, user_id, item_id
                ) - 1
            ) * cast(bins as bigint)
        ) // count(*) over (partition by group_kind, group_name) as bin
    from grouped
),

calibration as (
    select
        group_kind,
        group_name,
        cast(bin as integer) as bin,
        count(*) as n,
        round(avg(satisfaction), 9) as predicted,
        round(avg(outcome), 9) as observed,
        round(avg(satisfaction) - avg(outcome), 9) as gap,
        min(satisfaction) as lowest,
        max(satisfaction) as highest
    from binned
    group by group_kind, group_name, bin
)

select * from calibration order by group_kind, group_name, bin;
comment on macro table m6.calibration is 'Reliability table: satisfaction promised and seen, in bins of equal count, per domain and segment';
