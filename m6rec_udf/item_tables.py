"""Tables of a build that come from its arrays: what was learned about items, and their text vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.embed import lists
from m6rec_udf.item_models import ARTEFACTS, MATRIX
from m6rec_udf.query import one

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb
    import scipy.sparse as sp

    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.build_state import State


ITEM_TABLES = ("item_neighbours", "item_factors", "item_trend", "item_text_vectors")


def write_item_tables(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, prefix: str) -> None:
    """What Python learned about items, as the tables the strategies' SQL reads.

    item_neighbours(item_idx, next_item_idx, weight), item_factors(item_idx, factors, fold_in),
    item_trend(item_idx, trend_factor), item_text_vectors(item_idx, vector). Tables of the version before stay where
    nothing that they were made from is new.
    """
    import pyarrow as pa

    index = np.arange(snapshot.n, dtype=np.int32)
    tables: dict[str, Callable[[], dict[str, Any]]] = {
        "item_neighbours": lambda: _neighbours(snapshot.item_item),
        "item_factors": lambda: {
            "item_idx": index,
            "factors": lists(snapshot.factors),
            "fold_in": lists(snapshot.fold_in),
        },
        "item_trend": lambda: {"item_idx": index, "trend_factor": snapshot.trend_factor},
        "item_text_vectors": lambda: {"item_idx": index, "vector": lists(snapshot.text)},
    }
    for name, columns in tables.items():
        if prefix and (name == "item_text_vectors" or _is_there(con, snapshot, name)):
            continue  # m6.item_text_vectors is a view of m6.item_vectors
        con.register("m6_arrays", pa.table(columns()))
        kind = "table" if prefix else "temp table"
        con.execute(f"create or replace {kind} {prefix}{name} as select * from m6_arrays")
        con.unregister("m6_arrays")


def _neighbours(weights: sp.csr_matrix) -> dict[str, np.ndarray]:
    """Columns of item_neighbours."""
    matrix = weights.tocsr()
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    return {"item_idx": row, "next_item_idx": matrix.indices.astype(np.int32), "weight": matrix.data}


def _is_there(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, name: str) -> bool:
    """Whether the table of the version in force says the same: what it was made from is kept, and it has all rows."""
    made_from = {"item_neighbours": MATRIX, "item_factors": ARTEFACTS}.get(name, ("",))
    if not set(made_from) <= set(snapshot.kept):
        return False
    rows = snapshot.item_item.nnz if name == "item_neighbours" else snapshot.n
    is_table = one(
        con,
        "select 1 from duckdb_tables() where schema_name = 'm6' and database_name = current_database() "
        "and table_name = ?",
        [name],
    )[0]
    return bool(is_table) and one(con, f"select count(*) from m6.{name}")[0] == rows


def write_vectors(state: State) -> None:
    """Text vectors of the items; those that are there already stay as they are."""
    import pyarrow as pa

    frame = pa.table(
        {
            "item_id": pa.array(state.items["item_ids"], pa.string()),
            "encoder": pa.array([state.settings.encoder] * len(state.text), pa.string()),
            "content_hash": pa.array(state.items["hashes"], pa.string()),
            "vector": lists(state.text),
        }
    )
    keys = "using (item_id, encoder, content_hash)"
    state.con.register("m6_item_vectors", frame)
    state.con.execute(
        "delete from m6.item_vectors where item_id in "
        f"(select v.item_id from m6.item_vectors as v anti join m6_item_vectors as f {keys})"
    )
    state.con.execute(f"insert into m6.item_vectors from m6_item_vectors as f anti join m6.item_vectors as v {keys}")
    state.con.unregister("m6_item_vectors")
