-- one row per (item, next item): co-visitation with direction, distance and time decay, 100 best per item
--   over each user's latest 200 items; where users are many, over so many of each that there are some 2.5 million,
--   at least 5; items of the same moment come in an order of chance
with

pairs as (
    select
        user_idx,
        item_idx,
        last_at,
        last_days,
        (cast(user_idx as bigint) * 7919 + cast(item_idx as bigint) * 104729) % 2147483647 as mixed
    from feat_user_item
    where interest > 0
),

longest as (
    select least(200.0, greatest(5.0, 2500000.0 / count(*))) as positions
    from (select distinct user_idx from pairs) as users
),

ordered as (
    select
        user_idx,
        item_idx,
        pow(0.5, last_days / (0.25 * $span_days)) as recency,
        row_number() over (
            partition by user_idx
            order by last_at desc, (mixed * mixed) % 2147483647, item_idx
        ) as position
    from pairs
),

sequences as (
    select o.user_idx, o.item_idx, o.recency, o.position
    from ordered as o
    inner join longest as l on o.position <= l.positions
),

distances as (select unnest([1, 2, 3, 4, 5, 6, 7, 8]) as distance),

earlier as (
    select s.user_idx, s.item_idx, s.position - d.distance as next_position, d.distance
    from sequences as s
    inner join distances as d on s.position > d.distance
),

popularity as (
    select item_idx, count(*) as users
    from pairs
    group by item_idx
),

steps as (
    select
        e.item_idx,
        s.item_idx as next_item_idx,
        sum(s.recency / e.distance) as weight
    from earlier as e
    inner join sequences as s on e.user_idx = s.user_idx and e.next_position = s.position
    group by e.item_idx, s.item_idx
),

both_ways as (
    select item_idx, next_item_idx, weight from steps
    union all
    select next_item_idx as item_idx, item_idx as next_item_idx, 0.6 * weight as weight from steps
),

summed as (
    select item_idx, next_item_idx, sum(weight) as weight
    from both_ways
    group by item_idx, next_item_idx
),

normalised as (
    select
        s.item_idx,
        s.next_item_idx,
        s.weight / (pow(a.users, 0.5) * pow(b.users + 5.0, 0.3)) as weight
    from summed as s
    inner join popularity as a on s.item_idx = a.item_idx
    inner join popularity as b on s.next_item_idx = b.item_idx
),

best as (
    select
        item_idx,
        next_item_idx,
        weight,
        row_number() over (partition by item_idx order by round(weight, 9) desc, next_item_idx) as neighbour_rank
    from normalised
    qualify neighbour_rank <= 100
)

select * from best
