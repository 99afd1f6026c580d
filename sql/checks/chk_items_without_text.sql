-- one row per item without title, description, category, brand or tags: the encoder cannot place it
-- remedy (warn): give the items a title or a description, then build
with

items as (select item_id, title, description, category, brand, tags from m6.items),

without_text as (
    select item_id
    from items
    where
        concat(trim(title), trim(description), trim(category), trim(brand), trim(array_to_string(tags, ''))) = ''
)

select * from without_text
order by item_id
