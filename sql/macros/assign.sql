-- arm of a user in an experiment: 'b' for `share` of the people, else 'a'
-- SHA-256 of both names: the same in every version of DuckDB
create or replace macro m6.assign(for_user, experiment, share := 0.5) as
    case
        when for_user is null or experiment is null then null
        when
            cast('0x' || substr(
                sha256(
                    len(cast(experiment as varchar)) || ':' || cast(experiment as varchar)
                    || ':' || cast(for_user as varchar)
                ),
                1,
                13
            ) as bigint) / 4503599627370496.0 < share
            then 'b'
        else 'a'
    end;
comment on macro m6.assign is 'arm of a user in an experiment, a or b: select m6.assign(''u42'', ''new_weights'', share := 0.5)';
