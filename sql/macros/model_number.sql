-- the number of a build: 'version_3', '3' or 3; an error names the builds that are kept
create or replace macro m6.model_number(build_name) as
    case
        when list_contains(
            (select list(distinct v.model_version) from m6.artefacts as v),
            try_cast(regexp_replace(cast(build_name as varchar), '^version_', '') as bigint)
        )
            then cast(regexp_replace(cast(build_name as varchar), '^version_', '') as bigint)
        else cast(
            error(
                'there is no build ' || coalesce(cast(build_name as varchar), 'NULL') || ', expected one of '
                || coalesce(
                    (
                        select string_agg('version_' || n.model_version, ', ' order by n.model_version)
                        from (select distinct v.model_version from m6.artefacts as v) as n
                    ),
                    '(none)'
                )
                || chr(10) || 'Hint: m6.models lists every build; the files of the latest three are kept'
            ) as bigint
        )
    end;
comment on macro m6.model_number is 'number of a build named version_3 or 3, where its files are still there';
