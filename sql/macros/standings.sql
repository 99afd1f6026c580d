-- one row per (user, candidate): all that a list of k is chosen from, in the order in which the list would go on
--   the parts are those of m6.slates; what fills up a list where strategies run dry is not a candidate
create or replace macro m6.standings(
    user_list,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null,
    until := timestamp 'infinity',
    version := null
) as table
with

active as materialized (
    select
        coalesce(cast(version as bigint), model_version) as model_version,
        coalesce(policy_version, 0) as policy_version
    from m6.active_version
),

sets as (select allowed, blocked, boosted from m6.item_sets(among, boosts)),

people as (select user_id, segment, history from m6.user_history(user_list, until := until)),

extra as (select user_id, proposals from m6.proposals(user_list, (select model_version from active))),

weights as (
    select
        w.segment,
        coalesce(
            list(struct_pack(bit := s.bit, weight := w.weight) order by s.bit) filter (where w.domain <> '*'),
            list(struct_pack(bit := s.bit, weight := w.weight) order by s.bit) filter (where w.domain = '*')
        ) as weights
    from m6.strategy_weights as w
    inner join m6.strategies as s on w.strategy = s.strategy
    where
        s.is_enabled
        and w.policy_version = (select policy_version from active)
        and w.domain in (coalesce(cast(in_domain as varchar), '*'), '*')
    group by w.segment
),

lines as (
    select
        p.user_id,
        p.segment,
        a.model_version,
        unnest(
            m6_standings(
                a.model_version,
                p.user_id,
                p.segment,
                p.history,
                e.proposals,
                coalesce(own.weights, everybody.weights),
                cast(in_domain as varchar),
                n.allowed,
                n.blocked,
                n.boosted,
                cast(exclude_seen as boolean),
                cast(k as integer),
                cast(diversity as double),
                cast(calibrated as double),
                m6.asked_moment(until),
                cast(null as bigint),
                null
            )
        ) as slot
    from people as p
    cross join active as a
    cross join sets as n
    left join extra as e on p.user_id = e.user_id
    left join weights as own on p.segment = own.segment
    left join weights as everybody on everybody.segment = '*'
),

standings as (
    select
        l.user_id,
        l.slot.item_id as item_id,
        l.slot.rank as rank,
        l.slot.score as score,
        l.slot.satisfaction as satisfaction,
        case when l.slot.bit < 0 then 'seen' else s.strategy end as strategy,
        l.slot.supporters as supporters,
        l.slot.bit < 0 as is_seen,
        l.segment,
        l.model_version
    from lines as l
    left join m6.strategies as s on l.slot.bit = s.bit
)

select * from standings;
comment on macro table m6.standings is 'All candidates of a list of users, in the order in which their lists would go on';
