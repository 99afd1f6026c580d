-- the number of a policy: 'candidate', 'active', 'champion', 'policy_4' or 4; an error names what exists
create or replace macro m6.policy_number(policy_name) as
    case
        when cast(policy_name as varchar) = 'active' then (select policy_version from m6.active)
        when cast(policy_name as varchar) = 'champion'
            then (select max(policy_version) from m6.policy_versions where status = 'champion')
        when cast(policy_name as varchar) = 'candidate'
            then coalesce(
                (
                    select max(p.policy_version)
                    from m6.policy_versions as p
                    where
                        p.status in ('candidate', 'shadow')
                        and p.policy_version > (select coalesce(max(v.policy_version), 0) from m6.active as v)
                ),
                cast(
                    error(
                        'there is no candidate, expected a shadow or candidate version newer than the one in force'
                        || chr(10) || 'Hint: run m6rec_udf.reweight(con), or name a version of m6.policy_versions'
                    ) as bigint
                )
            )
        when list_contains(
            (select list(distinct w.policy_version) from m6.strategy_weights as w),
            try_cast(regexp_replace(cast(policy_name as varchar), '^policy_', '') as bigint)
        )
            then cast(regexp_replace(cast(policy_name as varchar), '^policy_', '') as bigint)
        else cast(
            error(
                'there is no policy ' || coalesce(cast(policy_name as varchar), 'NULL') || ' with weights, '
                || 'expected candidate, active, champion or one of '
                || coalesce(
                    (
                        select string_agg(cast(n.policy_version as varchar), ', ' order by n.policy_version)
                        from (select distinct w.policy_version from m6.strategy_weights as w) as n
                    ),
                    '(none)'
                )
                || chr(10) || 'Hint: see m6.policy_versions'
            ) as bigint
        )
    end;
comment on macro m6.policy_number is 'number of a policy named candidate, active, champion, policy_4 or 4';
