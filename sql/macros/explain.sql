-- one row per part of the answer: satisfaction, features with contributions, strategies, evidence, the sentence
create or replace macro m6.explain(for_user, of_item, until := timestamp 'infinity', version := null) as table
with

active as (
    select coalesce(cast(version as bigint), model_version) as model_version
    from m6.active_version
),

person as (select user_id, segment, history from m6.user_history([cast(for_user as varchar)], until := until)),

parts as (
    select unnest(m6_explain(a.model_version, p.segment, cast(of_item as varchar), p.history, m6.asked_moment(until))) as row_of
    from person as p
    cross join active as a
),

because as (
    select m6_evidence(a.model_version, cast(of_item as varchar), p.history) as item_id
    from person as p
    cross join active as a
),

evidence as (
    select
        b.item_id,
        coalesce(i.title, b.item_id) as title,
        max(h.happened_at) as happened_at
    from because as b
    left join m6.items as i on b.item_id = i.item_id
    left join m6.behaviour as h on b.item_id = h.item_id and h.user_id = cast(for_user as varchar)
    where b.item_id is not null
    group by b.item_id, i.title
),

answer as (
    select row_of.part as part, row_of.name as name, row_of.value as value, row_of.contribution as contribution, null as detail
    from parts
    union all
    select 'evidence', title, null, null, 'item ' || item_id || ', ' || strftime(happened_at, '%Y-%m-%d')
    from evidence
    union all
    select
        'sentence',
        coalesce('because of "' || max(title) || '" in your history', 'popular lately'),
        null,
        null,
        null
    from evidence
)

select part, name, value, contribution, detail
from answer
order by
    list_position(['sentence', 'satisfaction', 'strategy', 'evidence', 'base', 'feature'], part),
    abs(contribution) desc nulls last,
    name;
comment on macro table m6.explain is 'Why an item for a user: satisfaction, contributions, strategies, evidence, a sentence';
