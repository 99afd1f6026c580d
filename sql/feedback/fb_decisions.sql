-- one row per (domain, segment): the largest step the gate accepts, and whether the group goes back to the champion
with

accepted as (
    select domain, segment, max(step) as step
    from fb_gate
    where
        step = 0.0
        or (lists >= $min_lists and delta - $z * std_error >= -$margin * greatest(current_value, 0.0))
    group by domain, segment
),

full_step as (
    select * from fb_gate where step = 1.0
),

-- a group is worse than the champion by its own evidence, or all together are and it is among those that lose
evidence as (
    select
        g.domain,
        g.segment,
        g.low,
        g.high,
        g.high < 0 or (t.high < 0 and g.delta < 0) as is_worse
    from fb_evidence as g
    left join fb_evidence as t on t.domain = '' and t.segment = ''
    where g.domain <> ''
),

decisions as (
    select
        a.domain,
        a.segment,
        case
            when c.reason is not null then 'data_check_failed'
            when e.is_worse then 'rolled_back'
            when f.lists < $min_lists then 'insufficient_support'
            when a.step = 0.0 then 'kept'
            else 'accepted'
        end as status,
        case when c.reason is not null or e.is_worse then 0.0 else a.step end as step,
        f.lists,
        f.delta,
        f.std_error,
        f.value,
        f.current_value,
        f.largest_ratio,
        e.low as evidence_low,
        e.high as evidence_high,
        c.reason
    from accepted as a
    inner join full_step as f on a.domain = f.domain and a.segment = f.segment
    left join evidence as e on a.domain = e.domain and a.segment = e.segment
    left join fb_checks as c on a.domain = c.domain and a.segment = c.segment
)

select * from decisions order by domain, segment
