-- one row per (item, next item): co-visitation with direction, distance and time decay, 100 best per item
with

pairs as (
    select user_idx, item_idx, last_at, last_days
    from feat_user_item
    where interest > 0
),

sequences as (
    select
        user_idx,
        item_idx,
        last_days,
        row_number() over (partition by user_idx order by last_at desc, hash(user_idx, item_idx), item_idx) as position
    from pairs
    qualify position <= 200
),

popularity as (
    select item_idx, count(*) as users
    from pairs
    group by item_idx
),

steps as (
    select
        a.item_idx,
        b.item_idx as next_item_idx,
        sum(pow(0.5, b.last_days / (0.25 * $span_days)) / (a.position - b.position)) as weight
    from sequences as a
    inner join sequences as b
        on a.user_idx = b.user_idx and b.position < a.position and b.position >= a.position - 8
    group by a.item_idx, b.item_idx
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
