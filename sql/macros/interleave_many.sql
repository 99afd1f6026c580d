-- one row per item shown to each user of a table: two rankers interleaved
create or replace macro m6.interleave_many(
    users_table,
    a := null,
    b := null,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null,
    seed := null,
    request := null,
    moment := null
) as table
select *
from m6.interleave_lists(
    (select list(distinct cast(user_id as varchar)) from query_table(users_table)),
    a := a,
    b := b,
    k := k,
    in_domain := in_domain,
    among := among,
    boosts := boosts,
    diversity := diversity,
    calibrated := calibrated,
    exclude_seen := exclude_seen,
    seed := seed,
    request := request,
    moment := moment
)
order by user_id, rank;
comment on macro table m6.interleave_many is 'Interleaved lists for every user_id of a table or view';
