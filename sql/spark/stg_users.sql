-- one row per user: everybody with a row in users or behaviour up to $as_of
--   on Spark row_number() over all rows is the work of one task: users are dealt out to parts by bounds from a sample
--   of their ids, numbered inside their part, and what came before is added; the numbers are those of row_number(),
--   whatever the sample
with

everybody as (
    select user_id from stg_behaviour
    union
    select user_id from m6.users
),

samples as (
    select array_sort(collect_list(user_id)) as ids
    from everybody
    where pmod(xxhash64(user_id), 256) = 0
),

bounds as (
    select transform(sequence(1, 31), n -> get(ids, cast(floor(n * size(ids) / 32) as int))) as ids
    from samples
),

dealt as (
    select
        e.user_id,
        size(filter(b.ids, id -> id < e.user_id)) as part
    from everybody as e
    cross join bounds as b
),

sizes as (
    select part, count(*) as users
    from dealt
    group by part
),

starts as (
    select a.part, coalesce(sum(b.users), 0) as before
    from sizes as a
    left join sizes as b on a.part > b.part
    group by a.part
),

numbered as (
    select
        cast(s.before + row_number() over (partition by d.part order by d.user_id) - 1 as integer) as user_idx,
        d.user_id,
        coalesce(u.segment, '*') as segment
    from dealt as d
    inner join starts as s on d.part = s.part
    left join m6.users as u on d.user_id = u.user_id
)

select * from numbered
