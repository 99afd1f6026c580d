-- one row per figure that a monitor watches: its name, its labels, its value and what it means
with

active as (
    select
        a.model_version,
        a.policy_version,
        m.as_of,
        m.created_at,
        m.event_seq,
        m.feedback_seq
    from m6.active as a
    left join m6.models as m on a.model_version = m.model_version
),

table_rows as (
    select 'events' as table_name, count(*) as total from m6.events
    union all
    select 'items' as table_name, count(*) as total from m6.items
    union all
    select 'users' as table_name, count(*) as total from m6.users
    union all
    select 'impressions' as table_name, count(*) as total from m6.impressions
    union all
    select 'feedback' as table_name, count(*) as total from m6.feedback
    union all
    select 'rejected_rows' as table_name, count(*) as total from m6.rejected_rows
),

unbuilt as (
    select 'events' as table_name, count(*) as total
    from m6.events as e
    cross join active as a
    where e.event_seq > a.event_seq
    union all
    select 'feedback' as table_name, count(*) as total
    from m6.feedback as f
    cross join active as a
    where f.feedback_seq > a.feedback_seq
),

last_run as (
    select run_id from m6.runs
    where kind = 'evaluate' and status = 'done'
    order by started_at desc, run_id
    limit 1
),

evaluated as (
    select k.metric, k.value
    from m6.metrics as k
    inner join last_run as l on k.run_id = l.run_id
    where k.method = 'm6rec' and k.slice = 'all'
),

gathered as (
    select
        'm6_rows' as name,
        map(['table'], [table_name]) as labels,
        cast(total as double) as value,
        'rows of a contract table' as meaning
    from table_rows
    union all
    select
        'm6_unbuilt_rows' as name,
        map(['table'], [table_name]) as labels,
        cast(total as double) as value,
        'rows newer than the build in force' as meaning
    from unbuilt
    union all
    select
        'm6_model_version' as name,
        map([], []) as labels,
        cast(model_version as double) as value,
        'build in force' as meaning
    from active
    union all
    select
        'm6_policy_version' as name,
        map([], []) as labels,
        cast(policy_version as double) as value,
        'strategy weights in force' as meaning
    from active
    union all
    select
        'm6_build_as_of_seconds' as name,
        map([], []) as labels,
        epoch(as_of) as value,
        'latest behaviour the build in force has read, seconds since 1970' as meaning
    from active
    union all
    select
        'm6_built_at_seconds' as name,
        map([], []) as labels,
        epoch(created_at) as value,
        'when the build in force was made, seconds since 1970' as meaning
    from active
    union all
    select
        'm6_strategy_weight' as name,
        map(['domain', 'segment', 'strategy'], [domain, segment, strategy]) as labels,
        weight as value,
        'weight of a strategy in force' as meaning
    from m6.strategy_weights_active
    union all
    select
        'm6_evaluation' as name,
        map(['metric'], [metric]) as labels,
        value,
        'figure of the latest evaluation' as meaning
    from evaluated
)

select name, labels, value, meaning
from gathered
where value is not null
order by name, cast(labels as varchar)
