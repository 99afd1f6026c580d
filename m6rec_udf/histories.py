"""The stored histories: one row per user written by a build, and views of what came after it.

``m6.stored_histories`` is a cache of ``m6.behaviour`` up to ``m6.history_marks``; ``m6.recent_behaviour`` is the rest.
For one user it is read in pieces that cost little to plan: ``m6.unread_events`` as they came in, graded by
``m6.graded``, and ``m6.recent_reactions`` where ``m6.unread_feedback`` says that there may be some.
Triggers note in ``m6.history_edits`` whose events were updated or deleted since: theirs is read afresh. Feedback and
impressions have no triggers, since a table with triggers takes no INSERT OR IGNORE (DuckDB 2.0.1), which they need:
what is changed by hand in those a build has read counts from the next build on, or for whoever is noted there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from m6rec_udf import models
from m6rec_udf.arrivals import SEQUENCES, Ranges
from m6rec_udf.models import Model
from m6rec_udf.query import one

if TYPE_CHECKING:
    import pyarrow as pa

    from m6rec_udf.moment import Log

COLUMNS = {"item": "<i4", "interest": "<f4", "satisfaction": "<f4", "happened_at": "<f8"}
RECORD = np.dtype(list(COLUMNS.items()))
MADE = ("recent_behaviour", "recent_reactions", "unread_events", "unread_feedback", "graded")  # with each build
_NOTHING = "from (select * from m6.events limit 0)"
_GIVEN = """from (
    select
        cast(null as varchar) as user_id,
        unnest(of_items) as item_id,
        unnest(of_types) as event_type,
        unnest(of_values) as value,
        make_timestamp(unnest(of_moments)) as happened_at
)"""


@dataclass(frozen=True)
class Marks:
    """How far a build has read.

    Attributes:
        event_seq, feedback_seq: the last orders of arrival.
        as_of: behaviour after this moment was left out.
        passed_over: by table, ranges of numbers below these that were not read (see m6rec_udf.arrivals).
    """

    event_seq: int
    feedback_seq: int
    as_of: datetime
    passed_over: dict[str, Ranges] = field(default_factory=dict)

    def unread(self, table: str, last: int, *, has_later: bool) -> str:
        """Condition on the rows of events or feedback that the build has not read."""
        sequence = SEQUENCES[table]
        parts = [f"{sequence} > {int(last)}"]
        parts += [f"{sequence} between {int(a)} and {int(b)}" for a, b in self.passed_over.get(table, [])]
        return " or ".join(parts + ([f"happened_at > timestamp '{self.as_of}'"] if has_later else []))


def reset(con: duckdb.DuckDBPyConnection) -> None:
    """No stored histories: every history is read from m6.behaviour."""
    nothing = "user_id, item_id, event_type, value, happened_at from m6.events limit 0"
    con.execute("create or replace view m6.recent_behaviour as select * from m6.behaviour")
    con.execute("create or replace view m6.recent_reactions as select * from m6.behaviour limit 0")
    con.execute(f"create or replace view m6.unread_events as select {nothing}")
    con.execute("create or replace view m6.unread_feedback as select user_id from m6.feedback limit 0")
    con.execute(
        "create or replace macro m6.graded(of_items, of_types, of_values, of_moments) as table "
        "select item_id, interest, satisfaction, happened_at from m6.behaviour limit 0"
    )
    for table in ("stored_histories", "history_marks", "history_edits"):
        con.execute(f"delete from m6.{table}")


def reset_unless_made_with(con: duckdb.DuckDBPyConnection, found: dict[str, Model]) -> None:
    """The same where the stored histories were made with another SQL of m6.behaviour."""
    if one(con, "select definition from m6.history_marks")[0] != _definition(found):
        reset(con)


def write(con: duckdb.DuckDBPyConnection, found: dict[str, Model], log: Log, marks: Marks, version: int) -> None:
    """Store the log of a build, one row per user, inside the transaction of the build.

    Nothing is stored where a row's grade may depend on other rows (a satisfaction function or staging of the
    project's own) or where events are a view without an order of arrival.
    """
    reset(con)
    kinds = con.execute(
        "select count(*) from duckdb_tables() where database_name = current_database() and schema_name = 'm6' "
        "and table_name in ('events', 'feedback', 'impressions', 'event_types')"
    ).fetchall()[0][0]
    if kinds < 4 or not all(found[name].path == "shipped" for name in models.LIVE):
        return
    ids = con.sql("select user_id from stg_users order by user_idx").to_arrow_table()["user_id"]
    con.register("m6_packed_histories", packed(log, ids))
    con.execute("insert into m6.stored_histories from m6_packed_histories")
    con.unregister("m6_packed_histories")
    unread = {}
    for table, sequence, last in (
        ("events", "event_seq", marks.event_seq),
        ("feedback", "feedback_seq", marks.feedback_seq),
    ):
        later = f"select 1 from m6.{table} where {sequence} <= ? and happened_at > ? limit 1"
        has_later = one(con, later, [last, marks.as_of])[0] is not None
        unread[table] = f"from m6.{table} where {marks.unread(table, last, has_later=has_later)}"
    events, feedback = ({f"from m6.{table}": f"from (select * {rows})"} for table, rows in unread.items())
    made = {
        "view m6.recent_behaviour": models.live(found, events | feedback),
        "view m6.recent_reactions": models.live(found, {"from m6.events": _NOTHING} | feedback),
        "view m6.unread_events": f"select user_id, item_id, event_type, value, happened_at {unread['events']}",
        "view m6.unread_feedback": f"select user_id {unread['feedback']}",
        "macro m6.graded(of_items, of_types, of_values, of_moments)": (
            f"table select item_id, interest, satisfaction, happened_at from (\n"
            f"{models.live(found, {'from stg_actions': _GIVEN})}\n)"
        ),
    }
    for what, sql in made.items():
        con.execute(f"create or replace {what} as {sql}")
    con.execute(
        "insert into m6.history_marks by name select ? as model_version, ? as event_seq, ? as feedback_seq, "
        "bit_xor(hash(t)) as types_hash, ? as definition from m6.event_types as t",
        [version, marks.event_seq, marks.feedback_seq, _definition(found)],
    )


def packed(log: Log, ids: pa.ChunkedArray) -> pa.Table:
    """(user_id, history) of every user with behaviour; ``ids`` by user_idx."""
    import pyarrow as pa

    records = np.empty(len(log.item), RECORD)
    for name in COLUMNS:
        records[name] = getattr(log, name)
    users, count = np.unique(log.user, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(count * RECORD.itemsize)]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(records)]
    blobs = pa.Array.from_buffers(pa.large_binary(), len(users), buffers)
    return pa.table({"user_id": ids.take(pa.array(users)), "history": blobs})


def unpacked(blobs: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(number of records of each blob, all records one behind the other); NULL is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    length = np.asarray(pc.binary_length(blobs).fill_null(0), np.int64) // RECORD.itemsize
    present = blobs.drop_null().cast(pa.large_binary())
    if not length.any():
        return length, np.zeros(0, RECORD)
    offsets = np.frombuffer(present.buffers()[1], np.int64)[present.offset : present.offset + len(present) + 1]
    return length, np.frombuffer(present.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].view(RECORD)


def _definition(found: dict[str, Model]) -> str:
    text = "\n".join(found[name].sql for name in models.LIVE)
    return hashlib.sha256(text.encode()).hexdigest()
