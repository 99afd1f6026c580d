-- one row per split: as_of, the last moment that belongs to the fit; about $share of the events up to $until come later
with

events as (
    select happened_at
    from eval_events
    where is_interest and happened_at <= $until
),

positions as (
    select
        happened_at,
        row_number() over (order by happened_at) - 1 as position,
        count(*) over () as n_events
    from events
),

first_later as (
    select min(happened_at) as happened_at
    from positions
    where position >= (1 - $share) * (n_events - 1)
),

cut as (
    select max(events.happened_at) as as_of
    from events
    inner join first_later on events.happened_at < first_later.happened_at
)

select * from cut
