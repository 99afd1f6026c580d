-- one row per (user_id, item_id) liked after $as_of and up to $until, and not touched before: what lists should find
with

events as (
    select user_id, item_id
    from eval_events
    where is_interest and y >= $positive and happened_at > $as_of and happened_at <= $until
),

touched as (
    select user_id, item_id
    from eval_touched
),

discoveries as (
    select distinct events.user_id, events.item_id
    from events
    anti join touched on events.user_id = touched.user_id and events.item_id = touched.item_id
),

sampled_users as (
    select user_id
    from (select distinct user_id from discoveries)
    order by md5(user_id || '/' || $seed), user_id
    limit $max_users
),

targets as (
    select discoveries.user_id, discoveries.item_id
    from discoveries
    semi join sampled_users on discoveries.user_id = sampled_users.user_id
)

select * from targets
