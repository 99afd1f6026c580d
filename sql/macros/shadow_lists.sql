-- one row per slot of a logged list that was drawn: what was shown, and what other weights would have drawn,
-- with the seed of the log; compared are the latest lists of one kind: the build, domain and length of the latest one;
-- slots that were filled up stay out
create or replace macro m6.shadow_lists(
    for_policy,
    latest := 1000,
    k := null,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null
) as table
with

target as materialized (select m6.policy_number(for_policy) as policy_version),

shown as materialized (
    select
        request_id,
        user_id,
        item_id,
        rank,
        strategy,
        satisfaction,
        supporters,
        seed,
        segment,
        model_version,
        shown_at,
        row_number() over (partition by request_id order by rank, impression_id) as place,
        count(*) over (partition by request_id) as places
    from m6.impressions
    where
        strategy <> 'pinned'
        and not starts_with(strategy, 'team_')
        and seed is not null
        and coalesce(domain, '*') = coalesce(cast(in_domain as varchar), '*')
),

requests as materialized (
    select
        request_id,
        any_value(user_id) as user_id,
        any_value(seed) as seed,
        any_value(segment) as segment,
        any_value(model_version) as model_version,
        max(shown_at) as moment,
        max(places) as places
    from shown
    group by request_id
),

kind as materialized (
    select
        m6.model_number(model_version) as model_version,
        coalesce(cast(k as bigint), places) as places
    from requests
    where k is null or places = k
    order by moment desc, request_id desc
    limit 1
),

compared as materialized (
    select r.*
    from requests as r
    inner join kind as n on r.model_version = n.model_version and r.places = n.places
    order by r.moment desc, r.request_id desc
    limit latest
),

histories as (
    select
        c.request_id,
        m6.history_list(b.item_id, b.interest, b.satisfaction, b.happened_at) as history
    from compared as c
    inner join m6.behaviour as b on c.user_id = b.user_id and b.happened_at <= c.moment
    group by c.request_id
),

sets as (select allowed, blocked, boosted from m6.item_sets(among, boosts)),

extra as (
    select user_id, proposals
    from m6.proposals((select list(user_id) from compared), (select model_version from kind))
),

weights as (
    select segment, weights
    from m6.policy_weights((select policy_version from target), cast(in_domain as varchar))
),

drawn as (
    select
        c.request_id,
        unnest(
            m6_lists(
                c.model_version,
                c.user_id,
                c.segment,
                h.history,
                e.proposals,
                coalesce(own.weights, everybody.weights),
                cast(in_domain as varchar),
                n.allowed,
                n.blocked,
                n.boosted,
                cast(exclude_seen as boolean),
                cast(c.places as integer),
                cast(diversity as double),
                cast(calibrated as double),
                null,
                c.seed,
                null
            )
        ) as slot
    from compared as c
    cross join sets as n
    left join histories as h on c.request_id = h.request_id
    left join extra as e on c.user_id = e.user_id
    left join weights as own on c.segment = own.segment
    left join weights as everybody on everybody.segment = '*'
),

beside as (
    select
        s.request_id,
        s.user_id,
        s.shown_at,
        s.rank,
        s.item_id as shown_item_id,
        d.slot.item_id as shadow_item_id,
        s.item_id is distinct from d.slot.item_id as is_changed,
        s.strategy as shown_strategy,
        t.strategy as shadow_strategy,
        s.satisfaction as shown_satisfaction,
        d.slot.satisfaction as shadow_satisfaction,
        (select policy_version from target) as policy_version
    from shown as s
    inner join compared as c on s.request_id = c.request_id
    left join drawn as d on s.request_id = d.request_id and s.place = d.slot.rank
    left join m6.strategies as t on d.slot.bit = t.bit
    where s.supporters > 0
)

select *, avg(cast(is_changed as integer)) over () as share_changed
from beside
order by shown_at, request_id, rank;
comment on macro table m6.shadow_lists is 'what other weights would have shown on the logged requests, slot by slot, and the share that changes';
