"""A private copy of the database, for experiments whose builds nobody should see."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from m6rec_udf.connection import connect
from m6rec_udf.publish import snapshot
from m6rec_udf.registry import context_of


@contextmanager
def private_copy(con: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A dressed connection to a copy of the database, with the same encoder and project; removed afterwards.

    The copy is as large as the file and lies in the folder for temporary files (``TMPDIR``).

    Raises NotInstalledError: the connection was never dressed.
    """
    context = context_of(con)
    with tempfile.TemporaryDirectory(prefix="m6rec-") as folder:
        copy = connect(snapshot(con, Path(folder) / "copy.duckdb"), encoder=context.encoder, project=context.project)
        try:
            yield copy
        finally:
            copy.close()
