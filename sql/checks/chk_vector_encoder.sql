-- one row per item vector made by another encoder than the build in force
-- remedy (fail): run `m6rec build` with the encoder you want
with

built as (
    select models.encoder
    from m6.active as active
    inner join m6.models as models on active.model_version = models.model_version
),

other as (
    select vectors.item_id, vectors.encoder, built.encoder as built_encoder
    from m6.item_vectors as vectors
    inner join built on vectors.encoder <> built.encoder
)

select * from other
order by item_id
