-- one row per (table, column): what every table and column of the schema means
with

tables as (
    select
        table_name,
        null as column_name,
        comment,
        0 as column_index
    from duckdb_tables()
    where schema_name = 'm6' and database_name = current_database()
),

columns as (
    select
        table_name,
        column_name,
        comment,
        column_index
    from duckdb_columns()
    where schema_name = 'm6' and database_name = current_database() and not internal
),

both_kinds as (
    select * from tables
    union all
    select * from columns
)

select table_name, column_name, comment
from both_kinds
order by table_name, column_index
