-- one row per (basket, item) that would go into the baskets of a table (basket, items, user_id or NULL), best first
--   by what was taken together before, what is in demand, and what the customer has taken before; a basket of which the
--   build has learned nothing is behaviour of this moment, behind the customer's history, and the list is what would
--   come next; what is in the basket already is left out, what was bought earlier is not
create or replace macro m6.complete_baskets(
    baskets_table,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    as_event := 'cart'
) as table
with

baskets as (
    select
        cast(basket as varchar) as basket,
        cast(user_id as varchar) as user_id,
        list_distinct(cast(items as varchar[])) as items
    from query_table(baskets_table)
),

active as materialized (
    select
        a.model_version,
        coalesce(a.policy_version, 0) as policy_version,
        epoch(m.as_of) as as_of
    from m6.active_version as a
    inner join m6.models as m on a.model_version = m.model_version
),

kind as (select interest, satisfaction from m6.event_types where event_type = as_event),

sets as (select allowed, blocked, boosted from m6.item_sets(among, boosts)),

people as (
    select user_id, segment, history
    from m6.user_history(
        (
            select list(distinct cast(user_id as varchar))
            from query_table(baskets_table)
            where user_id is not null
        )
    )
),

extra as (
    select user_id, proposals
    from m6.proposals((select list(user_id) from people), (select model_version from active))
),

placed as (
    select
        b.basket,
        b.user_id,
        b.items,
        coalesce(p.segment, '*') as segment,
        coalesce(p.history, []) as earlier,
        greatest(a.as_of, coalesce(list_max(list_transform(p.history, lambda h: h.happened_at)), a.as_of)) as moment
    from baskets as b
    cross join active as a
    left join people as p on b.user_id = p.user_id
),

weights as (
    select segment, weights
    from m6.policy_weights((select policy_version from active), cast(in_domain as varchar))
),

listed as (
    select
        p.basket,
        p.items,
        unnest(
            m6_basket_lists(
                a.model_version,
                p.segment,
                p.earlier,
                p.items,
                list_concat(
                    p.earlier,
                    list_transform(
                        list_sort(p.items),
                        lambda i: struct_pack(
                            item_id := i,
                            interest := cast(t.interest as float),
                            satisfaction := cast(t.satisfaction as float),
                            happened_at := p.moment
                        )
                    )
                ),
                e.proposals,
                coalesce(own.weights, everybody.weights),
                cast(in_domain as varchar),
                n.allowed,
                n.blocked,
                n.boosted,
                cast(k + (select coalesce(max(len(items)), 0) from baskets) as integer)
            )
        ) as slot
    from placed as p
    cross join active as a
    cross join kind as t
    cross join sets as n
    left join extra as e on p.user_id = e.user_id
    left join weights as own on p.segment = own.segment
    left join weights as everybody on everybody.segment = '*'
)

select
    x.basket,
    x.slot.item_id as item_id,
    n.title,
    cast(row_number() over (partition by x.basket order by x.slot.rank) as integer) as rank,
    x.slot.score as score,
    x.slot.satisfaction as satisfaction,
    x.slot.because_item_id as because_item_id,
    n.domain
from listed as x
left join m6.items as n on x.slot.item_id = n.item_id
where not list_contains(x.items, x.slot.item_id)
qualify rank <= k
order by x.basket, rank;
comment on macro table m6.complete_baskets is 'What goes into the baskets of a table (basket, items, user_id): the list of what would come next';
