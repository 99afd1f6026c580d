-- one row per item of one user's list: the single-user counterpart of m6.slates, with the same answers
--   what a list depends on is handed to m6_one_list as rows (kind, a, b, c, x, n) of one union: a join of them costs the
--   optimizer more than the list itself
create or replace macro m6.one_list(
    for_user,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null,
    until := timestamp 'infinity',
    version := null,
    draw_seed := null,
    policy := null
) as table
with

state as (
    select
        null as history,
        0 as kind,
        null as a,
        null as b,
        null as c,
        cast(policy_version as double) as x,
        model_version as n
    from m6.active
    union all
    select null, 1, strategy, null, null, cast(is_enabled as double), bit
    from m6.strategies
    union all
    select null, 2, domain, segment, strategy, weight, policy_version
    from m6.strategy_weights
    where
        policy_version = coalesce(cast(policy as bigint), (select policy_version from m6.active))
        and domain in (coalesce(cast(in_domain as varchar), '*'), '*')
    union all
    select null, 3, segment, null, null, null, null
    from m6.users
    where user_id = cast(for_user as varchar)
    union all
    select null, 4, item_id, null, null, null, null
    from m6.items
    where not is_available
    union all
    select null, 5, item_id, null, null, cast(model_version as double), bit
    from m6.extra_candidates
    where user_id = cast(for_user as varchar)
    union all
    select null, 6, cast(item_id as varchar), null, null, null, null
    from query_table(among)
    where among <> 'm6.available_items'
    union all
    select null, 7, cast(item_id as varchar), null, null, cast(boost as double), null
    from query_table(boosts)
    where boosts <> 'm6.no_boosts'
    union all
    select null, 8, user_id, null, null, null, null
    from m6.edited_users
    where coalesce(user_id, cast(for_user as varchar)) = cast(for_user as varchar)
    union all
    select history, null, null, null, null, null, null
    from m6.stored_histories
    where user_id = cast(for_user as varchar)
    union all
    select
        [
            struct_pack(
                item_id := item_id,
                interest := cast(interest as float),
                satisfaction := cast(satisfaction as float),
                happened_at := epoch(happened_at)
            )
        ],
        null,
        null,
        null,
        null,
        null,
        null
    from m6.recent_behaviour
    where user_id = cast(for_user as varchar) and happened_at <= until
),

listed as (
    select
        unnest(
            m6_one_list(
                cast(for_user as varchar),
                flatten(list(history) filter (where history is not null)),
                list(struct_pack(kind := kind, a := a, b := b, c := c, x := x, n := n)) filter (where kind is not null),
                cast(in_domain as varchar),
                among <> 'm6.available_items',
                cast(exclude_seen as boolean),
                cast(k as integer),
                cast(diversity as double),
                cast(calibrated as double),
                m6.asked_moment(until),
                cast(version as bigint),
                cast(policy as bigint),
                cast(draw_seed as bigint)
            )
        ) as line
    from state
)

select
    cast(for_user as varchar) as user_id,
    x.line.item_id as item_id,
    x.line.rank as rank,
    x.line.score as score,
    x.line.satisfaction as satisfaction,
    x.line.strategy as strategy,
    case
        when x.line.strategy = 'seen' then 'you know this one; nothing new is left'
        when x.line.because_item_id is not null
            then 'because of "' || coalesce(because.title, x.line.because_item_id) || '" in your history'
        when x.line.strategy in ('fresh', 'new') then 'new in the catalogue'
        when x.line.strategy = 'popular' then 'liked by many'
        else 'popular lately'
    end as reason,
    i.domain,
    x.line.policy_version as policy_version,
    x.line.model_version as model_version,
    x.line.supporters as supporters,
    x.line.eligible as eligible,
    x.line.propensity as propensity,
    x.line.segment as segment,
    coalesce(cast(in_domain as varchar), '*') as weights_domain,
    x.line.because_item_id as because_item_id,
    x.line.drawn_seed as drawn_seed,
    x.line.token as token
from listed as x
left join m6.items as i on x.line.item_id = i.item_id
left join m6.items as because on x.line.because_item_id = because.item_id;
comment on macro table m6.one_list is 'The body of recommend and serve: one user''s list, with the same answers as m6.slates';
