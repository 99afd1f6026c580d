"""Arrow arrays of the SQL functions as numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from m6rec_udf.arrays import Snapshot

HISTORY = "STRUCT(item_id VARCHAR, interest FLOAT, satisfaction FLOAT, happened_at DOUBLE)[]"
FEW_IDS = 20_000  # up to so many a dictionary is faster than an Arrow join


def whole(array: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array of what may come in chunks."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        return array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    return array


def offsets_of(lists: pa.ListArray) -> tuple[np.ndarray, pa.Array]:
    """(offsets from 0, flat values); NULL lists are empty."""
    length = np.asarray(lists.value_lengths().fill_null(0), np.int64)
    return np.concatenate([[0], np.cumsum(length)]), lists.flatten()


def numbers(array: pa.Array, fill: float | bool = 0.0) -> np.ndarray:
    """The values, NULL as ``fill``."""
    return np.asarray(array.fill_null(fill).to_numpy(zero_copy_only=False))


def item_index(snapshot: Snapshot, ids: pa.Array) -> np.ndarray:
    """item_idx of item_ids; -1 for items the build does not know."""
    import pyarrow.compute as pc

    if len(ids) < FEW_IDS:
        index = snapshot.index
        return np.fromiter((index.get(i, -1) for i in ids.to_pylist()), np.int64, len(ids))
    return numbers(pc.index_in(ids, snapshot.arrow_ids), -1).astype(np.int64)
