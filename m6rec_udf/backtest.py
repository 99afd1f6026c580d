"""m6rec's own lists as they would have been at a moment of the past: what `evaluate` measures."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb

from m6rec_udf import artefacts
from m6rec_udf.build_state import Progress
from m6rec_udf.builder import build
from m6rec_udf.registry import context_of


class Backtest:
    """Builds once per moment, then asks ``recommend``'s own body for the lists of that version.

    Attributes:
        seed: seed of the builds.
        exclude_seen: items of the history are left out; evaluation by discovery needs True.
    """

    def __init__(self, *, seed: int = 0, exclude_seen: bool = True, progress: Progress | None = None) -> None:
        self.seed, self.exclude_seen, self.progress = seed, exclude_seen, progress

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        """Lists of the users as a table of user_id, item_id, rank, satisfaction; the version is removed again."""
        version = build(con, as_of=as_of, seed=self.seed, activate=False, progress=self.progress).model_version
        try:
            ids = [str(u) for u in users["user_id"].to_pylist()]
            return con.sql(
                "select user_id, item_id, rank, satisfaction from m6.slates("
                "$users, k := $k, exclude_seen := $seen, until := $until, version := $version)",
                params={"users": ids, "k": k, "seen": self.exclude_seen, "until": as_of, "version": version},
            ).to_arrow_table()
        finally:
            remove_version(con, version)


def remove_version(con: duckdb.DuckDBPyConnection, version: int) -> None:
    """Delete a version that is not in force, with everything stored for it, in memory too: its number comes again."""
    for table in ("artefact_names", "extra_candidates", "decisions", "models"):
        con.execute(f"delete from m6.{table} where model_version = ?", [version])
    artefacts.delete_unnamed(con)
    context = context_of(con)
    with context.lock:
        context.snapshots.pop(version, None)
