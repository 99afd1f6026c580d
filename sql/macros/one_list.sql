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
        name as a,
        content as b,
        cast(null as double) as x,
        cast(null as bigint) as n,
        cast(null as blob) as packed
    from m6.list_state
    union all
    select 1, segment, null, null, null, null
    from m6.users
    where user_id = cast(for_user as varchar)
    union all
    select 2, item_id, null, null, null, null
    from m6.items
    where not is_available
    union all
    select 3, cast(item_id as varchar), null, null, null, null
    from query_table(among)
    where among <> 'm6.available_items'
    union all
    select 4, cast(item_id as varchar), null, cast(boost as double), null, null
    from query_table(boosts)
    where boosts <> 'm6.no_boosts'
    union all
    select 5, user_id, null, null, null, null
    from m6.history_edits
    where user_id = cast(for_user as varchar)
    union all
    select 6, item_id, event_type, value, epoch_us(happened_at), null
    from m6.unread_events
    where user_id = cast(for_user as varchar) and happened_at <= until
    union all
    select 7, null, null, null, null, history
    from m6.stored_histories
    where user_id = cast(for_user as varchar)
    union all
    (
        select 8, null, null, null, null, null
        from m6.unread_feedback
        where user_id is null or user_id = cast(for_user as varchar)
        limit 1
    )
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

from listed;
comment on macro table m6.one_list is 'The body of recommend and serve: one user''s list, with the same answers as m6.slates';
