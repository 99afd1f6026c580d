-- one row per user with a target: events at fit time; warm from 5 events on, else cold
with

test_users as (
    select user_id, count(*) as n_targets
    from eval_targets
    group by user_id
),

activity as (
    select user_id, count(*) as n_events
    from eval_history
    group by user_id
),

users as (
    select
        test_users.user_id,
        test_users.n_targets,
        coalesce(activity.n_events, 0) as n_events,
        case when activity.n_events >= 5 then 'warm' else 'cold' end as slice
    from test_users
    left join activity on test_users.user_id = activity.user_id
)

select * from users
