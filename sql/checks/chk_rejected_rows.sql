-- one row per (table, reason): rows that did not fit the contract and were not loaded
-- remedy (warn): read m6.rejected_rows, correct the source, load it again
with

rejected as (select table_name, reason from m6.rejected_rows),

counted as (
    select table_name, reason, count(*) as rejected
    from rejected
    group by table_name, reason
)

select * from counted
order by rejected desc, table_name, reason
