-- one row per item of the best list of one user, best first (m6.one_list gives them in this order)
create or replace macro m6.recommend(
    for_user,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    quotas := null,
    exclude_seen := null,
    until := timestamp 'infinity',
    version := null
) as table
select user_id, item_id, rank, score, satisfaction, strategy, reason, domain, policy_version, model_version
from m6.one_list(
    for_user,
    k := k,
    in_domain := in_domain,
    among := among,
    boosts := boosts,
    diversity := diversity,
    calibrated := calibrated,
    quotas := quotas,
    exclude_seen := exclude_seen,
    until := until,
    version := version
);
comment on macro table m6.recommend is 'Best list for one user, deterministic: from m6.recommend(''u42'', k := 10)';
