-- one row, where impressions were not drawn by m6.serve: their propensities are estimated from the log
-- remedy (warn): they teach the satisfaction model; strategy weights and m6.policy_value need lists drawn by m6.serve
with

estimated as (
    select
        count(*) as impressions,
        count(distinct user_id) as users,
        min(shown_at) as first_shown_at,
        max(shown_at) as last_shown_at
    from m6.impressions
    where propensity_source = 'estimated'
)

select * from estimated
where impressions > 0
