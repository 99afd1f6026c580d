"""Serve from a copy that is replaced from time to time, without stopping.

DuckDB lets one process write a file, or many read it. So the process that writes makes copies (`snapshot`), each takes
the place of the one before in one step, and any number of processes serve from it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf import registry
from m6rec_udf.connection import connect
from m6rec_udf.errors import M6Error, ParameterError
from m6rec_udf.publish import private_folder
from m6rec_udf.query import one

if TYPE_CHECKING:
    from m6rec_udf.embed import EncoderLike


class Serving:
    """Read-only cursors on the newest copy at a path; a cursor keeps the copy it began with until it is given back.

    Threads may share it. Close it at the end, or use it in a ``with``.

    Args:
        path: a file made by `snapshot`.
        every: seconds after which a cursor asked for looks whether a newer copy is there; None: only `refresh` does.
        encoder, project: as for `connect`.

    Raises:
        M6Error: there is no such file, or it cannot be opened. ParameterError: ``every`` is below 0.

    Example:
        >>> with m6.Serving("copy.duckdb", every=5) as shop:  # doctest: +SKIP
        ...     with shop.cursor() as cursor:
        ...         cursor.sql("from m6.recommend('u42')").show()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: float | None = None,
        encoder: EncoderLike | None = None,
        project: str | Path | None = None,
    ) -> None:
        if every is not None and not every >= 0:
            raise ParameterError(f"every is {every}, expected seconds from 0, or None", "pass for example every=5")
        self.path, self.every = Path(path).resolve(), every
        self._options: dict[str, Any] = {"encoder": encoder, "project": project}
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._looked_at = time.monotonic()
        self._copy = self._opened()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor on the newest copy, closed at the end of the ``with``."""
        if self.every is not None and time.monotonic() - self._looked_at >= self.every:
            self.refresh()
        with self._lock:
            copy = self._copy
            copy.users += 1
            cursor = copy.con.cursor()
        try:
            yield cursor
        finally:
            cursor.close()
            with self._lock:
                copy.users -= 1
                copy.close_if_done()

    def refresh(self) -> bool:
        """Open the copy that lies at the path now, if it is another one; whether it was.

        The new one is opened and warmed up first, then it takes the place of the old one, which is closed when its
        last cursor is given back. Where another thread is doing this already, False at once. If the new copy cannot be
        opened, the error is raised and the old one stays.
        """
        if not self._refreshing.acquire(blocking=False):
            return False
        try:
            self._looked_at = time.monotonic()
            if _identity(self.path) == self._copy.identity:
                return False
            new = self._opened()
            with self._lock:
                old, self._copy = self._copy, new
                old.is_retired = True
                old.close_if_done()
            return True
        finally:
            self._refreshing.release()

    def close(self) -> None:
        """Close the copy; cursors that are out still work."""
        with self._lock:
            self._copy.is_retired = True
            self._copy.close_if_done()

    def _opened(self) -> _Copy:
        """The copy at the path under a name of its own.

        DuckDB gives a second connection to the same path the database that is open already, even where another file
        has taken its place. So each copy is opened by a link that is removed at once; the open file stays.
        """
        if not self.path.exists():
            raise M6Error(
                f"there is no file {self.path}, expected a copy to serve from", "m6.snapshot(con, to) makes one"
            )
        with private_folder(self.path) as folder:
            own = folder / self.path.name
            try:
                os.link(self.path, own)
            except OSError:  # a file system without links
                shutil.copyfile(self.path, own)
            identity = _identity(own)
            config = {"temp_directory": f"{self.path}.tmp"}  # the default is beside the link
            con = connect(own, read_only=True, config=config, **self._options)
            try:
                if one(con, "select model_version from m6.active")[0] is not None:
                    con.execute("from m6.recommend('', k := 1)").fetchall()  # reads the arrays
            except BaseException:
                con.close()
                raise
        return _Copy(con, identity)


class _Copy:
    """One open copy."""

    def __init__(self, con: duckdb.DuckDBPyConnection, identity: tuple[int, ...]) -> None:
        self.con, self.identity = con, identity
        self.users, self.is_retired, self.is_closed = 0, False, False

    def close_if_done(self) -> None:
        if self.is_retired and not self.users and not self.is_closed:
            self.is_closed = True
            registry.release(self.con)
            self.con.close()


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
