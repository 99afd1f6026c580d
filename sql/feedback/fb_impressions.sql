-- one row per impression of the window that can be learned from: pinned slots are left out
select
    i.impression_id,
    i.request_id,
    i.user_id,
    i.item_id,
    i.rank,
    coalesce(i.domain, '*') as domain,
    coalesce(i.segment, '*') as segment,
    i.strategy,
    i.supporters,
    i.eligible,
    i.propensity,
    i.policy_version,
    cast(floor(epoch(i.shown_at) / $period_seconds) as bigint) as period,
    cast(hash(i.user_id) % 4 as integer) as fold
from m6.impressions as i
where
    i.shown_at <= $as_of
    and floor(epoch(i.shown_at) / $period_seconds) > $last_period - $window
    and i.supporters > 0
    and i.strategy <> 'pinned'
