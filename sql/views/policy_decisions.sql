-- one row per (policy_version, domain, segment): what m6.reweight decided there, and on which evidence
with

versions as (
    select
        policy_version,
        parent,
        period,
        as_of,
        status as version_status,
        unnest(
            from_json(
                decision -> '$.groups',
                '[{"domain": "VARCHAR", "segment": "VARCHAR", "status": "VARCHAR", "step": "DOUBLE", "lists": "BIGINT",
                "delta": "DOUBLE", "std_error": "DOUBLE", "value": "DOUBLE", "current_value": "DOUBLE",
                "largest_ratio": "DOUBLE", "evidence_low": "DOUBLE", "evidence_high": "DOUBLE", "reason": "VARCHAR"}]'
            )
        ) as decided
    from m6.policy_versions
    where decision is not null
),

policy_decisions as (
    select
        policy_version,
        parent,
        period,
        as_of,
        version_status,
        decided.domain as domain,
        decided.segment as segment,
        decided.status as decision,
        decided.step as step,
        decided.lists as lists,
        decided.delta as delta,
        decided.std_error as std_error,
        decided.value as value,
        decided.current_value as current_value,
        decided.largest_ratio as largest_ratio,
        decided.evidence_low as evidence_low,
        decided.evidence_high as evidence_high,
        decided.reason as reason
    from versions
)

select * from policy_decisions
