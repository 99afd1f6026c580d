-- one row per (user, item): most behaviour over all time
with

users as (select user_idx from candidate_users),

items as (select item_idx, events as raw_score from feat_item_activity where events > 0),

proposed as (
    select u.user_idx, i.item_idx, cast(i.raw_score as double) as raw_score
    from users as u
    cross join items as i
)

select * from proposed
