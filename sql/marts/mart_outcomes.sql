-- one row per (user, item): y of what the user did after $window_start, up to $window_end: the best, 0 once turned away
with

events as (select * from stg_events where happened_at > $window_start and happened_at <= $window_end),

outcomes as (
    select
        user_idx,
        item_idx,
        case when min(interest) < 0 then 0.0 else max(satisfaction) end as satisfaction
    from events
    group by user_idx, item_idx
)

select * from outcomes
