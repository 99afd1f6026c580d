-- one row per (impression_id, event_type): what the user did, graded by the satisfaction function in force, once
with

-- first the keys of a row, then one join on all of them: joined by time alone a busy second would multiply
matched as materialized (
    select
        m.impression_id,
        i.user_id,
        i.item_id,
        m.event_type,
        m.happened_at,
        m.value,
        m.arrived_at
    from fb_matches as m
    inner join fb_impressions as i on m.impression_id = i.impression_id
),

behaviour as materialized (
    select
        user_id,
        item_id,
        event_type,
        happened_at,
        value,
        max(satisfaction) as satisfaction,
        min(interest) as interest
    from m6.behaviour
    semi join matched using (user_id, item_id)
    group by user_id, item_id, event_type, happened_at, value
),

graded as (
    select
        m.impression_id,
        m.event_type,
        case when b.interest < 0 then $dismiss_value else b.satisfaction end as value,
        m.arrived_at,
        case
            when b.interest < 0 then 'negative'
            when list_contains($click_events, m.event_type) then 'click'
            else 'late'
        end as kind
    from matched as m
    inner join behaviour as b
        on
            m.user_id = b.user_id
            and m.item_id = b.item_id
            and m.event_type = b.event_type
            and m.happened_at = b.happened_at
            and m.value is not distinct from b.value
),

reactions as (
    select
        g.impression_id,
        g.event_type,
        any_value(g.kind) as kind,
        max(g.value) as value,
        any_value(i.strategy) as strategy,
        any_value($last_period - i.period) as age,
        greatest(
            0,
            least(
                any_value($last_period - i.period),
                min(cast(floor(epoch(g.arrived_at) / $period_seconds) as bigint)) - any_value(i.period)
            )
        ) as delay
    from graded as g
    inner join fb_impressions as i on g.impression_id = i.impression_id
    group by g.impression_id, g.event_type
),

marked as (
    select *, coalesce(bool_or(kind = 'click') over (partition by impression_id), false) as is_clicked
    from reactions
)

select * from marked
