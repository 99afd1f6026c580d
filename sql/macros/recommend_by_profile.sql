-- one row per item new to the user whose text is near the user's profile (m6.users); without a profile, none
create or replace macro m6.recommend_by_profile(for_user, k := 10, in_domain := null, among := 'm6.available_items') as table
with

person as (
    select nullif(trim(u.profile), '') as profile
    from m6.users as u
    where u.user_id = cast(for_user as varchar)
),

seen as (select distinct b.item_id from m6.behaviour as b where b.user_id = cast(for_user as varchar))

select n.item_id, n.title, row_number() over (order by n.score desc, n.item_id) as rank, n.score, n.domain
from m6.nearest_items(
    (select m6_embed(p.profile) from person as p where p.profile is not null),
    k := k + (select count(*) from seen),
    in_domain := in_domain,
    among := among
) as n
anti join seen as s on n.item_id = s.item_id
order by rank
limit k;
comment on macro table m6.recommend_by_profile is 'Items whose text is near the profile that m6.users holds of a user';
