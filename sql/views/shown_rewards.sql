-- one row per impression, interleaved and pinned ones as well: what was observed so far, graded by the
-- satisfaction function in force; nothing is forecast
with

exact as (
    select f.feedback_id, f.impression_id, f.event_type, f.value, f.happened_at
    from m6.feedback as f
    inner join m6.impressions as i on f.impression_id = i.impression_id
),

rest as (
    select * from m6.feedback anti join exact using (feedback_id)
),

found as (
    select r.feedback_id, i.impression_id, r.event_type, r.value, r.happened_at, i.shown_at, 1 as preference
    from rest as r
    inner join m6.impressions as i on r.request_id = i.request_id and r.item_id = i.item_id
    union all
    select r.feedback_id, i.impression_id, r.event_type, r.value, r.happened_at, i.shown_at, 2 as preference
    from rest as r
    inner join m6.impressions as i on r.user_id = i.user_id and r.item_id = i.item_id
    where i.shown_at between r.happened_at - interval 1 day and r.happened_at
),

inferred as (
    select feedback_id, impression_id, event_type, value, happened_at
    from found
    qualify row_number() over (partition by feedback_id order by preference, shown_at desc, impression_id) = 1
),

matched as materialized (
    select m.*, i.user_id, i.item_id
    from (
        select * from exact
        union all
        select * from inferred
    ) as m
    inner join m6.impressions as i on m.impression_id = i.impression_id
),

behaviour as materialized (
    select
        user_id,
        item_id,
        event_type,
        happened_at,
        value,
        max(satisfaction) as satisfaction,
        min(interest) as interest
    from m6.behaviour
    semi join matched using (user_id, item_id)
    group by user_id, item_id, event_type, happened_at, value
),

graded as (
    select
        m.impression_id,
        m.event_type,
        max(case when b.interest < 0 then -0.2 else b.satisfaction end) as value
    from matched as m
    inner join behaviour as b
        on
            m.user_id = b.user_id
            and m.item_id = b.item_id
            and m.event_type = b.event_type
            and m.happened_at = b.happened_at
            and m.value is not distinct from b.value
    group by m.impression_id, m.event_type
),

rewards as (
    select impression_id, sum(value) as reward
    from graded
    group by impression_id
),

shown_rewards as (
    select
        i.impression_id,
        i.request_id,
        i.user_id,
        i.item_id,
        i.rank,
        i.strategy,
        i.supporters,
        i.eligible,
        i.propensity,
        i.policy_version,
        i.model_version,
        coalesce(i.domain, '*') as domain,
        coalesce(i.segment, '*') as segment,
        i.shown_at,
        r.impression_id is not null as is_answered,
        coalesce(r.reward, 0.0) as reward
    from m6.impressions as i
    left join rewards as r on i.impression_id = r.impression_id
)

select * from shown_rewards
