-- one row, if satisfaction promised and seen have moved apart between the older and the newer half of the impressions
-- remedy (warn): run `m6rec build --retrain`: the model was calibrated on behaviour that has changed since
with

active as (select model_version from m6.active),

seen as (
    select f.impression_id, max(t.satisfaction) as satisfaction
    from m6.feedback as f
    inner join m6.event_types as t on f.event_type = t.event_type
    where f.impression_id is not null
    group by f.impression_id
),

shown as (
    select
        ntile(2) over (order by i.shown_at, i.impression_id) as half,
        coalesce(seen.satisfaction, 0) - i.satisfaction as gap
    from m6.impressions as i
    inner join active on i.model_version = active.model_version
    left join seen on i.impression_id = seen.impression_id
    where i.satisfaction is not null
),

halves as (
    select
        count(*) as impressions,
        avg(gap) filter (where half = 1) as gap_before,
        avg(gap) filter (where half = 2) as gap_now,
        var_samp(gap) filter (where half = 1) / count(*) filter (where half = 1)
        + var_samp(gap) filter (where half = 2) / count(*) filter (where half = 2) as variance
    from shown
),

drifted as (
    select
        impressions,
        round(gap_before, 3) as gap_before,
        round(gap_now, 3) as gap_now
    from halves
    where
        impressions >= 400
        and abs(gap_now - gap_before) > 0.05
        and abs(gap_now - gap_before) > 3 * sqrt(variance)
)

select impressions, gap_before, gap_now from drifted
