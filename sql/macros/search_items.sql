-- one row per item near a query in words: by its text, and by every vector column that reads words; in_column := 'picture' asks one
create or replace macro m6.search_items(query_text, k := 10, in_domain := null, among := 'm6.available_items', in_column := null) as table
select *
from m6.nearest_items(
    (select m6_query(a.model_version, cast(query_text as varchar), cast(in_column as varchar)) from m6.active_version as a),
    k := k,
    in_domain := in_domain,
    among := among
);
comment on macro table m6.search_items is 'Items near a query in words, by text and other vector columns';
