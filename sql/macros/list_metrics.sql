-- one row per (group, metric): lists beside what users liked after a moment, mean over users with a 95 % interval
--   groups and arguments: m6.user_metrics, m6.catalogue_metrics (whose figures have no interval)
create or replace macro m6.list_metrics(
    lists, after, until := timestamp 'infinity', k := 10, positive := 0.75, repeats := false, seed := 0
) as table
with

users as (
    from m6.user_metrics(lists, after, until := until, k := k, positive := positive, repeats := repeats)
),

long as (
    unpivot users on ndcg, recall, "precision", map, mrr, hit_rate, novelty, diversity into name metric value value
),

means as (
    select
        group_kind,
        group_name,
        metric,
        m6_resampled(list(cast(value as double) order by user_id), cast(seed as bigint)) as found,
        count(*) as n
    from long
    group by group_kind, group_name, metric
),

list_metrics as (
    select group_kind, group_name, metric, found.mean as value, found.low as low, found.high as high, n
    from means
    union all
    select group_kind, group_name, metric, value, null, null, n
    from m6.catalogue_metrics(lists, after, k := k)
)

select * from list_metrics order by group_kind, group_name, metric;
comment on macro table m6.list_metrics is 'Lists beside what users liked later: every ranking metric, per group, with intervals';
