-- one row per (impression_id, event_type): what the user did, graded by m6.event_types, counted once
with

graded as (
    select
        m.impression_id,
        m.event_type,
        case
            when t.interest < 0 then $dismiss_value
            when t.value_low is null or t.value_high is null or m.value is null then t.satisfaction
            else greatest(0.0, least(1.0, (m.value - t.value_low) / (t.value_high - t.value_low)))
        end as value,
        m.arrived_at,
        case
            when t.interest < 0 then 'negative'
            when list_contains($click_events, m.event_type) then 'click'
            else 'late'
        end as kind
    from fb_matches as m
    inner join m6.event_types as t on m.event_type = t.event_type
    where m.impression_id is not null
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
