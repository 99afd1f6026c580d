"""Rows between Spark and DuckDB: Parquet files of a working folder that both read."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m6rec_udf.publish import quote_text

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame, SparkSession

SHARE_MODULUS = 1 << 20


class Tables:
    """Named tables of one build: written once as Parquet, read by Spark as temp views, by DuckDB as views.

    Spark's own pages name each job after the table that it writes.

    Args:
        session: the build's own session.
        folder: seen under this path by the driver and by every executor.
    """

    def __init__(self, session: SparkSession, folder: Path) -> None:
        self.session, self.folder = session, folder
        self._paths: dict[str, Path] = {}
        self._count = 0

    def path(self, name: str) -> Path:
        """Folder of the Parquet files of a table."""
        return self._paths[name]

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def write(self, name: str, frame: DataFrame) -> None:
        """Write a table in place of an earlier one of that name; it is a temp view from then on."""
        path = self._next(name)
        with named(self.session, name):
            frame.write.parquet(str(path))
        self._put(name, path)

    def take(self, con: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
        """The rows of a SELECT of DuckDB as a table."""
        path = self._next(name)
        path.mkdir(parents=True)
        con.execute(f"copy ({sql}) to {quote_text(str(path / 'rows.parquet'))} (format parquet, row_group_size 100000)")
        self._put(name, path)

    def show(self, con: duckdb.DuckDBPyConnection, name: str, *, where: str = "true") -> None:
        """A table as a temp view of DuckDB; ``where`` leaves rows out."""
        files = quote_text(str(self.path(name) / "*.parquet"))
        con.execute(f"create or replace temp view {name} as select * from read_parquet({files}) where {where}")

    def bytes_of(self, name: str) -> int:
        """Size of the files."""
        return sum(file.stat().st_size for file in self.path(name).glob("*.parquet"))

    def sizes(self) -> dict[str, int]:
        """Size of the files of every table, in bytes."""
        return {name: self.bytes_of(name) for name in self._paths}

    def _next(self, name: str) -> Path:
        self._count += 1
        return self.folder / f"{self._count:03d}_{name}"

    def _put(self, name: str, path: Path) -> None:
        self.session.read.parquet(str(path)).createOrReplaceTempView(name)
        before = self._paths.get(name)
        self._paths[name] = path
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def named(session: SparkSession, name: str) -> Iterator[None]:
    """Spark's own pages show the jobs of this thread under a name."""
    context = session.sparkContext
    context.setJobDescription(f"m6rec {name}")
    try:
        yield
    finally:
        context.setJobDescription(None)


def share_of_users(share: float, column: str = "user_idx") -> str:
    """SQL condition that a share of the users fulfils, the same ones each time; -1, an unknown user, does."""
    if share >= 1:
        return "true"
    mixed = f"(cast({column} as bigint) * 654435761) % {SHARE_MODULUS}"
    return f"({column} < 0 or {mixed} < {round(share * SHARE_MODULUS)})"


def rows_of(frame: DataFrame) -> list[tuple[Any, ...]]:
    """The rows of a small frame."""
    return [tuple(row) for row in frame.collect()]
