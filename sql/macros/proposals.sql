-- one row per user of the list with anything to say: what SQL says of items to them, as the Python core reads it
--   a strategy's bit: the strategy proposes the item; 126: it is never shown, being the person that blocked the user, that
--   the user blocked, or the user; persons are the items of the domain people, their item_id is a user_id
create or replace macro m6.proposals(of_users, of_version) as table
with

requested as (
    select distinct unnest(of_users) as user_id
),

blocks as (
    select user_id, other_user_id
    from m6.relations
    where kind = 'blocks'
    union all
    select other_user_id as user_id, user_id as other_user_id
    from m6.relations
    where kind = 'blocks'
),

said as (
    select user_id, item_id, bit
    from m6.extra_candidates
    where model_version = of_version and user_id in (select user_id from requested)
    union
    select user_id, other_user_id as item_id, cast(126 as utinyint) as bit
    from blocks
    where user_id in (select user_id from requested)
    union
    select user_id, user_id as item_id, cast(126 as utinyint) as bit
    from requested
    where exists (select 1 from m6.items where domain = 'people')
)

select user_id, list(struct_pack(item_id := item_id, bit := bit) order by bit, item_id) as proposals
from said
group by user_id;
comment on macro table m6.proposals is 'What SQL says of items to a list of users: proposals of strategies, and persons never shown to them';
