-- one row per user: everybody with a row in users or behaviour up to $as_of
with

everybody as (
    select user_id from stg_behaviour
    union
    select user_id from m6.users
),

numbered as (
    select
        cast(row_number() over (order by e.user_id) - 1 as integer) as user_idx,
        e.user_id,
        coalesce(u.segment, '*') as segment
    from everybody as e
    left join m6.users as u on e.user_id = u.user_id
)

select * from numbered
