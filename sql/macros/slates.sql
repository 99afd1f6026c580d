-- one row per (user, item) of a list: the body behind recommend_many and serve_many; m6.one_list is that of one user
--   filters, people and their histories -> m6_lists (candidates, satisfaction, mixing, evidence) -> filled with new items
create or replace macro m6.slates(
    user_list,
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

active as materialized (
    select
        coalesce(cast(version as bigint), model_version) as model_version,
        coalesce(cast(policy as bigint), policy_version, 0) as policy_version,
        cast(draw_seed as bigint) as drawn_seed
    from m6.active_version
),

sets as (select allowed, blocked, boosted from m6.item_sets(among, boosts)),

people as (select user_id, segment, history from m6.user_history(user_list, until := until)),

extra as (select user_id, proposals from m6.proposals(user_list, (select model_version from active))),

-- the domains that make lists of their own: one, or those of the quotas (an argument may be a subquery of the caller: no name of a caller here)
quota_domains as (
    select cast(in_domain as varchar) as domain, cast(null as double) as share
    where quotas is null or cardinality(cast(quotas as map(varchar, double))) = 0
    union all
    select
        unnest(map_keys(cast(quotas as map(varchar, double)))) as domain,
        unnest(map_values(cast(quotas as map(varchar, double)))) as share
),

weights as (
    select
        a.domain,
        w.segment,
        coalesce(
            list(struct_pack(bit := s.bit, weight := w.weight) order by s.bit) filter (where w.domain <> '*'),
            list(struct_pack(bit := s.bit, weight := w.weight) order by s.bit) filter (where w.domain = '*')
        ) as weights
    from m6.strategy_weights as w
    inner join m6.strategies as s on w.strategy = s.strategy
    inner join quota_domains as a on w.domain in (coalesce(a.domain, '*'), '*')
    where s.is_enabled and w.policy_version = (select policy_version from active)
    group by a.domain, w.segment
),

parts as (
    select
        p.segment,
        any_value(coalesce(own.weights, everybody.weights)) as weights,
        case
            when quotas is not null
                then list(
                    struct_pack(
                        domain := a.domain, share := a.share, weights := coalesce(own.weights, everybody.weights)
                    ) order by a.domain
                )
        end as parts
    from (select distinct segment from people) as p
    cross join quota_domains as a
    left join weights as own on p.segment = own.segment and a.domain is not distinct from own.domain
    left join weights as everybody on everybody.segment = '*' and a.domain is not distinct from everybody.domain
    group by p.segment
),

listed as (
    select
        p.user_id,
        p.segment,
        p.history,
        e.proposals,
        a.model_version,
        a.policy_version,
        a.drawn_seed,
        m6_lists(
            a.model_version,
            p.user_id,
            p.segment,
            p.history,
            e.proposals,
            w.weights,
            cast(in_domain as varchar),
            n.allowed,
            n.blocked,
            n.boosted,
            cast(exclude_seen as boolean),
            cast(k as integer),
            cast(diversity as double),
            cast(calibrated as double),
            m6.asked_moment(until),
            a.drawn_seed,
            w.parts
        ) as slots
    from people as p
    cross join active as a
    cross join sets as n
    left join extra as e on p.user_id = e.user_id
    left join parts as w on p.segment is not distinct from w.segment
),

slated as materialized (
    select
        * exclude (history, proposals),
        list_transform(list_filter(proposals, lambda p: p.bit = 126), lambda p: p.item_id) as barred_ids,
        case
            when len(list_filter(slots, lambda s: s.bit >= 0)) < k
                then coalesce(list_transform(history, lambda h: h.item_id), [])
        end as seen_ids
    from listed
),

lines as (
    select
        * exclude (slots, seen_ids, barred_ids),
        unnest(slots) as slot
    from slated
),

explained as (
    select
        l.user_id,
        l.slot.item_id as item_id,
        l.slot.rank as rank,
        l.slot.score as score,
        l.slot.satisfaction as satisfaction,
        case when l.slot.bit < 0 then 'seen' else s.strategy end as strategy,
        l.slot.supporters as supporters,
        l.slot.eligible as eligible,
        l.slot.propensity as propensity,
        l.segment,
        coalesce(cast(in_domain as varchar), '*') as weights_domain,
        l.policy_version,
        l.model_version,
        l.drawn_seed,
        l.slot.because_item_id as because_item_id
    from lines as l
    left join m6.strategies as s on l.slot.bit = s.bit
),

-- the end of the fallback chain: what the build cannot rank yet, the newest first, before items seen already
short as (
    select
        user_id,
        segment,
        model_version,
        policy_version,
        drawn_seed,
        list_transform(slots, lambda s: s.item_id) as listed_ids,
        barred_ids,
        seen_ids
    from slated
    where seen_ids is not null
),

unranked as (
    select
        s.user_id,
        i.item_id,
        s.segment,
        s.model_version,
        s.policy_version,
        s.drawn_seed,
        m6_satisfaction(s.model_version, null) as satisfaction,
        list_contains(s.seen_ids, i.item_id) as is_seen,
        i.created_at
    from m6.items as i
    cross join short as s
    where
        i.is_available
        and not list_contains(s.listed_ids, i.item_id)
        and not (i.domain = 'people' and coalesce(list_contains(s.barred_ids, i.item_id), false))
        and (in_domain is null or i.domain = cast(in_domain as varchar))
        and (quotas is null or list_contains(map_keys(cast(quotas as map(varchar, double))), i.domain))
        and (i.created_at is null or i.created_at <= until)
        and (
            among = 'm6.available_items'
            or i.item_id in (
                select cast(item_id as varchar) from query_table(among) where among <> 'm6.available_items'
            )
        )
    qualify row_number() over (
        partition by s.user_id
        order by is_seen, i.created_at desc nulls last, i.item_id
    ) <= k
),

filled as (
    select *, cast(null as timestamp) as created_at
    from explained
    union all by name
    select
        user_id,
        item_id,
        satisfaction as score,
        satisfaction,
        case when is_seen then 'seen' else 'new' end as strategy,
        cast(0 as ubigint) as supporters,
        cast(0 as ubigint) as eligible,
        case when drawn_seed is not null then 1.0 end as propensity,
        segment,
        coalesce(cast(in_domain as varchar), '*') as weights_domain,
        policy_version,
        model_version,
        drawn_seed,
        created_at
    from unranked
),

ranked as (
    select
        * exclude (rank, created_at),
        cast(
            row_number() over (
                partition by user_id
                order by strategy = 'seen', rank nulls last, created_at desc nulls last, item_id
            ) as integer
        ) as list_rank
    from filled
    qualify list_rank <= k
)

select
    x.user_id,
    x.item_id,
    x.list_rank as rank,
    x.score,
    x.satisfaction,
    x.strategy,
    m6.reason(x.strategy, x.because_item_id, because.title) as reason,
    coalesce(known.domain, i.domain) as domain,
    x.policy_version,
    x.model_version,
    x.supporters,
    x.eligible,
    x.propensity,
    x.segment,
    case when quotas is null then x.weights_domain else coalesce(known.domain, i.domain) end as weights_domain,
    x.because_item_id,
    x.drawn_seed
from ranked as x
left join m6.stg_items as known on x.item_id = known.item_id
left join m6.items as i on x.item_id = i.item_id
left join m6.stg_items as because on x.because_item_id = because.item_id;
comment on macro table m6.slates is 'The body behind recommend_many and serve_many: candidates, satisfaction, mixing';
