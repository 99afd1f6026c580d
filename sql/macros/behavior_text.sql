-- a user's behaviour as plain text, the latest first: what an encoder or a generative model can read
create or replace macro m6.behavior_text(for_user, k := 20) as (
    select
        coalesce(
            string_agg(line, '; ' order by happened_at desc, item_id, event_type),
            'no behaviour yet'
        )
    from (
        select
            b.event_type || ' ' || coalesce(i.title, b.item_id)
            || case when b.value is not null and t.unit is not null then ' (' || round(b.value, 2) || ' ' || t.unit || ')' else '' end
            || ' ' || date_diff('day', b.happened_at, (select max(n.happened_at) from m6.behaviour as n)) || ' days ago'
            as line,
            b.happened_at,
            b.item_id,
            b.event_type
        from m6.behaviour as b
        left join m6.items as i on b.item_id = i.item_id
        left join m6.event_types as t on b.event_type = t.event_type
        where b.user_id = cast(for_user as varchar)
        order by b.happened_at desc, b.item_id, b.event_type
        limit k
    )
);
comment on macro m6.behavior_text is 'A user''s behaviour as plain text: select m6.behavior_text(''u42'')';
