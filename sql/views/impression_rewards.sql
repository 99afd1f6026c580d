-- one row per impression that can be learned from: what was observed so far (no forecast of late feedback)
with

exact as (
    select f.feedback_id, f.impression_id, f.event_type, f.value
    from m6.feedback as f
    inner join m6.impressions as i on f.impression_id = i.impression_id
),

inferred as (
    select f.feedback_id, i.impression_id, f.event_type, f.value
    from (select * from m6.feedback anti join exact using (feedback_id)) as f
    inner join m6.impressions as i on f.user_id = i.user_id and f.item_id = i.item_id
    where i.shown_at between f.happened_at - interval 1 day and f.happened_at
    qualify row_number() over (
        partition by f.feedback_id
        order by coalesce(f.request_id = i.request_id, false) desc, i.shown_at desc, i.impression_id
    ) = 1
),

matched as (
    select * from exact
    union all
    select * from inferred
),

graded as (
    select
        m.impression_id,
        m.event_type,
        max(
            case
                when t.interest < 0 then -0.2
                when t.value_low is null or t.value_high is null or m.value is null then t.satisfaction
                else greatest(0.0, least(1.0, (m.value - t.value_low) / (t.value_high - t.value_low)))
            end
        ) as value
    from matched as m
    inner join m6.event_types as t on m.event_type = t.event_type
    group by m.impression_id, m.event_type
),

rewards as (
    select impression_id, sum(value) as reward
    from graded
    group by impression_id
),

impression_rewards as (
    select
        i.impression_id,
        i.request_id,
        i.user_id,
        i.rank,
        i.strategy,
        i.supporters,
        i.eligible,
        i.propensity,
        i.policy_version,
        coalesce(i.domain, '*') as domain,
        coalesce(i.segment, '*') as segment,
        i.shown_at,
        r.impression_id is not null as is_answered,
        coalesce(r.reward, 0.0) as reward
    from m6.impressions as i
    left join rewards as r on i.impression_id = r.impression_id
    where i.supporters > 0 and i.strategy <> 'pinned'
)

select * from impression_rewards
