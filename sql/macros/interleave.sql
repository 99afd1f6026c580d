-- one row per item shown to one user: two rankers interleaved; insert it into m6.impressions by name
create or replace macro m6.interleave(
    for_user,
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
    [cast(for_user as varchar)],
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
order by rank;
comment on macro table m6.interleave is 'A list of two rankers in turn: insert into m6.impressions by name from m6.interleave(''u'', a := ''version_1'', b := ''version_2'')';
