-- one row per (user, item) liked after a moment and not touched before (with repeats: any): what lists should find
--   graded by m6.event_types, whatever satisfaction function is in force, as m6rec_udf.evaluate does
create or replace macro m6.held_out(
    after, until := timestamp 'infinity', positive := 0.75, repeats := false, only_types := null
) as table
with

graded as (
    select
        e.user_id,
        e.item_id,
        e.event_type,
        e.happened_at,
        coalesce(t.interest > 0, false) as is_interest,
        case
            when e.value is null or t.value_low is null or t.value_high is null then t.satisfaction
            else least(greatest((e.value - t.value_low) / (t.value_high - t.value_low), 0), 1)
        end as y
    from m6.events as e
    left join m6.event_types as t on e.event_type = t.event_type
),

touched as (
    select distinct user_id, item_id
    from graded
    where happened_at <= after and not repeats
),

held_out as (
    select
        g.user_id,
        g.item_id,
        min(g.happened_at) as happened_at
    from graded as g
    anti join touched as t on g.user_id = t.user_id and g.item_id = t.item_id
    where
        g.is_interest
        and g.y >= positive
        and g.happened_at > after
        and g.happened_at <= until
        and (only_types is null or list_contains(only_types, g.event_type))
    group by g.user_id, g.item_id
)

select * from held_out;
comment on macro table m6.held_out is 'What users liked after a moment and had not touched before';
