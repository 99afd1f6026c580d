-- one row per feedback row whose impression_id is not in m6.impressions: it rewards nothing
-- remedy (warn): insert into m6.impressions what m6.serve returned before its feedback
with

feedback as (select feedback_id, impression_id, event_type from m6.feedback where impression_id is not null),

orphans as (
    select feedback.feedback_id, feedback.impression_id, feedback.event_type
    from feedback
    anti join m6.impressions as impressions on feedback.impression_id = impressions.impression_id
)

select * from orphans
order by feedback_id
