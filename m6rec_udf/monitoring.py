"""The view m6.gauges in the text format that Prometheus reads."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from m6rec_udf.errors import NotInstalledError
from m6rec_udf.query import one


def prometheus(con: duckdb.DuckDBPyConnection) -> str:
    """The figures of ``m6.gauges`` and the sizes of the file, in Prometheus's text format (version 0.0.4).

    Serve it as ``text/plain; version=0.0.4`` from a route of your app, on a cursor of its own.

    Raises:
        NotInstalledError: the connection was not dressed.

    Example:
        >>> print(m6.prometheus(con))  # doctest: +SKIP
        # HELP m6_rows rows of a contract table
        # TYPE m6_rows gauge
        m6_rows{table="events"} 1234
    """
    try:
        rows = con.execute("select name, labels, value, meaning from m6.gauges").fetchall()
    except duckdb.CatalogException as error:
        raise NotInstalledError(
            "the database has no view m6.gauges, expected a file made by m6rec", "call m6rec_udf.install(con)"
        ) from error
    rows += [
        ("m6_file_bytes", {"file": kind}, size, "size of the database file and its log") for kind, size in _sizes(con)
    ]
    lines: list[str] = []
    previous = None
    for name, labels, value, meaning in rows:
        if name != previous:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
            previous = name
        inside = ",".join(f'{re.sub(r"[^a-zA-Z0-9_]", "_", key)}="{_escaped(str(own))}"' for key, own in labels.items())
        lines.append(f"{name}{'{' + inside + '}' if inside else ''} {float(value):.10g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """A label's value as the format wants it."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _sizes(con: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    """Bytes of the database file and of its write-ahead log; none for a database in memory."""
    path = one(con, "select path from duckdb_databases() where database_name = current_database()")[0]
    if path is None:
        return []
    files = (("database", Path(path)), ("log", Path(f"{path}.wal")))
    return [(kind, file.stat().st_size if file.exists() else 0) for kind, file in files]
