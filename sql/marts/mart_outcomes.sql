-- one row per (user, item): the best satisfaction of what the user did after $window_start, up to $window_end
with

events as (select * from stg_events where happened_at > $window_start and happened_at <= $window_end),

outcomes as (
    select
        user_idx,
        item_idx,
        max(satisfaction) as satisfaction
    from events
    group by user_idx, item_idx
)

select * from outcomes
