-- one row per (group, metric) of whole lists: coverage and concentration (Gini) of the catalogue, how personal lists are
--   lists names a table of (user_id, item_id, rank); the catalogue is what existed at `after`. personalization is
--   1 - the share of items that two users' lists have in common, mean over all pairs (Zhou et al., PNAS 2010)
create or replace macro m6.catalogue_metrics(lists, after, k := 10) as table
with

lines as (
    select cast(user_id as varchar) as user_id, cast(item_id as varchar) as item_id
    from query_table(lists)
    where rank <= k
),

activity as (
    select e.item_id, count(*) filter (where t.interest > 0) as n_events
    from m6.events as e
    left join m6.event_types as t on e.event_type = t.event_type
    where e.happened_at <= after
    group by e.item_id
),

user_activity as (
    select e.user_id, count(*) as n_events
    from m6.events as e
    inner join m6.event_types as t on e.event_type = t.event_type
    where t.interest > 0 and e.happened_at <= after
    group by e.user_id
),

catalogue as materialized (
    select i.item_id, i.domain, case when coalesce(a.n_events, 0) >= 5 then 'warm' else 'cold' end as warmth
    from m6.items as i
    left join activity as a on i.item_id = a.item_id
    where a.item_id is not null or coalesce(i.created_at <= after, true)
),

item_groups as materialized (
    select item_id, 'all' as group_kind, '*' as group_name from catalogue
    union all
    select item_id, 'domain', domain from catalogue
    union all
    select item_id, 'item', warmth from catalogue
),

user_groups as materialized (
    select
        l.user_id,
        'user' as group_kind,
        case when a.n_events >= 5 then 'warm' else 'cold' end as group_name
    from (select distinct user_id from lines) as l
    left join user_activity as a on l.user_id = a.user_id
    union all
    select u.user_id, 'segment', u.segment
    from m6.users as u
    semi join lines as l on u.user_id = l.user_id
    where u.segment is not null
),

sizes as (
    select group_kind, group_name, count(*) as n_items
    from item_groups
    group by group_kind, group_name
    union all
    select g.group_kind, g.group_name, count(c.item_id)
    from (select distinct group_kind, group_name from user_groups) as g
    cross join catalogue as c
    group by g.group_kind, g.group_name
),

grouped as materialized (
    select g.group_kind, g.group_name, l.user_id, l.item_id
    from lines as l
    inner join item_groups as g on l.item_id = g.item_id
    union all
    select g.group_kind, g.group_name, l.user_id, l.item_id
    from lines as l
    inner join user_groups as g on l.user_id = g.user_id
    semi join catalogue as c on l.item_id = c.item_id
),

shown as (
    select group_kind, group_name, item_id, count(*) as n_shown
    from grouped
    group by group_kind, group_name, item_id
),

listed as (
    select group_kind, group_name, count(distinct user_id) as n_users, count(*) as n_lines
    from grouped
    group by group_kind, group_name
),

-- items never shown come first in the order from rare to frequent; they add nothing to the sum
positions as (
    select
        s.*,
        z.n_items,
        z.n_items - count(*) over (partition by s.group_kind, s.group_name)
        + row_number() over (partition by s.group_kind, s.group_name order by s.n_shown, s.item_id) as position
    from shown as s
    inner join sizes as z on s.group_kind = z.group_kind and s.group_name = z.group_name
),

wide as (
    select
        p.group_kind,
        p.group_name,
        any_value(l.n_users) as n,
        count(*) / any_value(p.n_items) as coverage,
        sum((2 * p.position - p.n_items - 1) * p.n_shown) / (any_value(p.n_items) * sum(p.n_shown)) as gini,
        case
            when any_value(l.n_users) > 1
                then 1 - (sum(p.n_shown * (p.n_shown - 1)) / any_value(l.n_users * (l.n_users - 1)))
                    / (any_value(l.n_lines) / any_value(l.n_users))
        end as personalization
    from positions as p
    inner join listed as l on p.group_kind = l.group_kind and p.group_name = l.group_name
    group by p.group_kind, p.group_name
),

catalogue_metrics as (
    unpivot wide on coverage, gini, personalization into name metric value value
)

select group_kind, group_name, metric, round(value, 12) as value, n
from catalogue_metrics
order by group_kind, group_name, metric;
comment on macro table m6.catalogue_metrics is 'Coverage, concentration and how personal lists are, per group';
