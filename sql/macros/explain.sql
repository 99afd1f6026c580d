-- one row per part of the answer: sentence, satisfaction, strategies, evidence, and features whose contributions add up
--   to the score before calibration; in_domain, among, exclude_seen and k as in the list that is asked about
create or replace macro m6.explain(
    for_user,
    of_item,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    exclude_seen := null,
    until := timestamp 'infinity',
    version := null
) as table
with

active as (
    select coalesce(cast(version as bigint), model_version) as model_version
    from m6.active_version
),

sets as (select allowed, blocked, boosted from m6.item_sets(among, 'm6.no_boosts')),

extra as (
    select any_value(proposals) as proposals
    from m6.proposals([cast(for_user as varchar)], (select model_version from active))
),

person as (select user_id, segment, history from m6.user_history([cast(for_user as varchar)], until := until)),

parts as materialized (
    select
        unnest(
            m6_explain(
                a.model_version,
                p.segment,
                cast(of_item as varchar),
                p.history,
                e.proposals,
                cast(in_domain as varchar),
                n.allowed,
                n.blocked,
                cast(exclude_seen as boolean),
                cast(k as integer),
                m6.asked_moment(until)
            ),
            recursive := true
        )
    from person as p
    cross join active as a
    cross join sets as n
    cross join extra as e
),

evidence as (
    select
        p.name as item_id,
        p.value as share,
        coalesce(i.title, p.name) as title,
        max(h.happened_at) as happened_at
    from parts as p
    left join m6.items as i on p.name = i.item_id
    left join m6.behaviour as h
        on p.name = h.item_id and h.user_id = cast(for_user as varchar) and h.happened_at <= until
    where p.part = 'evidence'
    group by p.name, p.value, i.title
),

sentence as (
    select
        case
            when count(e.item_id) > 0
                then 'because of ' || string_agg('"' || e.title || '"', ', ' order by e.share desc, e.item_id)
                    || ' in your history'
            when (select history is null or len(history) = 0 from person)
                then 'no behaviour yet: what others like lately'
            else 'nothing in your history speaks for it: popular lately'
        end as name
    from evidence as e
),

answer as (
    select part, name, value, contribution, cast(null as varchar) as detail
    from parts
    where part <> 'evidence'
    union all
    select 'evidence', title, share, null, 'item ' || item_id || ', ' || strftime(happened_at, '%Y-%m-%d')
    from evidence
    union all
    select 'sentence', name, null, null, null
    from sentence
)

select part, name, value, contribution, detail
from answer
order by
    list_position(['sentence', 'satisfaction', 'strategy', 'evidence', 'calibration', 'base', 'feature'], part),
    abs(contribution) desc nulls last,
    case when part = 'evidence' then -value end nulls last,
    name;
comment on macro table m6.explain is 'Why an item for a user: satisfaction, contributions, strategies, evidence, a sentence';
