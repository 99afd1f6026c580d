-- one row per item new to the user whose text is near the user's behaviour in words; without behaviour, none
create or replace macro m6.recommend_by_behavior_text(for_user, k := 10, in_domain := null, among := 'm6.available_items') as table
with seen as (select distinct b.item_id from m6.behaviour as b where b.user_id = cast(for_user as varchar))

select n.item_id, n.title, row_number() over (order by n.score desc, n.item_id) as rank, n.score, n.domain
from m6.nearest_items(
    m6_embed(m6.behavior_text(for_user)),
    k := k + (select count(*) from seen),
    in_domain := in_domain,
    among := among
) as n
anti join seen as s on n.item_id = s.item_id
where exists (select 1 from seen)
order by rank
limit k;
comment on macro table m6.recommend_by_behavior_text is 'Items whose text is near the text of a user''s behaviour';
