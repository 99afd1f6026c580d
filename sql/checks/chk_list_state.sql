-- one row per fact in m6.list_state that is not what the tables say: lists are made with another one
-- remedy (fail): insert or replace into m6.list_state select name, coalesce(content, 'null') from m6.list_state_now; then see why its triggers are missing (from duckdb_triggers())
with

now_true as (select name, coalesce(content, 'null') as content from m6.list_state_now),

wrong as (
    select
        now_true.name,
        kept.content as kept,
        now_true.content as expected
    from now_true
    left join m6.list_state as kept on now_true.name = kept.name
    where kept.content is distinct from now_true.content
)

select * from wrong
order by name
