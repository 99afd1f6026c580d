-- one row per item shown to one user, drawn by the strategy weights: insert it into m6.impressions by name
create or replace macro m6.serve(
    for_user,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    exclude_seen := null,
    seed := null,
    request := null,
    moment := null
) as table
with

request as (
    select
        coalesce(cast(request as varchar), cast(uuid() as varchar)) as new_request_id,
        coalesce(cast(seed as bigint), cast(floor(random() * 9007199254740992) as bigint)) as new_seed,
        coalesce(cast(moment as timestamp), cast(now() at time zone 'UTC' as timestamp)) as new_shown_at
),

slots as (
    select s.*, r.new_request_id, r.new_seed, r.new_shown_at
    from request as r,
        lateral (
            select *
            from m6.slates(
                [cast(for_user as varchar)],
                k := k,
                in_domain := in_domain,
                among := among,
                boosts := boosts,
                diversity := diversity,
                exclude_seen := exclude_seen,
                draw_seed := r.new_seed
            )
        ) as s
)

select
    new_request_id || '-' || rank as impression_id,
    new_request_id as request_id,
    user_id,
    item_id,
    rank,
    strategy,
    supporters,
    eligible,
    propensity,
    new_seed as seed,
    score,
    satisfaction,
    policy_version,
    model_version,
    weights_domain as domain,
    segment,
    new_shown_at as shown_at
from slots
order by rank;
comment on macro table m6.serve is 'A list to show and log, drawn by the strategy weights: insert into m6.impressions by name from m6.serve(...)';
