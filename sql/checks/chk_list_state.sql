-- one row per fact in m6.list_state that is not what the tables say: lists are made with another one
-- remedy (fail): insert or replace into m6.list_state from m6.list_state_now; then see duckdb_triggers()
with

wrong as (
    select
        found.name,
        kept.content as kept,
        found.content as expected
    from m6.list_state_now as found
    left join m6.list_state as kept on found.name = kept.name
    where kept.content is distinct from found.content
)

select * from wrong
order by name
