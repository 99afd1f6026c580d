-- one row, if more than half of the events share user and happened_at with another: the order inside is unknown
-- remedy (warn): load finer times if there are any; whole days make sequences (co-visitation, recency) coarse
with

moments as (
    select user_id, happened_at, count(*) as events
    from m6.events
    group by user_id, happened_at
),

counted as (
    select
        sum(events) as events,
        coalesce(sum(events) filter (where events > 1), 0) as tied
    from moments
),

tied as (
    select cast(events as bigint) as events, round(tied / events, 3) as share
    from counted
    where events > 0 and tied > 0.5 * events
)

select * from tied
