"""The stored histories of all users, packed by the executors (see ``m6rec_udf.histories``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.histories import COLUMNS, RECORD

if TYPE_CHECKING:
    import pyarrow as pa

    from m6rec_udf.spark.tables import Tables

_ROWS = """
select user_idx, item_idx as item, interest, satisfaction, unix_micros(cast(happened_at as timestamp)) as happened_at
from stg_events
distribute by user_idx
sort by user_idx, happened_at, item, interest, satisfaction
"""
_SCHEMA = "user_idx int, history binary"


def write_histories(tables: Tables, most: int) -> None:
    """The table packed_histories (user_id, history) from stg_events: of each user the latest ``most`` behaviours."""

    def packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return pack(batches, most)

    session = tables.session
    tables.write("histories_by_number", session.sql(_ROWS).mapInArrow(packed, _SCHEMA))
    tables.write(
        "packed_histories",
        session.sql(
            "select u.user_id, h.history from histories_by_number as h "
            "inner join stg_users as u on h.user_idx = u.user_idx"
        ),
    )


def pack(batches: Iterator[pa.RecordBatch], most: int) -> Iterator[pa.RecordBatch]:
    """(user_idx, history) of rows sorted by user and time; a user may reach over many batches."""
    user, rest = -1, np.zeros(0, RECORD)
    for batch in batches:
        users = batch["user_idx"].to_numpy()
        if not len(users):
            continue
        records = np.empty(len(users), RECORD)
        for name in COLUMNS:
            records[name] = batch[name].to_numpy()
        records["happened_at"] = batch["happened_at"].to_numpy() / 1e6
        if users[0] == user:
            records = np.concatenate([rest, records])
            users = np.concatenate([np.full(len(rest), user, users.dtype), users])
        elif len(rest):
            yield _batch([user], [rest], most)
        first = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
        parts = np.split(records, first[1:])
        if len(parts) > 1:
            yield _batch(users[first[:-1]].tolist(), parts[:-1], most)
        user, rest = int(users[-1]), parts[-1][-most:]
    if len(rest):
        yield _batch([user], [rest], most)


def _batch(users: list[int], parts: list[np.ndarray], most: int) -> pa.RecordBatch:
    import pyarrow as pa

    blobs = pa.array([part[-most:].tobytes() for part in parts], pa.binary())
    return pa.record_batch({"user_idx": pa.array(users, pa.int32()), "history": blobs})
