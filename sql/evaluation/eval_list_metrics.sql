-- one row per (method, slice): share of the catalogue that appears in the lists, and how unevenly (Gini)
with

users as (
    select user_id, slice from eval_users
    union all
    select user_id, 'all' as slice from eval_users
),

lists as (
    select method, user_id, item_id
    from eval_lists
    where rank <= $k
),

catalogue as (
    select item_id
    from eval_catalogue
),

n_catalogue as (
    select count(*) as n_items
    from catalogue
),

shown as (
    select lists.method, users.slice, lists.item_id, count(*) as n_shown
    from lists
    inner join users on lists.user_id = users.user_id
    semi join catalogue on lists.item_id = catalogue.item_id
    group by lists.method, users.slice, lists.item_id
),

-- items never shown come first in the order from rare to frequent; they add nothing to the sum
positions as (
    select
        shown.method,
        shown.slice,
        shown.n_shown,
        n_catalogue.n_items,
        n_catalogue.n_items - count(*) over (partition by shown.method, shown.slice)
        + row_number() over (partition by shown.method, shown.slice order by shown.n_shown, shown.item_id) as position
    from shown
    cross join n_catalogue
),

metrics as (
    select
        method,
        slice,
        count(*) / any_value(n_items) as coverage,
        sum((2 * position - n_items - 1) * n_shown) / (any_value(n_items) * sum(n_shown)) as gini
    from positions
    group by method, slice
)

select * from metrics
