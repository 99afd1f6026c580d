-- one row per step from the catalogue to the list, in order: whether the item passed it, and what was found there
--   the arguments are those of m6.recommend; steps after the first that failed say what they would have found
create or replace macro m6.why_not(
    for_user,
    of_item,
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

asked as materialized (
    select
        cast(for_user as varchar) as user_id,
        cast(of_item as varchar) as item_id,
        coalesce(cast(version as bigint), a.model_version) as model_version
    from m6.active_version as a
),

build_of as materialized (
    select
        a.*,
        json_extract_string(decode(settings.content), '$.repeats_allowed') = 'true' as is_repeating,
        list_contains(
            cast(json(decode(ids.content)) as varchar []), a.item_id
        ) as is_built
    from asked as a
    left join m6.artefacts as settings on a.model_version = settings.model_version and settings.name = 'settings'
    left join m6.artefacts as ids on a.model_version = ids.model_version and ids.name = 'item_ids'
),

item as materialized (
    select a.item_id, i.item_id is not null as is_there, i.title, i.domain, i.is_available, i.created_at
    from asked as a
    left join m6.items as i on a.item_id = i.item_id
),

seen as (
    select count(*) as times, max(h.happened_at) as last_at
    from m6.behaviour as h
    inner join asked as a on h.user_id = a.user_id and h.item_id = a.item_id
    where h.happened_at <= until
),

among_items as (
    select count(*) as items, coalesce(bool_or(cast(q.item_id as varchar) = cast(of_item as varchar)), false) as is_in
    from query_table(among) as q
),

listed as materialized (
    select s.item_id, s.rank, s.score, s.strategy
    from m6.slates(
        [cast(for_user as varchar)],
        k := k,
        in_domain := in_domain,
        among := among,
        boosts := boosts,
        diversity := diversity,
        calibrated := calibrated,
        exclude_seen := exclude_seen,
        until := until,
        version := version
    ) as s
),

standing as materialized (
    select s.item_id, s.rank, s.score, s.satisfaction, s.supporters, s.is_seen
    from m6.standings(
        [cast(for_user as varchar)],
        k := k,
        in_domain := in_domain,
        among := among,
        boosts := boosts,
        diversity := diversity,
        calibrated := calibrated,
        exclude_seen := exclude_seen,
        until := until,
        version := version
    ) as s
),

place as (
    select
        (select l.rank from listed as l inner join asked as a on l.item_id = a.item_id) as list_rank,
        own.rank as rank,
        own.score as score,
        own.supporters as supporters,
        own.is_seen as is_only_seen,
        (select count(*) from standing) as candidates
    from asked as a
    left join standing as own on a.item_id = own.item_id
),

proposed_by as (
    select string_agg(s.strategy, ', ' order by s.bit) as strategies
    from m6.strategies as s
    cross join place as p
    where (p.supporters >> s.bit) & 1 = 1
),

above as (
    select
        list(coalesce(i.title, l.item_id) order by l.rank) as titles,
        arg_max(coalesce(i.title, l.item_id), l.rank) as last_title,
        arg_max(l.item_id, l.rank) as last_item_id,
        arg_max(l.score, l.rank) as last_score,
        count(*) as lines
    from listed as l
    left join m6.items as i on l.item_id = i.item_id
),

steps as (
    select
        1 as number,
        'known' as step,
        i.is_there as is_passed,
        case
            when i.is_there then coalesce(i.title, i.item_id)
            else 'there is no item ' || coalesce(i.item_id, 'NULL') || ' in m6.items; check the id'
        end as found
    from item as i
    union all
    select
        2,
        'available',
        i.is_available,
        case
            when i.is_available then 'is_available is true'
            else 'is_available is false; update m6.items to show it again'
        end
    from item as i
    where i.is_there
    union all
    select
        3,
        'in the build',
        b.is_built and coalesce(i.created_at <= until, true),
        case
            when not b.is_built
                then 'loaded after model_version ' || b.model_version
                    || '; until the next build it only fills lists that would be too short'
            when i.created_at > until then 'it came on ' || i.created_at || ', after the moment asked about'
            else 'model_version ' || b.model_version || ' knows it'
        end
    from build_of as b
    cross join item as i
    where i.is_there
    union all
    select
        4,
        'in domain',
        in_domain is null or i.domain = cast(in_domain as varchar),
        'domain ' || i.domain || case
            when in_domain is null then ', and every domain may be listed'
            when i.domain = cast(in_domain as varchar) then ', as asked for'
            else ', asked for was ' || cast(in_domain as varchar)
        end
    from item as i
    where i.is_there
    union all
    select
        5,
        'in among',
        among = 'm6.available_items' or m.is_in,
        case
            when among = 'm6.available_items' then 'every available item may be listed'
            when m.is_in then 'it is in ' || among
            else 'it is not in ' || among || ', which names ' || m.items || ' items'
        end
    from among_items as m
    cross join item as i
    where i.is_there
    union all
    select
        6,
        'not seen',
        s.times = 0 or not coalesce(cast(exclude_seen as boolean), not b.is_repeating),
        case
            when s.times = 0 then 'no behaviour of this user with it'
            else s.times || ' times in the history, last on ' || strftime(s.last_at, '%Y-%m-%d') || case
                when coalesce(cast(exclude_seen as boolean), not b.is_repeating)
                    then '; exclude_seen := false lets it back'
                else '; seen items may come again'
            end
        end
    from seen as s
    cross join build_of as b
    cross join item as i
    where i.is_there
    union all
    select
        7,
        'candidate',
        p.rank is not null and not p.is_only_seen,
        case
            when p.rank is null then 'none of the strategies proposed it for this user'
            when p.is_only_seen then 'only there because the list would be too short'
            else 'proposed by ' || coalesce(s.strategies, 'nothing but the fallback, popularity')
        end
    from place as p
    cross join proposed_by as s
    cross join item as i
    where i.is_there
    union all
    select
        8,
        'in the list',
        p.list_rank is not null,
        case
            when p.list_rank is not null then 'rank ' || p.list_rank || ' of ' || a.lines
            when p.rank is null then 'without being proposed it has no rank'
            else 'rank ' || p.rank || ' of ' || p.candidates || ' candidates with a score of '
                || printf('%.4f', p.score) || '; the last of the ' || a.lines || ' listed, "' || a.last_title || '" ('
                || a.last_item_id || '), has ' || printf('%.4f', a.last_score)
        end
    from place as p
    cross join above as a
    cross join item as i
    where i.is_there
),

why_not as (
    select
        s.number,
        s.step,
        s.is_passed,
        not s.is_passed and s.number = min(s.number) filter (where not s.is_passed) over () as is_reason,
        s.found,
        case when s.number = 8 then coalesce(p.list_rank, p.rank) end as rank,
        case when s.number = 8 and not s.is_passed and p.rank is not null then a.titles end as outranked_by
    from steps as s
    cross join place as p
    cross join above as a
)

select step, is_passed, is_reason, found, rank, outranked_by
from why_not
order by number;
comment on macro table m6.why_not is 'Where an item falls out on the way to a user''s list: from m6.why_not(''u42'', ''i9'')';
