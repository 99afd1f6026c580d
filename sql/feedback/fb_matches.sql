-- one row per feedback known at the moment: its impression, named (exact), found (inferred) or not (unmatched)
with

known as (
    select *
    from m6.feedback
    where happened_at <= $as_of and (ingested_at <= $as_of or not $is_cut)
),

exact as (
    select k.feedback_id, k.impression_id
    from known as k
    inner join m6.impressions as i on k.impression_id = i.impression_id
),

rest as (
    select * from known anti join exact using (feedback_id)
),

found as (
    select r.feedback_id, i.impression_id, i.shown_at, 1 as preference
    from rest as r
    inner join m6.impressions as i on r.request_id = i.request_id and r.item_id = i.item_id
    union all
    select r.feedback_id, i.impression_id, i.shown_at, 2 as preference
    from rest as r
    inner join m6.impressions as i on r.user_id = i.user_id and r.item_id = i.item_id
    where i.shown_at between r.happened_at - to_seconds($match_window_seconds) and r.happened_at
),

inferred as (
    select feedback_id, impression_id
    from found
    qualify row_number() over (partition by feedback_id order by preference, shown_at desc, impression_id) = 1
),

matched as (
    select
        k.feedback_id,
        coalesce(e.impression_id, f.impression_id) as impression_id,
        k.event_type,
        k.value,
        k.happened_at,
        case
            when k.ingested_at <= $as_of then greatest(k.happened_at, k.ingested_at)
            else k.happened_at
        end as arrived_at,
        case
            when e.impression_id is not null then 'exact'
            when f.impression_id is not null then 'inferred'
            else 'unmatched'
        end as matched_by
    from known as k
    left join exact as e using (feedback_id)
    left join inferred as f using (feedback_id)
)

select * from matched
