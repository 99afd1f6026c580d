-- one row per item: the catalogue as known at $as_of, with the text the encoder reads
with

named as (
    select
        item_id,
        domain,
        title,
        description,
        category,
        brand,
        tags,
        price,
        created_at,
        is_available
    from m6.items
),

unnamed as (
    select
        e.item_id,
        'default' as domain,
        cast(null as varchar) as title,
        cast(null as varchar) as description,
        cast(null as varchar) as category,
        cast(null as varchar) as brand,
        cast(null as varchar[]) as tags,
        cast(null as double) as price,
        cast(null as timestamp) as created_at,
        true as is_available
    from (select distinct item_id from m6.events where happened_at <= $as_of) as e
    anti join m6.items as i on e.item_id = i.item_id
),

catalogue as (
    select * from named
    union all
    select * from unnamed
),

banded as (
    select
        item_id,
        ntile(5) over (partition by domain order by price, item_id) as price_band
    from catalogue
    where price is not null
),

numbered as (
    select
        cast(row_number() over (order by c.item_id) - 1 as integer) as item_idx,
        c.item_id,
        c.domain,
        c.title,
        c.category,
        c.brand,
        c.tags,
        c.price,
        c.created_at,
        c.is_available,
        coalesce(c.created_at <= $as_of, true) as is_known,
        case b.price_band
            when 1 then 'very cheap' when 2 then 'cheap' when 3 then 'medium' when 4 then 'expensive'
            when 5 then 'very expensive'
        end as price_band,
        concat_ws(
            '. ',
            nullif(trim(c.title), ''),
            'by ' || nullif(trim(c.brand), ''),
            nullif(trim(replace(c.category, '|', ', ')), ''),
            nullif(array_to_string(c.tags, ', '), ''),
            'price ' || case b.price_band
                when 1 then 'very cheap' when 2 then 'cheap' when 3 then 'medium' when 4 then 'expensive'
                when 5 then 'very expensive'
            end,
            nullif(trim(left(c.description, 2000)), '')
        ) as item_text
    from catalogue as c
    left join banded as b on c.item_id = b.item_id
)

select * from numbered
