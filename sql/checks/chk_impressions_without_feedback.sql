-- one row per policy version with 100 or more impressions and no feedback on any of them
-- remedy (warn): check that the app writes m6.feedback with the impression_id it got from m6.serve
with

impressions as (select impression_id, request_id, item_id, policy_version from m6.impressions),

feedback as (select impression_id, request_id, item_id from m6.feedback),

answered as (
    select distinct impressions.policy_version
    from impressions
    inner join feedback on impressions.impression_id = feedback.impression_id
    union
    select distinct impressions.policy_version
    from impressions
    inner join feedback
        on impressions.request_id = feedback.request_id and impressions.item_id = feedback.item_id
),

silent as (
    select impressions.policy_version, count(*) as impressions
    from impressions
    where
        not exists (
            select 1 from answered where answered.policy_version is not distinct from impressions.policy_version
        )
    group by impressions.policy_version
    having count(*) >= 100
)

select * from silent
order by policy_version
