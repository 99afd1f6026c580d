-- one row per (event_type, strategy): expected late value of one click, corrected for what has not arrived yet
with

clicks as (
    select r.strategy, r.age, count(distinct r.impression_id) as n
    from fb_reactions as r
    where r.kind = 'click'
    group by all
),

exposure as (
    select a.event_type, a.strategy, sum(cast(a.arrived * coalesce(c.n, 0) as decimal(38, 12))) as clicks
    from fb_arrivals as a
    left join clicks as c on a.strategy = c.strategy and a.age = c.age
    group by a.event_type, a.strategy
),

value as (
    select event_type, strategy, sum(cast(value as decimal(38, 12))) as value
    from fb_reactions
    where kind = 'late' and is_clicked
    group by event_type, strategy
),

joined as (
    select e.event_type, e.strategy, cast(e.clicks as double) as clicks, coalesce(cast(v.value as double), 0.0) as value
    from exposure as e
    left join value as v on e.event_type = v.event_type and e.strategy = v.strategy
),

pooled as (
    select
        event_type,
        cast(sum(cast(value as decimal(38, 12))) as double)
        / greatest(1e-9, cast(sum(cast(clicks as decimal(38, 12))) as double)) as value
    from joined
    group by event_type
),

late_values as (
    select
        j.event_type,
        j.strategy,
        (j.value + $shrink_clicks * p.value) / (j.clicks + $shrink_clicks) as value
    from joined as j
    inner join pooled as p on j.event_type = p.event_type
)

select * from late_values
