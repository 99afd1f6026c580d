-- one row per user with behaviour or a row in m6.users
select distinct user_id from m6.behaviour
union
select user_id from m6.users
