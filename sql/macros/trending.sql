-- one row per item, most behaviour lately first
create or replace macro m6.trending(k := 10, in_domain := null) as table
select
    a.item_id,
    i.title,
    row_number() over (order by round(a.trend_short + a.trend_medium, 6) desc, a.item_id) as rank,
    a.trend_short + a.trend_medium as raw_score,
    a.domain
from m6.feat_item_activity as a
left join m6.items as i on a.item_id = i.item_id
where (in_domain is null or a.domain = in_domain) and coalesce(i.is_available, true) and a.events > 0
order by rank
limit k;
comment on macro table m6.trending is 'Items with the most behaviour lately, exponentially decayed';
