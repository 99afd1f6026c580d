-- one row per (group, metric): two builds on the same users, beside what these liked after both; paired differences
--   interval: bootstrap over users; p_value: signs of the differences drawn at random; each row is a test of its own
create or replace macro m6.compare_versions(
    version_a,
    version_b,
    k := 10,
    after := null,
    until := timestamp 'infinity',
    positive := 0.75,
    repeats := false,
    max_users := 2000,
    seed := 0
) as table
with

compared_builds as materialized (
    select m6.model_number(version_a) as number_a, m6.model_number(version_b) as number_b
),

learned as (
    select max(m.as_of) as last_at
    from m6.models as m
    inner join compared_builds as v on m.model_version in (v.number_a, v.number_b)
),

compared_moment as materialized (
    select
        case
            when cast(after as timestamp) < l.last_at
                then cast(
                    error(
                        'after is ' || cast(after as timestamp) || ', expected no earlier than ' || l.last_at
                        || ', up to which one of the builds has read' || chr(10)
                        || 'Hint: leave after out, or build both as of an earlier moment'
                    ) as timestamp
                )
            else coalesce(cast(after as timestamp), l.last_at)
        end as asked_at
    from learned as l
),

wanting as (
    select distinct user_id
    from m6.held_out((select asked_at from compared_moment), until := until, positive := positive, repeats := repeats)
),

compared_users as materialized (
    select
        case
            when count(*) = 0
                then cast(
                    error(
                        'nobody liked an item new to them after ' || (select asked_at from compared_moment)
                        || ', expected some to judge by' || chr(10)
                        || 'Hint: m6rec_udf.build(con, as_of=..., activate=False) makes a version of an earlier moment'
                    ) as varchar []
                )
            else list(user_id order by user_id)
        end as user_ids
    from (
        select user_id
        from wanting
        order by md5(user_id || '/' || cast(seed as varchar)), user_id
        limit cast(max_users as bigint)
    )
),

lists_a as materialized (
    select user_id, item_id, rank
    from m6.slates(
        (select user_ids from compared_users),
        k := k,
        exclude_seen := not repeats,
        until := (select asked_at from compared_moment),
        version := (select number_a from compared_builds)
    )
),

lists_b as materialized (
    select user_id, item_id, rank
    from m6.slates(
        (select user_ids from compared_users),
        k := k,
        exclude_seen := not repeats,
        until := (select asked_at from compared_moment),
        version := (select number_b from compared_builds)
    )
),

users_a as (
    from m6.user_metrics(
        'lists_a',
        (select asked_at from compared_moment),
        until := until,
        k := k,
        positive := positive,
        repeats := repeats
    )
    where user_id in (select unnest(user_ids) from compared_users)
),

users_b as (
    from m6.user_metrics(
        'lists_b',
        (select asked_at from compared_moment),
        until := until,
        k := k,
        positive := positive,
        repeats := repeats
    )
    where user_id in (select unnest(user_ids) from compared_users)
),

long_a as (
    unpivot users_a on ndcg, recall, "precision", map, mrr, hit_rate, novelty, diversity into name metric value value
),

long_b as (
    unpivot users_b on ndcg, recall, "precision", map, mrr, hit_rate, novelty, diversity into name metric value value
),

paired as (
    select
        group_kind,
        group_name,
        metric,
        avg(a.value) as a,
        avg(b.value) as b,
        m6_resampled(list(cast(b.value - a.value as double) order by user_id), cast(seed as bigint)) as found,
        count(*) as n
    from long_a as a
    inner join long_b as b using (group_kind, group_name, user_id, metric)
    group by group_kind, group_name, metric
),

whole_a as (from m6.catalogue_metrics('lists_a', (select asked_at from compared_moment), k := k)),

whole_b as (from m6.catalogue_metrics('lists_b', (select asked_at from compared_moment), k := k)),

compared as (
    select
        group_kind,
        group_name,
        metric,
        a,
        b,
        found.mean as difference,
        found.low as low,
        found.high as high,
        found.p_value as p_value,
        n,
        case
            when found.p_value >= 0.05 then 'no difference shown'
            when found.mean > 0 then 'b is higher'
            else 'a is higher'
        end as verdict
    from paired
    union all
    select
        group_kind,
        group_name,
        metric,
        a.value,
        b.value,
        b.value - a.value,
        null,
        null,
        null,
        greatest(a.n, b.n),
        'not tested'
    from whole_a as a
    inner join whole_b as b using (group_kind, group_name, metric)
)

select * from compared
order by group_kind, group_name, metric;
comment on macro table m6.compare_versions is 'Two builds on the same users after both: every metric, paired interval, significance';
