-- one row per impression shown after $window_start, up to $window_end: y of what the user then did with the item
-- what happened counts for the last impression of the item before it, whether it came as feedback or as an event
with

impressions as (
    select
        impression_id,
        request_id,
        user_id,
        item_id,
        rank,
        propensity,
        shown_at
    from m6.impressions
    where shown_at > $window_start and shown_at <= $window_end
),

behaviour as (select * from satisfaction_in_force),

users as (select user_idx, user_id from stg_users),

items as (select item_idx, item_id from stg_items),

followed as (
    select
        i.*,
        lead(i.shown_at) over (partition by i.user_id, i.item_id order by i.shown_at, i.impression_id) as shown_again_at
    from impressions as i
),

answered as (
    select
        f.impression_id,
        case when min(b.interest) < 0 then 0.0 else max(b.satisfaction) end as satisfaction
    from followed as f
    inner join behaviour as b on f.user_id = b.user_id and f.item_id = b.item_id
    where
        b.happened_at >= f.shown_at
        and (f.shown_again_at is null or b.happened_at < f.shown_again_at)
    group by f.impression_id
),

labelled as (
    select
        f.impression_id,
        f.request_id,
        coalesce(u.user_idx, -1) as user_idx,
        i.item_idx,
        f.rank,
        f.propensity,
        f.shown_at,
        coalesce(a.satisfaction, 0.0) as satisfaction
    from followed as f
    inner join items as i on f.item_id = i.item_id
    left join users as u on f.user_id = u.user_id
    left join answered as a on f.impression_id = a.impression_id
)

select * from labelled
