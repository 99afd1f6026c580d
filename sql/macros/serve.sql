-- one row per item shown to one user, drawn by the strategy weights: insert it into m6.impressions by name
create or replace macro m6.serve(
    for_user,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null,
    version := null,
    policy := null,
    seed := null,
    request := null,
    moment := null
) as table
select *
from m6.serve_lists(
    [cast(for_user as varchar)],
    k := k,
    in_domain := in_domain,
    among := among,
    boosts := boosts,
    diversity := diversity,
    calibrated := calibrated,
    exclude_seen := exclude_seen,
    version := version,
    policy := policy,
    seed := seed,
    request := request,
    moment := moment
)
order by rank;
comment on macro table m6.serve is 'A list to show and log: insert into m6.impressions by name from m6.serve(...)';
