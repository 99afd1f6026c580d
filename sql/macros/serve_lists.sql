-- one row per item shown to the users of a list, drawn by the strategy weights, each user a request of its own
create or replace macro m6.serve_lists(
    user_list,
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
with

requests as materialized (
    select
        user_id as for_user_id,
        coalesce(cast(request as varchar) || '-' || user_id, cast(uuid() as varchar)) as new_request_id
    from (select distinct unnest(user_list) as user_id)
),

clock as (select coalesce(cast(moment as timestamp), cast(now() at time zone 'UTC' as timestamp)) as new_shown_at),

slots as (
    select *
    from m6.slates(
        user_list,
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
    )
)

select
    r.new_request_id || '-' || s.rank as impression_id,
    r.new_request_id as request_id,
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
    c.new_shown_at as shown_at
from slots as s
inner join requests as r on s.user_id = r.for_user_id
cross join clock as c;
comment on macro table m6.serve_lists is 'The body of serve_many: drawn lists with their propensities';
