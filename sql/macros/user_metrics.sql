-- one row per (group, user with something to find in it): ranking metrics of the first k items of the user's list
--   lists names a table of (user_id, item_id, rank). Groups of users: all, segment, user warm or cold (fewer than 5
--   events up to `after`); groups of items keep their own items only, in lists (ranks closed up) and in what is to be
--   found: domain, item warm or cold. Formulas: docs/formulas.md; the figures of group all are those of m6rec_udf.evaluate
create or replace macro m6.user_metrics(
    lists, after, until := timestamp 'infinity', k := 10, positive := 0.75, repeats := false
) as table
with

lines as (
    select cast(user_id as varchar) as user_id, cast(item_id as varchar) as item_id, rank
    from query_table(lists)
),

targets as (
    select user_id, item_id
    from m6.held_out(after, until := until, positive := positive, repeats := repeats)
),

history as (
    select e.user_id, e.item_id
    from m6.events as e
    inner join m6.event_types as t on e.event_type = t.event_type
    where t.interest > 0 and e.happened_at <= after
),

everyone as (select greatest(count(distinct user_id), 1) as n_users from history),

item_activity as (
    select item_id, count(*) as n_events, count(distinct user_id) as n_users
    from history
    group by item_id
),

user_activity as (
    select user_id, count(*) as n_events
    from history
    group by user_id
),

named as (
    select item_id from lines
    union
    select item_id from targets
),

items as materialized (
    select
        n.item_id,
        i.domain,
        coalesce(a.n_events, 0) as n_events,
        -log2(greatest(coalesce(a.n_users, 0), 1) / e.n_users) as bits
    from named as n
    cross join everyone as e
    left join m6.items as i on n.item_id = i.item_id
    left join item_activity as a on n.item_id = a.item_id
),

item_groups as materialized (
    select item_id, 'all' as group_kind, '*' as group_name from items
    union all
    select item_id, 'domain', domain from items where domain is not null
    union all
    select item_id, 'item', case when n_events >= 5 then 'warm' else 'cold' end from items
),

grouped_targets as materialized (
    select g.group_kind, g.group_name, t.user_id, t.item_id
    from targets as t
    inner join item_groups as g on t.item_id = g.item_id
),

wanting as (
    select group_kind, group_name, user_id, count(*) as n_targets
    from grouped_targets
    group by group_kind, group_name, user_id
),

grouped_lines as materialized (
    select
        g.group_kind,
        g.group_name,
        l.user_id,
        l.item_id,
        row_number() over (partition by g.group_kind, g.group_name, l.user_id order by l.rank, l.item_id) as place
    from lines as l
    inner join item_groups as g on l.item_id = g.item_id
    semi join wanting as w
        on g.group_kind = w.group_kind and g.group_name = w.group_name and l.user_id = w.user_id
    qualify place <= k
),

hits as (
    select
        l.group_kind,
        l.group_name,
        l.user_id,
        l.place,
        row_number() over (partition by l.group_kind, l.group_name, l.user_id order by l.place) as hit_number
    from grouped_lines as l
    semi join grouped_targets as t
        on
            l.group_kind = t.group_kind
            and l.group_name = t.group_name
            and l.user_id = t.user_id
            and l.item_id = t.item_id
),

gains as (
    select
        group_kind,
        group_name,
        user_id,
        count(*) as n_hits,
        sum(1 / log2(place + 1)) as dcg,
        sum(hit_number / place) as precision_sum,
        min(place) as first_place
    from hits
    group by group_kind, group_name, user_id
),

ideal as (
    select position, sum(1 / log2(position + 1)) over (order by position) as dcg
    from (select unnest(range(1, k + 1)) as position)
),

novelty as (
    select l.group_kind, l.group_name, l.user_id, avg(i.bits) as novelty
    from grouped_lines as l
    inner join items as i on l.item_id = i.item_id
    group by l.group_kind, l.group_name, l.user_id
),

-- 1 - mean cosine of the texts of two items of the list (Ziegler et al., WWW 2005)
diversity as (
    select
        a.group_kind,
        a.group_name,
        a.user_id,
        1 - avg(list_cosine_similarity(v.vector, w.vector)) as diversity
    from grouped_lines as a
    inner join grouped_lines as b
        on
            a.group_kind = b.group_kind
            and a.group_name = b.group_name
            and a.user_id = b.user_id
            and a.place < b.place
    inner join m6.item_vectors as v on a.item_id = v.item_id
    inner join m6.item_vectors as w on b.item_id = w.item_id
    group by a.group_kind, a.group_name, a.user_id
),

metrics as materialized (
    select
        w.group_kind,
        w.group_name,
        w.user_id,
        w.n_targets,
        round(coalesce(g.dcg, 0) / ideal.dcg, 12) as ndcg,
        coalesce(g.n_hits, 0) / w.n_targets as recall,
        coalesce(g.n_hits, 0) / k as "precision",
        round(coalesce(g.precision_sum, 0) / least(w.n_targets, k), 12) as map,
        coalesce(1 / g.first_place, 0) as mrr,
        cast(g.n_hits is not null as double) as hit_rate,
        round(coalesce(n.novelty, 0), 12) as novelty,
        round(d.diversity, 9) as diversity
    from wanting as w
    inner join ideal on ideal.position = least(w.n_targets, k)
    left join gains as g
        on w.group_kind = g.group_kind and w.group_name = g.group_name and w.user_id = g.user_id
    left join novelty as n
        on w.group_kind = n.group_kind and w.group_name = n.group_name and w.user_id = n.user_id
    left join diversity as d
        on w.group_kind = d.group_kind and w.group_name = d.group_name and w.user_id = d.user_id
),

user_metrics as (
    select * from metrics
    union all
    select m.* replace ('user' as group_kind, case when a.n_events >= 5 then 'warm' else 'cold' end as group_name)
    from metrics as m
    left join user_activity as a on m.user_id = a.user_id
    where m.group_kind = 'all'
    union all
    select m.* replace ('segment' as group_kind, u.segment as group_name)
    from metrics as m
    inner join m6.users as u on m.user_id = u.user_id
    where m.group_kind = 'all' and u.segment is not null
)

select * from user_metrics;
comment on macro table m6.user_metrics is 'Ranking metrics of lists per user and group, over what users liked after a moment';
