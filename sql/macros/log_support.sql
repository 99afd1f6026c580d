-- one row: whether a log of your own can say anything about a target policy
-- for_log: as for m6.log_value, with unsupported (share of the target on actions never logged) and is_estimated
create or replace macro m6.log_support(for_log) as table
with

support as (
    select
        sum(ratio) ^ 2 / nullif(sum(ratio * ratio), 0) as effective_sample_size,
        max(ratio) as largest_weight,
        avg(unsupported) as unsupported_share,
        avg(cast(is_estimated as integer)) as estimated_share
    from query_table(for_log)
),

judged as (
    select
        *,
        case
            when coalesce(effective_sample_size, 0) < 200
                then format('effective sample size {:.0f}, at least 200 needed', coalesce(effective_sample_size, 0))
            when unsupported_share > 0.05
                then format('{:.1f} % of the policy was never possible in the log', 100 * unsupported_share)
        end as problem,
        case
            when estimated_share > 0
                then format(
                    '{:.0f} % of the propensities are estimated from the log: right only where nothing but the context decided',
                    100 * estimated_share
                )
            else 'propensities as logged'
        end as note
    from support
)

select
    effective_sample_size,
    unsupported_share,
    largest_weight,
    case when problem is null then 'ok' else 'insufficient_support' end as status,
    coalesce(problem || '; ', '') || note as reason
from judged;
comment on macro table m6.log_support is 'Effective sample size, unsupported share and status of a log of your own under a target policy';
