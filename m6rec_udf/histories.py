"""The stored histories: one row per user written by a build, and a view of what came after it.

``m6.stored_histories`` is a cache of ``m6.behaviour`` up to ``m6.history_marks``; ``m6.recent_behaviour`` is the rest.
Triggers note in ``m6.history_edits`` whose events were updated or deleted since: theirs is read afresh. Feedback is
never stored: a table with triggers takes no INSERT OR IGNORE, which feedback and impressions need.
"""

from __future__ import annotations

import hashlib

import duckdb

from m6rec_udf import models
from m6rec_udf.errors import SchemaError
from m6rec_udf.models import Model
from m6rec_udf.query import one

EVENTS_AT_ONCE = 2_000_000  # their lists are made in one step, so that memory stays bounded
_LISTS = """
insert into m6.stored_histories
select
    user_id,
    m6.history_list(item_id, interest, satisfaction, happened_at)
from temp.built_behaviour
where hash(user_id) % $parts = $part
group by user_id
"""


def reset(con: duckdb.DuckDBPyConnection) -> None:
    """No stored histories: every history is read from m6.behaviour."""
    con.execute("create or replace view m6.recent_behaviour as select * from m6.behaviour")
    for table in ("stored_histories", "history_marks", "history_edits"):
        con.execute(f"delete from m6.{table}")


def reset_unless_made_with(con: duckdb.DuckDBPyConnection, found: dict[str, Model]) -> None:
    """The same where the stored histories were made with another SQL of m6.behaviour."""
    if one(con, "select definition from m6.history_marks")[0] != _definition(found):
        reset(con)


def write(con: duckdb.DuckDBPyConnection, found: dict[str, Model], events: int) -> None:
    """Store everybody's history up to the mark of its events, inside the transaction of the build that has read so far.

    Nothing is stored where a row's grade may depend on other rows (a satisfaction function or staging of the
    project's own) or where events are a view without an order of arrival.
    """
    reset(con)
    kinds = con.execute(
        "select count(*) from duckdb_tables() where database_name = current_database() and schema_name = 'm6' "
        "and table_name in ('events', 'feedback', 'impressions', 'event_types')"
    ).fetchall()[0][0]
    if kinds < 4 or not _is_shipped(found):
        return
    con.execute("create or replace table m6.stored_histories as from m6.stored_histories limit 0")
    con.execute(_view("built_behaviour", found, f"event_seq <= {int(events)}", "false"))
    con.execute("create or replace temp table built_behaviour as from m6.built_behaviour")  # graded once, read in parts
    total = one(con, "select estimated_size from duckdb_tables() where schema_name = 'm6' and table_name = 'events'")[0]
    parts = int(total or 0) // EVENTS_AT_ONCE + 1
    for part in range(parts):
        con.execute(_LISTS, {"parts": parts, "part": part})
    con.execute("alter table m6.stored_histories add primary key (user_id)")
    con.execute("drop table temp.built_behaviour")
    con.execute("drop view m6.built_behaviour")
    con.execute(_view("recent_behaviour", found, f"event_seq > {int(events)}", "true"))
    con.execute(
        "insert into m6.history_marks select ?, bit_xor(hash(t)), ? from m6.event_types as t",
        [events, _definition(found)],
    )


def _definition(found: dict[str, Model]) -> str:
    text = "\n".join(found[name].sql for name in models.LIVE)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_shipped(found: dict[str, Model]) -> bool:
    return all(found[name].path == "shipped" for name in models.LIVE)


def _view(name: str, found: dict[str, Model], events: str, feedback: str) -> str:
    """m6.behaviour over a part of the events and feedback."""
    staged = found["stg_behaviour"].sql.replace("$as_of", "timestamp 'infinity'")
    for table, condition in (("events", events), ("feedback", feedback)):
        whole, part = f"from m6.{table}", f"from (select * from m6.{table} where {condition})"
        if whole not in staged:
            raise SchemaError(f"the model stg_behaviour reads no m6.{table}, expected to find `{whole}` in it")
        staged = staged.replace(whole, part)
    return (
        f"create or replace view m6.{name} as\nwith stg_behaviour as (\n{staged}\n)\n"
        f"select * from (\n{found[models.IN_FORCE].sql}\n)"
    )
