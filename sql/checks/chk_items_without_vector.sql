-- one row per item that came after the build in force: found by its text only after the next one
-- remedy (warn): run `m6rec build`
with

built as (select model_version from m6.active where model_version is not null),

without_vector as (
    select items.item_id
    from m6.items as items
    cross join built
    anti join m6.item_vectors as vectors on items.item_id = vectors.item_id
)

select * from without_vector
order by item_id
