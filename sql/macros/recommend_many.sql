-- one row per (user, item) of the best lists of the users of a table
create or replace macro m6.recommend_many(
    users_table,
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
from m6.slates(
    (select list(distinct cast(user_id as varchar)) from query_table(users_table)),
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
)
order by user_id, rank;
comment on macro table m6.recommend_many is 'Best lists for every user_id of a table or view, in one set-wise query';
