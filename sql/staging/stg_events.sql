-- one row per behaviour up to $as_of, keyed by integers, sorted by user and time: what every feature reads
with

behaviour as (select * from satisfaction_in_force),

users as (select user_idx, user_id from stg_users),

items as (select item_idx, item_id from stg_items),

keyed as (
    select
        u.user_idx,
        i.item_idx,
        b.event_type,
        cast(b.interest as float) as interest,
        cast(b.satisfaction as float) as satisfaction,
        cast(b.satisfaction as float) >= cast($positive_at as float) as is_positive,
        b.happened_at,
        date_diff('second', b.happened_at, $as_of) / 86400.0 as age_days
    from behaviour as b
    inner join users as u on b.user_id = u.user_id
    inner join items as i on b.item_id = i.item_id
    where b.happened_at <= $as_of
)

select * from keyed
order by user_idx, happened_at, item_idx, interest, satisfaction, event_type
