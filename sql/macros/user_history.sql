-- one row per user of the list: behaviour up to `until`, events and feedback alike, as the Python core reads it
--   what the build has read is stored (m6.stored_histories); what came later is put behind it, what was edited is read afresh
create or replace macro m6.user_history(user_list, until := timestamp 'infinity') as table
with

requested as (select distinct unnest(user_list) as user_id),

edited as (
    select r.user_id
    from requested as r
    where
        r.user_id in (select user_id from m6.edited_users where user_id is not null)
        or exists (select 1 from m6.edited_users where user_id is null)
),

clock as (
    select
        until = timestamp 'infinity' as is_open,
        epoch(until) as seconds
),

unpacked as (
    select s.user_id, m6_unpacked_history(m.model_version, s.history) as history
    from m6.stored_histories as s
    cross join m6.history_marks as m
    where s.user_id in (select user_id from requested) and s.user_id not in (select user_id from edited)
),

stored as (
    select
        s.user_id,
        case
            when c.is_open then s.history
            else list_filter(s.history, lambda h: h.happened_at <= c.seconds)
        end as history
    from unpacked as s
    cross join clock as c
),

behaviour as (
    select user_id, item_id, interest, satisfaction, happened_at
    from m6.recent_behaviour
    where
        user_id in (select user_id from requested)
        and user_id not in (select user_id from edited)
        and happened_at <= until
    union all
    select user_id, item_id, interest, satisfaction, happened_at
    from m6.behaviour
    where user_id in (select user_id from edited) and happened_at <= until
),

gathered as (
    select
        user_id,
        m6.history_list(item_id, interest, satisfaction, happened_at) as history
    from behaviour
    group by user_id
),

joined as (
    select
        r.user_id,
        case
            when s.history is null or len(s.history) = 0 then g.history
            when g.history is null then s.history
            else list_transform(
                list_sort(
                    list_transform(
                        list_concat(s.history, g.history),
                        lambda h: struct_pack(
                            a := h.happened_at, b := h.item_id, c := h.interest, d := h.satisfaction
                        )
                    )
                ),
                lambda h: struct_pack(item_id := h.b, interest := h.c, satisfaction := h.d, happened_at := h.a)
            )
        end as history
    from requested as r
    left join stored as s on r.user_id = s.user_id
    left join gathered as g on r.user_id = g.user_id
)

select
    j.user_id,
    coalesce(u.segment, '*') as segment,
    j.history
from joined as j
left join m6.users as u on j.user_id = u.user_id;
comment on macro table m6.user_history is 'Behaviour of a list of users as lists of structs, up to a moment';
