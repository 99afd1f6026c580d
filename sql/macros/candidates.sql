-- one row per (user, item) that a build would propose to a list of users, with its satisfaction: all of them, not only
-- the k best that recommend shows
create or replace macro m6.candidates(
    user_list, k := 10, exclude_seen := null, until := timestamp 'infinity', version := null
) as table
with

active as (
    select coalesce(cast(version as bigint), model_version) as model_version
    from m6.active_version
),

blocked as (
    select m6_item_set(coalesce(list(item_id order by item_id), []), null) as handle
    from m6.items
    where not is_available
),

people as (select user_id, segment, history from m6.user_history(user_list, until := until)),

extra as (select user_id, proposals from m6.proposals(user_list, (select model_version from active))),

scored as (
    select
        p.user_id,
        p.segment,
        a.model_version,
        unnest(
            m6_scored(
                a.model_version,
                p.segment,
                p.history,
                e.proposals,
                null,
                null,
                b.handle,
                cast(exclude_seen as boolean),
                cast(k as integer),
                m6.asked_moment(until)
            )
        ) as found
    from people as p
    cross join active as a
    cross join blocked as b
    left join extra as e on p.user_id = e.user_id
),

candidates as (
    select
        s.user_id,
        s.found.item_id as item_id,
        s.found.satisfaction as satisfaction,
        s.found.supporters as supporters,
        s.found.is_seen as is_seen,
        i.domain,
        s.segment,
        s.model_version
    from scored as s
    left join m6.items as i on s.found.item_id = i.item_id
)

select * from candidates;
comment on macro table m6.candidates is 'Everything a build proposes to a list of users, with its satisfaction';
