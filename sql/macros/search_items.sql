-- one row per item whose text is near the query's
create or replace macro m6.search_items(query_text, k := 10, in_domain := null, among := 'm6.available_items') as table
select * from m6.nearest_items(m6_embed(cast(query_text as varchar)), k := k, in_domain := in_domain, among := among);
comment on macro table m6.search_items is 'Items whose text is near a query in words';
