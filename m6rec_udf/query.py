"""One row of a query, read to the end (an unfinished result blocks its connection)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb


def one(
    con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> tuple[Any, ...]:
    """The first row; a tuple of one None where there is none."""
    rows = con.execute(sql, parameters if isinstance(parameters, dict) else list(parameters)).fetchall()
    return tuple(rows[0]) if rows else (None,)


def cursor(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A second connection to the same database; a plain cursor forgets which one is in use (an encrypted file is)."""
    name = one(con, "select current_database()")[0]
    own = con.cursor()
    if one(own, "select current_database()")[0] != name:
        use(own, name)
    return own


def use(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Make a database the current one."""
    con.execute("use " + '"' + name.replace('"', '""') + '"')
