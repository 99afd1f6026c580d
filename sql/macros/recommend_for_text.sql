-- one row per item for somebody known only by a sentence
create or replace macro m6.recommend_for_text(person_text, k := 10, in_domain := null, among := 'm6.available_items') as table
select * from m6.nearest_items(m6_embed(cast(person_text as varchar)), k := k, in_domain := in_domain, among := among);
comment on macro table m6.recommend_for_text is 'Items for somebody who says in words what they like';
