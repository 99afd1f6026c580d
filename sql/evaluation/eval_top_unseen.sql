-- one row per (user_id, item_id): the $k best items of eval_item_scores that the user has not touched, rank from 1
with

positions as (
    select item_id, row_number() over (order by score desc, item_id) as position
    from eval_item_scores
),

users as (
    select eval_users.user_id, count(eval_touched.item_id) as n_touched
    from eval_users
    left join eval_touched on eval_users.user_id = eval_touched.user_id
    group by eval_users.user_id
),

offered as (
    select users.user_id, positions.item_id, positions.position
    from users
    inner join positions on positions.position <= users.n_touched + $k
),

unseen as (
    select offered.user_id, offered.item_id, offered.position
    from offered
    anti join eval_touched on offered.user_id = eval_touched.user_id and offered.item_id = eval_touched.item_id
),

ranked as (
    select
        user_id,
        item_id,
        cast(row_number() over (partition by user_id order by position) as integer) as rank
    from unseen
    qualify rank <= $k
)

select * from ranked
