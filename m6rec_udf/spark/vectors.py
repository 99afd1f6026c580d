"""Text vectors of items whose text is new, made by the executors with the encoder of the build."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from m6rec_udf.embed import BATCH_TEXTS, lists

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from m6rec_udf.embed import Encoder
    from m6rec_udf.spark.tables import Tables

_NEW = """
select text, sha2(text, 256) as content_hash
from (select distinct coalesce(item_text, '') as text from stg_items)
where sha2(text, 256) not in (select content_hash from known_texts)
order by length(text), text
"""
_SCHEMA = "content_hash string, vector array<float>"


def embed_new_texts(tables: Tables, con: duckdb.DuckDBPyConnection, encoder: Encoder) -> int:
    """Put the vectors of new item texts into m6.text_vectors, where the build finds them; how many."""
    name = encoder.name.replace("'", "''")
    tables.take(con, "known_texts", f"select content_hash from m6.text_vectors where encoder = '{name}'")
    session = tables.session
    shared = session.sparkContext.broadcast(encoder)

    def embedded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for start in range(0, batch.num_rows, 16 * BATCH_TEXTS):
                part = batch.slice(start, 16 * BATCH_TEXTS)
                vectors: Any = shared.value.encode(part["text"].to_pylist())
                yield pa.record_batch({"content_hash": part["content_hash"], "vector": lists(vectors)})

    tables.write("new_vectors", session.sql(_NEW).mapInArrow(embedded, _SCHEMA))
    shared.unpersist()
    tables.show(con, "new_vectors")
    con.execute(
        "insert into m6.text_vectors by name select cast(? as varchar) as encoder, content_hash, vector "
        "from new_vectors on conflict do nothing",
        [encoder.name],
    )
    return int(con.execute("select count(*) from new_vectors").fetchall()[0][0])
