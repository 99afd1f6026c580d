-- one row per (group, metric): satisfaction promised beside what came: log loss, Brier score, AUC, calibration error
--   predictions names a table as m6rec_udf.calibration leaves it (user_id, item_id, domain, segment, satisfaction,
--   outcome); groups: everything, domains, segments; AUC counts outcomes from `positive` on, ties by half
create or replace macro m6.prediction_metrics(
    predictions := 'eval_predictions', positive := 0.75, bins := 10
) as table
with

given as (
    select domain, segment, least(greatest(satisfaction, 1e-12), 1 - 1e-12) as z, outcome as y
    from query_table(predictions)
),

grouped as (
    select 'all' as group_kind, '*' as group_name, z, y from given
    union all
    select 'domain', domain, z, y from given where domain is not null
    union all
    select 'segment', segment, z, y from given where segment is not null and segment <> '*'
),

placed as (
    select
        *,
        rank() over (partition by group_kind, group_name order by z)
        + (count(*) over (partition by group_kind, group_name, z) - 1) / 2 as place
    from grouped
),

wide as (
    select
        group_kind,
        group_name,
        count(*) as n,
        avg(-(y * ln(z) + (1 - y) * ln(1 - z))) as log_loss,
        avg((y - z) * (y - z)) as brier,
        (
            sum(place) filter (where y >= positive)
            - count(*) filter (where y >= positive) * (count(*) filter (where y >= positive) + 1) / 2
        ) / nullif(
            count(*) filter (where y >= positive) * count(*) filter (where not y >= positive), 0
        ) as auc
    from placed
    group by group_kind, group_name
),

long as (
    unpivot wide on log_loss, brier, auc into name metric value value
),

prediction_metrics as (
    select group_kind, group_name, metric, value, n from long
    union all
    select group_kind, group_name, 'calibration_error', ece, n
    from m6.calibration_error(predictions := predictions, bins := bins, least_rows := 1)
)

select group_kind, group_name, metric, round(value, 9) as value, n
from prediction_metrics
order by group_kind, group_name, metric;
comment on macro table m6.prediction_metrics is 'Log loss, Brier score, AUC and calibration error of satisfaction, per domain and segment';
