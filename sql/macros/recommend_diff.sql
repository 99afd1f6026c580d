-- one row per item of either list: what one user gets from two builds, with the weights in force
create or replace macro m6.recommend_diff(
    for_user,
    version_a,
    version_b,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    exclude_seen := null,
    until := timestamp 'infinity'
) as table
with

compared_builds as materialized (
    select m6.model_number(version_a) as number_a, m6.model_number(version_b) as number_b
),

list_a as (
    select item_id, rank, satisfaction, strategy
    from m6.slates(
        [cast(for_user as varchar)],
        k := k,
        in_domain := in_domain,
        among := among,
        boosts := boosts,
        diversity := diversity,
        exclude_seen := exclude_seen,
        until := until,
        version := (select number_a from compared_builds)
    )
),

list_b as (
    select item_id, rank, satisfaction, strategy
    from m6.slates(
        [cast(for_user as varchar)],
        k := k,
        in_domain := in_domain,
        among := among,
        boosts := boosts,
        diversity := diversity,
        exclude_seen := exclude_seen,
        until := until,
        version := (select number_b from compared_builds)
    )
),

recommend_diff as (
    select
        item_id,
        i.title,
        a.rank as rank_a,
        b.rank as rank_b,
        a.rank - b.rank as moved,
        case
            when a.rank is null then 'only in b'
            when b.rank is null then 'only in a'
            when a.rank > b.rank then 'up'
            when a.rank < b.rank then 'down'
            else 'same'
        end as status,
        a.satisfaction as satisfaction_a,
        b.satisfaction as satisfaction_b,
        a.strategy as strategy_a,
        b.strategy as strategy_b
    from list_a as a
    full join list_b as b using (item_id)
    left join m6.items as i using (item_id)
)

select * from recommend_diff
order by coalesce(rank_b, 1000000000), rank_a, item_id;
comment on macro table m6.recommend_diff is 'One user''s lists by two builds, side by side: from m6.recommend_diff(''u42'', 1, 2)';
