"""Figures of evaluations, comparisons and trials, as rows of m6.runs and m6.metrics."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from m6rec_udf.figures import Row


def now() -> datetime:
    """UTC without a zone, as the tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def write_run(
    con: duckdb.DuckDBPyConnection,
    kind: str,
    started_at: datetime,
    parameters: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    status: str = "done",
) -> str:
    """A run and its figures in one transaction; returns the run's id.

    Args:
        kind: what was run, the beginning of the id.
        rows: (method, slice, metric, value, low, high, n), the columns of ``m6.metrics``.
        status: ``done``, or ``failed`` with an ``error`` among the parameters.
    """
    run_id = f"{kind}-{uuid.uuid4().hex[:12]}"
    con.execute("begin")
    try:
        con.execute(
            "insert into m6.runs (run_id, kind, model_version, parameters, started_at, finished_at, status) "
            "select ?, ?, model_version, ?, ?, ?, ? from m6.active",
            [run_id, kind, json.dumps(parameters), started_at, now(), status],
        )
        if rows:
            con.executemany(
                "insert into m6.metrics (run_id, method, slice, metric, value, low, high, n) "
                "values (?, ?, ?, ?, ?, ?, ?, ?)",
                [[run_id, *row] for row in rows],
            )
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return run_id
