-- one row per impression that can be learned from: what was observed so far (no forecast of late feedback)
select
    impression_id,
    request_id,
    user_id,
    rank,
    strategy,
    supporters,
    eligible,
    propensity,
    policy_version,
    domain,
    segment,
    shown_at,
    is_answered,
    reward
from m6.shown_rewards
where supporters > 0 and strategy <> 'pinned'
