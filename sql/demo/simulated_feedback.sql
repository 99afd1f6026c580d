-- one row per simulated click: an invented audience that likes its own categories and looks at the top of a list
with

shown as (
    select impression_id, user_id, item_id, rank, shown_at
    from m6.impressions
    where starts_with(request_id, $request || '-')
),

taste as (
    select u.user_id, c.category, c.share
    from m6.feat_user_category as c
    inner join m6.stg_users as u on c.user_idx = u.user_idx
),

chances as (
    select
        s.impression_id,
        s.shown_at,
        pow(0.9, s.rank - 1) * least(0.6, 0.05 + 6.0 * coalesce(t.share, 0.0)) as chance
    from shown as s
    left join m6.items as i on s.item_id = i.item_id
    left join taste as t on s.user_id = t.user_id and i.category = t.category
),

clicks as (
    select
        'simulated-' || impression_id as feedback_id,
        impression_id,
        'click' as event_type,
        shown_at + interval 1 minute as happened_at,
        shown_at + interval 2 minutes as ingested_at
    from chances
    where hash(impression_id) / 18446744073709551615.0 < chance
)

select * from clicks
