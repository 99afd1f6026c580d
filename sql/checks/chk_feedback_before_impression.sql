-- one row per event type of feedback dated before the impression it answers: a clock is wrong, or the times are local
-- remedy (fail): give shown_at and happened_at in UTC from one clock; correct the rows, then reweight
with

feedback as (select impression_id, event_type, happened_at from m6.feedback where impression_id is not null),

impressions as (select impression_id, shown_at from m6.impressions),

early as (
    select
        feedback.event_type,
        count(*) as rows_found,
        max(date_diff('second', feedback.happened_at, impressions.shown_at)) as seconds_early
    from feedback
    inner join impressions on feedback.impression_id = impressions.impression_id
    where feedback.happened_at < impressions.shown_at
    group by feedback.event_type
)

select event_type, rows_found, seconds_early
from early
order by rows_found desc, event_type
