-- one row per estimator: value per list of a target policy on a log of lists of your own
-- for_log names a table or view with rank, reward, slot_ratio, prefix_ratio, list_ratio, list_id
create or replace macro m6.slate_value(for_log) as table
with

slots as (
    select
        list_id,
        rank,
        unnest([
            {'estimator': 'sips', 'ratio': list_ratio, 'reward': reward},
            {'estimator': 'iips', 'ratio': slot_ratio, 'reward': reward},
            {'estimator': 'rips', 'ratio': prefix_ratio, 'reward': reward}
        ], recursive := true)
    from query_table(for_log)
),

ranks as (
    select
        estimator,
        rank,
        sum(ratio * reward) as weighted,
        sum(ratio * reward) / sum(ratio) as normalised
    from slots
    group by estimator, rank
),

lists as (
    select count(distinct list_id) as n from query_table(for_log)
),

estimates as (
    select estimator, sum(weighted) / any_value(lists.n) as value
    from ranks
    cross join lists
    group by estimator
    union all
    select 'sn_' || estimator as estimator, sum(normalised) as value
    from ranks
    group by estimator
)

select * from estimates order by estimator;
comment on macro table m6.slate_value is 'off-policy value per list: sips, iips, rips and self-normalised';
