-- one ranker of an interleaved list: 'version_3' (or '3') is a build under the weights in force,
-- 'policy_4' strategy weights with the build in force
create or replace macro m6.ranker(ranker_name) as
    case
        when starts_with(cast(ranker_name as varchar), 'policy_')
            then struct_pack(
                label := 'policy_' || m6.policy_number(ranker_name),
                of_version := cast(null as bigint),
                of_policy := m6.policy_number(ranker_name)
            )
        else struct_pack(
            label := 'version_' || m6.model_number(ranker_name),
            of_version := m6.model_number(ranker_name),
            of_policy := cast(null as bigint)
        )
    end;
comment on macro m6.ranker is 'label, build and policy of a ranker named version_3 or policy_4';
