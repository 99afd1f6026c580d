"""The stored histories: one row per user written by a build, and views of what came after it.

``m6.stored_histories`` is a cache of ``m6.behaviour`` up to ``m6.history_marks``; ``m6.recent_behaviour`` is the rest.
For one user it is read in pieces that cost little to plan: ``m6.unread_events`` as they came in, graded by
``m6.graded``, and ``m6.recent_reactions`` where ``m6.unread_feedback`` says that there may be some.
Triggers note in ``m6.history_edits`` whose events were updated or deleted since: theirs is read afresh. Feedback and
impressions have no triggers, since a table whose triggers look at rows takes no ON CONFLICT (DuckDB 2.0.1):
what is changed by hand in those a build has read counts from the next build on, or for whoever is noted there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from m6rec_udf import models
from m6rec_udf.arrivals import SEQUENCES, Ranges
from m6rec_udf.errors import CorruptError, SchemaError
from m6rec_udf.models import Model
from m6rec_udf.query import one

if TYPE_CHECKING:
    import pyarrow as pa

    from m6rec_udf.event_log import Log

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
        event_seq, feedback_seq: the last ones, in the order of arrival.
        as_of: behaviour after this moment was left out.
        passed_over: by table, ranges of numbers below that were not there yet (see ``arrivals``).
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
    for table in ("history_marks", "history_edits"):
        con.execute(f"delete from m6.{table}")
    _replace_histories(con)


def reset_unless_made_with(con: duckdb.DuckDBPyConnection, found: dict[str, Model]) -> None:
    """The same where the stored histories were made with another SQL of m6.behaviour."""
    if one(con, "select definition from m6.history_marks")[0] != _definition(found):
        reset(con)


def write(
    con: duckdb.DuckDBPyConnection, found: dict[str, Model], packed_rows: Callable[[], Any], marks: Marks, version: int
) -> None:
    """Store the behaviour of a build, one row per user, inside the transaction of the build.

    ``packed_rows``: gives them, see ``engine.Engine.histories``; called where they are stored.

    Nothing is stored where a row's grade may depend on other rows (a satisfaction function or staging of the
    project's own) or where events are a view without an order of arrival.
    """
    if not are_tables(con) or not all(found[name].path == "shipped" for name in models.LIVE):
        reset(con)
        return
    _replace_histories(con, packed_rows())
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
    for table in ("history_marks", "history_edits"):
        con.execute(f"delete from m6.{table}")
    con.execute(
        "insert into m6.history_marks by name select ? as model_version, ? as event_seq, ? as feedback_seq, "
        "bit_xor(hash(t)) as types_hash, ? as definition, ? as events, ? as read_hash from m6.event_types as t",
        [version, marks.event_seq, marks.feedback_seq, _definition(found), *_read(con, found, marks)],
    )


def read_rows(found: dict[str, Model], marks: Marks) -> str:
    """SELECT of the graded behaviour that a build has read, as far as it is still there."""
    return models.live(found, _up_to(marks.event_seq, marks.feedback_seq))


def still_valid(con: duckdb.DuckDBPyConnection, found: dict[str, Model], as_of: datetime) -> int | None:
    """The version whose stored histories are the behaviour up to then, where all of it is as it was; else None.

    It is where the SQL and the event types are the same, no event was edited, deleted or arrived late under a number
    that was passed over, and feedback up to then says the same. ``as_of``: the new moment, not before the old one.
    """
    rows = con.execute(
        "select h.model_version, h.event_seq, h.feedback_seq, m.as_of, h.events, h.read_hash, h.definition "
        "from m6.history_marks as h inner join m6.models as m on h.model_version = m.model_version "
        "where h.types_hash = (select bit_xor(hash(t)) from m6.event_types as t) and m.as_of <= ?",
        [as_of],
    ).fetchall()
    if not rows or not are_tables(con) or one(con, "select 1 from m6.history_edits limit 1")[0] is not None:
        return None
    version, event_seq, feedback_seq, until, events, read_hash, definition = rows[0]
    is_same = definition == _definition(found) and (events, read_hash) == _read(
        con, found, Marks(event_seq, feedback_seq, until)
    )
    return int(version) if is_same else None


def _read(con: duckdb.DuckDBPyConnection, found: dict[str, Model], marks: Marks) -> tuple[int, str]:
    """(events up to the mark, hash of the feedback's behaviour up to the mark and of the SQL that numbers it)."""
    events = one(con, "select count(*) from m6.events where event_seq <= ?", [marks.event_seq])[0]
    reactions = models.live(found, {"from m6.events": _NOTHING} | _up_to(None, marks.feedback_seq))
    count, mixed = one(
        con, f"select count(*), sum(hash(b)) from ({reactions}) as b where happened_at <= ?", [marks.as_of]
    )
    numbered = "\n".join(found[name].sql for name in ("stg_events", "stg_users", "stg_items"))
    text = f"{count} {mixed} {numbered}"
    return int(events), hashlib.sha256(text.encode()).hexdigest()


def with_stored_numbers(found: dict[str, Model]) -> dict[str, Model]:
    """The models with stg_users and stg_items over what is stored and what came since, where that is ``still_valid``.

    Users with behaviour and items with events are those of the build before, or of rows that it has not read. Who has
    left m6.users or m6.items since is looked for among the rows that it has.

    Raises SchemaError: one of the two does not read what is put in its place.
    """
    users = """from (
        select user_id from m6.stored_histories
        union all
        select user_id from m6.recent_behaviour where happened_at <= $as_of
        union all
        select s.user_id
        from m6.stg_users as s
        anti join m6.users as u on s.user_id = u.user_id
        anti join m6.stored_histories as h on s.user_id = h.user_id
        semi join stg_behaviour as b on s.user_id = b.user_id
    )"""
    items = """from (
        select item_id from m6.unread_events where happened_at <= $as_of
        union
        select s.item_id
        from m6.stg_items as s
        anti join m6.items as i on s.item_id = i.item_id
        semi join m6.events as e on s.item_id = e.item_id and e.happened_at <= $as_of
    )"""
    parts = {
        "stg_users": ("from stg_behaviour", users),
        "stg_items": ("from (select distinct item_id from m6.events where happened_at <= $as_of)", items),
    }
    made = dict(found)
    for name, (whole, part) in parts.items():
        if whole not in found[name].sql:
            raise SchemaError(f"{name} does not read `{whole}`, expected to find it there")
        made[name] = replace(found[name], sql=found[name].sql.replace(whole, part))
    return made


def _up_to(event_seq: int | None, feedback_seq: int) -> dict[str, str]:
    """Events and feedback up to their marks, in place of the tables in the SQL of behaviour."""
    parts = {"from m6.feedback": f"from (select * from m6.feedback where feedback_seq <= {int(feedback_seq)})"}
    if event_seq is not None:
        parts["from m6.events"] = f"from (select * from m6.events where event_seq <= {int(event_seq)})"
    return parts


def are_tables(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether behaviour comes from tables with an order of arrival, not from views of the project's own."""
    kinds = one(
        con,
        "select count(*) from duckdb_tables() where database_name = current_database() and schema_name = 'm6' "
        "and table_name in ('events', 'feedback', 'impressions', 'event_types')",
    )[0]
    return int(kinds) == 4


def _replace_histories(con: duckdb.DuckDBPyConnection, rows: Any = None) -> None:
    """Write m6.stored_histories as a new table: where keys are deleted and come again, the index costs seconds."""
    comments = con.execute(
        "select column_name, comment from duckdb_columns() where schema_name = 'm6' "
        "and table_name = 'stored_histories' and database_name = current_database() and comment is not null "
        "union all select null, comment from duckdb_tables() where schema_name = 'm6' "
        "and table_name = 'stored_histories' and database_name = current_database()"
    ).fetchall()
    con.execute(
        "create or replace table m6.stored_histories "
        "(user_id varchar primary key, history blob using compression uncompressed not null)"
    )
    for column, comment in comments:
        what = f"column m6.stored_histories.{column}" if column else "table m6.stored_histories"
        con.execute(f"comment on {what} is '{str(comment).replace(chr(39), chr(39) * 2)}'")
    if rows is None:
        return
    con.register("m6_packed_histories", rows)
    con.execute("insert into m6.stored_histories from m6_packed_histories")
    con.unregister("m6_packed_histories")


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

    octets = np.asarray(pc.binary_length(blobs).fill_null(0), np.int64)
    length = octets // RECORD.itemsize
    if (length * RECORD.itemsize != octets).any():
        raise CorruptError(
            f"a stored history is not made of records of {RECORD.itemsize} bytes, as expected",
            "run m6rec_udf.build(con): it writes m6.stored_histories afresh",
        )
    present = blobs.drop_null().cast(pa.large_binary())
    if not length.any():
        return length, np.zeros(0, RECORD)
    offsets = np.frombuffer(present.buffers()[1], np.int64)[present.offset : present.offset + len(present) + 1]
    return length, np.frombuffer(present.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].view(RECORD)


def _definition(found: dict[str, Model]) -> str:
    text = "\n".join(found[name].sql for name in models.LIVE)
    return hashlib.sha256(text.encode()).hexdigest()
