-- one row per behaviour up to $as_of: events and feedback alike, with interest and satisfaction as numbers
with

unnamed as (select request_id from m6.feedback where impression_id is null and user_id is null),

requests as (
    select distinct request_id, user_id
    from m6.impressions
    where request_id in (select request_id from unnamed)
),

answered as (
    select
        coalesce(i.user_id, f.user_id, r.user_id) as user_id,
        coalesce(i.item_id, f.item_id) as item_id,
        f.event_type,
        f.value,
        f.happened_at
    from m6.feedback as f
    left join m6.impressions as i on f.impression_id = i.impression_id
    left join requests as r on f.request_id = r.request_id and f.impression_id is null and f.user_id is null
    where f.happened_at <= $as_of
),

behaviour as (
    select user_id, item_id, event_type, value, happened_at
    from m6.events
    where happened_at <= $as_of
    union all
    select user_id, item_id, event_type, value, happened_at
    from answered
    where user_id is not null and item_id is not null
),

graded as (
    select
        b.user_id,
        b.item_id,
        b.event_type,
        b.value,
        t.interest as type_interest,
        case
            when t.value_low is not null and t.value_high is not null and b.value is not null
                then least(1.0, greatest(0.0, (b.value - t.value_low) / (t.value_high - t.value_low)))
            else t.satisfaction
        end as satisfaction,
        t.value_low is not null and t.value_high is not null and b.value is not null as is_graded,
        b.happened_at
    from behaviour as b
    inner join m6.event_types as t on b.event_type = t.event_type
)

select
    user_id,
    item_id,
    event_type,
    value,
    case when is_graded then type_interest * greatest(satisfaction, 0.2) else type_interest end as interest,
    satisfaction,
    happened_at
from graded
