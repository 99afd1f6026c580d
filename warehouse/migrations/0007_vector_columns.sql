-- Named vector columns beside the text: pictures, sound, anything with vectors. Declared here, read by the next build.
create table m6.vector_columns (
    name varchar primary key,
    source varchar not null,
    encoder varchar,
    weight double not null default 1.0 check (weight > 0)
);
comment on table m6.vector_columns is 'one row per vector column of items beside the text; see m6rec_udf.add_vectors';
comment on column m6.vector_columns.name is 'picture, audio, ...';
comment on column m6.vector_columns.source is 'what the encoder reads: a column of m6.items or attributes.<key>; without an encoder a table with item_id and vector';
comment on column m6.vector_columns.encoder is 'name of the encoder; NULL: the vectors are in the table that source names';
comment on column m6.vector_columns.weight is 'weight of its cosine beside that of the text, which weighs 1';
