-- one row per item shown to each user of a table, drawn by the strategy weights
create or replace macro m6.serve_many(
    users_table,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    quotas := null,
    exclude_seen := null,
    version := null,
    policy := null,
    seed := null,
    request := null,
    moment := null
) as table
select *
from m6.serve_lists(
    (select list(distinct cast(user_id as varchar)) from query_table(users_table)),
    k := k,
    in_domain := in_domain,
    among := among,
    boosts := boosts,
    diversity := diversity,
    calibrated := calibrated,
    quotas := quotas,
    exclude_seen := exclude_seen,
    version := version,
    policy := policy,
    seed := seed,
    request := request,
    moment := moment
)
order by user_id, rank;
comment on macro table m6.serve_many is 'Lists to show and log for every user_id of a table or view';
