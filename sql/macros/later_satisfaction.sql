-- one row per (user, item) with behaviour in a window: what it was worth (y), the best of it, 0 once turned away
create or replace macro m6.later_satisfaction(after_moment, until_moment) as table
with

outcomes as (
    select
        user_id,
        item_id,
        case when min(interest) < 0 then 0.0 else max(satisfaction) end as outcome
    from m6.behaviour
    where happened_at > cast(after_moment as timestamp) and happened_at <= cast(until_moment as timestamp)
    group by user_id, item_id
)

select * from outcomes;
comment on macro table m6.later_satisfaction is 'What users did with items in a window of time, as satisfaction y in [0, 1]';
