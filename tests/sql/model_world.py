"""Given rows, expect rows: run one SQL model over contract tables written by hand.

Moments are days before ``AS_OF``; the span is 100 days, so the half-lives are 0.3, 1, 3 and 10 days for trends
and 50 days for the history (25 for transitions).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import duckdb

from m6rec_udf import connection, models

AS_OF = datetime(2024, 4, 10)
BOUND = {"as_of": AS_OF, "span_days": 100.0, "positive_at": 0.75}


def ago(days: float) -> datetime:
    return AS_OF - timedelta(days=days)


def given(
    events: list[tuple[Any, ...]] = (), items: list[dict[str, Any]] = (), users: list[tuple[Any, ...]] = ()
) -> duckdb.DuckDBPyConnection:
    """Contract tables with events (user, item, type, days ago[, value]), items as dicts, users (user, segment)."""
    con = duckdb.connect()
    connection.migrate(con)
    for user, item, kind, days, *value in events:
        con.execute(
            "insert into m6.events (user_id, item_id, event_type, value, happened_at) values (?, ?, ?, ?, ?)",
            [user, item, kind, value[0] if value else None, ago(days)],
        )
    for item in items:
        names = ", ".join(item)
        con.execute(f"insert into m6.items ({names}) values ({', '.join('?' * len(item))})", list(item.values()))
    for user, segment in users:
        con.execute("insert into m6.users (user_id, segment) values (?, ?)", [user, segment])
    return con


def run(con: duckdb.DuckDBPyConnection, model: str, *, satisfaction: str = "graded", **bound: Any) -> None:
    """Run a model and all it reads as temp tables."""
    found = models.with_satisfaction(models.collect(), satisfaction)
    for step in models.ordered(found, {model}):
        models.run(con, step, {**BOUND, **bound}, temporary=True)


def rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return con.execute(sql).fetchall()


def table(con: duckdb.DuckDBPyConnection, model: str, columns: str, **bound: Any) -> list[tuple[Any, ...]]:
    """Rows of a model with user_id and item_id for the integer keys; ``columns`` as in a SELECT."""
    run(con, model, **bound)
    return rows(con, f"select {columns} from {model} order by all")
