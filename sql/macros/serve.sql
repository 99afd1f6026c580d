-- one row per item shown to one user, drawn by the strategy weights: insert it into m6.impressions by name
create or replace macro m6.serve(
    for_user,
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
select
    coalesce(cast(request as varchar) || '-' || s.user_id, s.token) || '-' || s.rank as impression_id,
    coalesce(cast(request as varchar) || '-' || s.user_id, s.token) as request_id,
    s.user_id,
    s.item_id,
    s.rank,
    s.strategy,
    s.supporters,
    s.eligible,
    s.propensity,
    s.drawn_seed as seed,
    s.score,
    s.satisfaction,
    s.policy_version,
    s.model_version,
    s.weights_domain as domain,
    s.segment,
    coalesce(cast(moment as timestamp), cast(now() at time zone 'UTC' as timestamp)) as shown_at
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
    version := version,
    policy := policy,
    draw_seed := coalesce(cast(seed as bigint), cast(floor(random() * 9007199254740992) as bigint))
) as s
order by s.rank;
comment on macro table m6.serve is 'A list to show and log: insert into m6.impressions by name from m6.serve(...)';
