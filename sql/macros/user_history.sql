-- one row per user of the list: behaviour up to `until`, events and feedback alike, as the Python core reads it
create or replace macro m6.user_history(user_list, until := timestamp 'infinity') as table
with

requested as (select distinct unnest(user_list) as user_id),

behaviour as (
    select b.user_id, b.item_id, b.interest, b.satisfaction, b.happened_at
    from m6.behaviour as b
    where b.user_id in (select user_id from requested) and b.happened_at <= until
),

gathered as (
    select
        user_id,
        list(
            struct_pack(
                item_id := item_id,
                interest := cast(interest as float),
                satisfaction := cast(satisfaction as float),
                happened_at := epoch(happened_at)
            )
            order by happened_at, item_id, interest, satisfaction
        ) as history
    from behaviour
    group by user_id
)

select
    r.user_id,
    coalesce(u.segment, '*') as segment,
    g.history
from requested as r
left join gathered as g on r.user_id = g.user_id
left join m6.users as u on r.user_id = u.user_id;
comment on macro table m6.user_history is 'Behaviour of a list of users as lists of structs, up to a moment';
