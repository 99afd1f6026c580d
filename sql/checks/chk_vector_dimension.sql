-- one row per item vector whose length differs from that of most item vectors
-- remedy (fail): run `m6rec build`: it writes every vector with one encoder
with

lengths as (select item_id, len(vector) as dimension from m6.item_vectors),

usual as (select mode(dimension order by dimension) as dimension from lengths),

odd as (
    select lengths.item_id, lengths.dimension, usual.dimension as usual_dimension
    from lengths
    inner join usual on lengths.dimension <> usual.dimension
)

select * from odd
order by item_id
