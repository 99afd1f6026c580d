-- seconds since 1970 of the moment a list is asked for; NULL for infinity: the build's, or the user's last behaviour
create or replace macro m6.asked_moment(at_moment) as
    case when isfinite(cast(at_moment as timestamp)) then epoch(cast(at_moment as timestamp)) end;
comment on macro m6.asked_moment is 'seconds since 1970 of the moment a list is asked for, NULL where none is named';
