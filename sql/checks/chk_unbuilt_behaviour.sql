-- one row per table with more than a tenth of its rows newer than the build: served, but not learned from
-- remedy (warn): run `m6rec build`
with

built as (
    select models.event_seq, models.feedback_seq
    from m6.active as active
    inner join m6.models as models on active.model_version = models.model_version
),

counted as (
    select
        'events' as table_name,
        count(*) as total,
        count(*) filter (where events.event_seq > built.event_seq) as unbuilt
    from m6.events as events
    cross join built
    union all
    select
        'feedback' as table_name,
        count(*) as total,
        count(*) filter (where feedback.feedback_seq > built.feedback_seq) as unbuilt
    from m6.feedback as feedback
    cross join built
),

behind as (select * from counted where unbuilt * 10 > total)

select * from behind
order by table_name
