-- one row per (event_type, strategy, age): share of late events that has arrived by that age (reverse-time hazard)
with

late as (
    select event_type, strategy, delay, age, count(*) as n
    from fb_reactions
    where kind = 'late' and is_clicked
    group by all
),

pairs as (
    select e.event_type, s.strategy, j.j
    from (select distinct event_type from late) as e
    cross join (select distinct strategy from fb_impressions) as s
    cross join (select unnest(range(1, $window)) as j) as j
),

pooled as (
    select
        p.event_type,
        p.j,
        coalesce(sum(l.n) filter (where l.delay = p.j), 0)
        / greatest(1, coalesce(sum(l.n) filter (where l.delay <= p.j and l.age >= p.j), 0)) as hazard
    from (select distinct event_type, j from pairs) as p
    inner join late as l on p.event_type = l.event_type
    group by p.event_type, p.j
),

hazards as (
    select
        p.event_type,
        p.strategy,
        p.j,
        (coalesce(sum(l.n) filter (where l.delay = p.j), 0) + $shrink_events * any_value(o.hazard))
        / (coalesce(sum(l.n) filter (where l.delay <= p.j and l.age >= p.j), 0) + $shrink_events) as hazard
    from pairs as p
    inner join pooled as o on p.event_type = o.event_type and p.j = o.j
    left join late as l on p.event_type = l.event_type and p.strategy = l.strategy
    group by p.event_type, p.strategy, p.j
),

arrivals as (
    select
        p.event_type,
        p.strategy,
        a.age,
        coalesce(product(1.0 - h.hazard order by h.j) filter (where h.j > a.age), 1.0) as arrived
    from (select distinct event_type, strategy from pairs) as p
    cross join (select unnest(range(0, $window)) as age) as a
    inner join hazards as h on p.event_type = h.event_type and p.strategy = h.strategy
    group by p.event_type, p.strategy, a.age
)

select * from arrivals
