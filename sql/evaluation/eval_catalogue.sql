-- one row per item that existed at $as_of: its share of users, for coverage, novelty and concentration
with

items as (
    select item_id
    from m6.items
    where created_at <= $as_of
),

events as (
    select item_id
    from eval_events
    where happened_at <= $as_of
),

history as (
    select user_id, item_id
    from eval_history
),

popularity as (
    select item_id, count(distinct user_id) as n_users
    from history
    group by item_id
),

everyone as (
    select greatest(count(distinct user_id), 1) as n_users
    from history
),

known as (
    select item_id from items
    union
    select item_id from events
),

catalogue as (
    select
        known.item_id,
        coalesce(popularity.n_users, 0) as n_users,
        greatest(coalesce(popularity.n_users, 0), 1) / everyone.n_users as user_share
    from known
    cross join everyone
    left join popularity on known.item_id = popularity.item_id
)

select * from catalogue
