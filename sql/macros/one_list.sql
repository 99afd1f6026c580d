-- one row per item of one user's list: the single-user counterpart of m6.slates, with the same answers
--   what a list depends on is handed to m6_one_list as rows (kind, ..., packed) of one union: a join of them costs the
--   optimizer more than the list itself. What the function returns are the columns: naming each costs the binder a
--   millisecond. Titles and domains are those of the build: a join with all items costs as much
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
    policy := null,
    quotas := null
) as table
with

state as (
    select
        0 as kind,
        w.domain as a,
        w.segment as b,
        w.strategy as c,
        w.weight as x,
        a.model_version as n,
        coalesce(cast(policy as bigint), a.policy_version) as m,
        null as packed
    from m6.active as a
    left join m6.strategy_weights as w
        on
            w.policy_version = coalesce(cast(policy as bigint), a.policy_version)
            and (
                w.domain in (coalesce(cast(in_domain as varchar), '*'), '*')
                or list_contains(map_keys(cast(quotas as map(varchar, double))), w.domain)
            )
    union all
    select 1, strategy, null, null, cast(is_enabled as double), bit, null, null
    from m6.strategies
    union all
    select 2, segment, null, null, null, null, null, null
    from m6.users
    where user_id = cast(for_user as varchar)
    union all
    select 3, item_id, null, null, null, null, null, null
    from m6.items
    where not is_available
    union all
    select 4, item_id, null, null, cast(model_version as double), bit, null, null
    from m6.extra_candidates
    where user_id = cast(for_user as varchar)
    union all
    select 5, cast(item_id as varchar), null, null, null, null, null, null
    from query_table(among)
    where among <> 'm6.available_items'
    union all
    select 6, cast(item_id as varchar), null, null, cast(boost as double), null, null, null
    from query_table(boosts)
    where boosts <> 'm6.no_boosts'
    union all
    select 7, user_id, null, null, null, null, null, null
    from m6.history_edits
    where user_id = cast(for_user as varchar)
    union all
    select 8, cast(bit_xor(hash(t)) as varchar), null, null, null, null, null, null
    from m6.event_types as t
    union all
    select 9, cast(types_hash as varchar), null, null, null, model_version, null, null
    from m6.history_marks
    union all
    select 10, item_id, event_type, null, value, epoch_us(happened_at), null, null
    from m6.unread_events
    where user_id = cast(for_user as varchar) and happened_at <= until
    union all
    (
        select 12, null, null, null, null, null, null, null
        from m6.unread_feedback
        where user_id is null or user_id = cast(for_user as varchar)
        limit 1
    )
    union all
    select 11, null, null, null, null, null, null, history
    from m6.stored_histories
    where user_id = cast(for_user as varchar)
),

listed as (
    select
        unnest(
            m6_one_list(
                struct_pack(
                    "user" := cast(for_user as varchar),
                    domain := cast(in_domain as varchar),
                    has_among := among <> 'm6.available_items',
                    exclude_seen := cast(exclude_seen as boolean),
                    k := cast(k as integer),
                    diversity := cast(diversity as double),
                    calibrated := cast(calibrated as double),
                    until := m6.asked_moment(until),
                    version := cast(version as bigint),
                    policy := cast(policy as bigint),
                    seed := cast(draw_seed as bigint),
                    quotas := cast(quotas as map(varchar, double))
                ),
                list(state)
            ),
            recursive := true
        )
    from state
)

select *, m6.reason(strategy, because_item_id, because_title) as reason
from listed;
comment on macro table m6.one_list is 'The body of recommend and serve: one user''s list, with the same answers as m6.slates';
