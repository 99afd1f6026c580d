-- one row per item shown by another system, with an estimated propensity: insert it into m6.impressions by name
-- for_log names a table or view with user_id, item_id, rank (slot, from 1) and shown_at (UTC)
-- propensity = (n(segment, rank, item) + 100 share(rank, item)) / (n(segment, rank) + 100): right only where the choice
-- of what to show looked at nothing but segment and slot
create or replace macro m6.impressions_from_log(for_log) as table
with

log as (
    select
        cast(l.user_id as varchar) as user_id,
        cast(l.item_id as varchar) as item_id,
        cast(l.rank as integer) as rank,
        cast(l.shown_at as timestamp) as shown_at,
        coalesce(u.segment, '*') as segment
    from query_table(for_log) as l
    left join m6.users as u on cast(l.user_id as varchar) = u.user_id
),

shares as (
    select rank, item_id, count(*) / sum(count(*)) over (partition by rank) as share
    from log
    group by rank, item_id
),

cells as (
    select segment, rank, item_id, count(*) as n, sum(count(*)) over (partition by segment, rank) as n_slot
    from log
    group by segment, rank, item_id
)

select
    md5(l.user_id || '|' || l.shown_at) || '-' || l.rank as impression_id,
    md5(l.user_id || '|' || l.shown_at) as request_id,
    l.user_id,
    l.item_id,
    l.rank,
    'logged elsewhere' as strategy,
    cast(0 as ubigint) as supporters,
    cast(0 as ubigint) as eligible,
    (c.n + 100 * s.share) / (c.n_slot + 100) as propensity,
    'estimated' as propensity_source,
    '*' as domain,
    l.segment,
    l.shown_at
from log as l
inner join cells as c on l.segment = c.segment and l.rank = c.rank and l.item_id = c.item_id
inner join shares as s on l.rank = s.rank and l.item_id = s.item_id;
comment on macro table m6.impressions_from_log is 'Impressions another system showed, with estimated propensities: they teach satisfaction, not the weights';
