"""Register the Python core as SQL functions, once per database instance.

DuckDB keeps registered functions with the *instance*, not the connection: a second connection or
cursor sees them, a second registration raises, and they are gone when the last connection closes.
A registered closure whose registering connection is gone crashes the process unless something else
holds it, so every callable is kept alive here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf.query import cursor, one, use

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.embed import Encoder

_LOCK = threading.RLock()
_KEPT: list[Any] = []
_CONTEXTS: dict[str, Context] = {}


@dataclass
class Context:
    """What the registered functions of one database instance share."""

    path: str
    read_only: bool
    encoder: Encoder
    project: Path | None = None
    cursor: duckdb.DuckDBPyConnection | None = None  # only where the file cannot be opened again
    catalog: str | None = None  # name of the database, where a new cursor would start in another one
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    item_sets: dict[int, Any] = field(default_factory=dict)
    grades: dict[Any, dict[Any, Any]] = field(default_factory=dict)  # of event types and values, see user_history
    column_encoders: dict[str, Any] = field(default_factory=dict)  # of vector columns, by column
    lock: threading.RLock = field(default_factory=threading.RLock)
    turn: threading.Lock = field(default_factory=threading.Lock)  # of one list at a time, see single

    def open(self) -> duckdb.DuckDBPyConnection:
        """A connection usable inside a function, where the calling one is busy. Close it after use."""
        if self.cursor is not None:
            own = self.cursor.cursor()
            if self.catalog is not None:
                use(own, self.catalog)
            return own
        return duckdb.connect(self.path, read_only=self.read_only)


@dataclass(frozen=True)
class Function:
    """One SQL function: Arrow arrays in, one Arrow array out."""

    name: str
    make: Callable[[Context], Callable[..., Any]]
    parameters: tuple[str, ...]
    returns: str


def database_path(con: duckdb.DuckDBPyConnection) -> str:
    """Path of the database of ``con``; a name unique to the instance when it is in memory."""
    sql = (
        "select coalesce(path, 'memory:' || database_oid) from duckdb_databases() "
        "where database_name = current_database()"
    )
    return str(one(con, sql)[0])


def is_registered(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the database instance of ``con`` has the Python functions."""
    return one(con, "select 1 from duckdb_functions() where function_name = 'm6_candidates' limit 1")[0] is not None


def context_of(con: duckdb.DuckDBPyConnection) -> Context:
    """The context of the database of ``con``.

    Raises NotInstalledError: the connection was never dressed by ``connect`` or ``install``.
    """
    from m6rec_udf.errors import NotInstalledError

    key = one(con, "select m6_context('')")[0] if is_registered(con) else None
    if key not in _CONTEXTS:
        raise NotInstalledError(
            "this connection does not have the m6rec functions, expected a connection dressed by m6rec",
            "call m6rec_udf.install(con), or open the file with m6rec_udf.connect(path)",
        )
    return _CONTEXTS[key]


def release(con: duckdb.DuckDBPyConnection) -> None:
    """Let go of what the functions of this database hold in memory, before its last connection is closed."""
    context = context_of(con)
    with context.lock:
        context.snapshots.clear()
        context.item_sets.clear()
        if context.cursor is not None:
            context.cursor.close()
    for key in [key for key, own in _CONTEXTS.items() if own is context]:
        del _CONTEXTS[key]


def _create(
    con: duckdb.DuckDBPyConnection, name: str, function: Callable[..., Any], parameters: tuple[str, ...], returns: str
) -> None:
    arrow: Any = "arrow"
    special: Any = "special"
    con.create_function(name, function, list(parameters), returns, type=arrow, null_handling=special)


def register(con: duckdb.DuckDBPyConnection, encoder: Encoder, project: Path | None) -> Context:
    """Register every function on the instance of ``con``; a no-op where it is done already."""
    from m6rec_udf.functions import FUNCTIONS

    with _LOCK:
        if is_registered(con):
            context = context_of(con)
            if encoder.name != context.encoder.name:
                context.encoder = encoder
            context.project = project or context.project
            return context
        path = database_path(con)
        read_only = one(con, "select readonly from duckdb_databases() where database_name = current_database()")[0]
        context = Context(path=path, read_only=bool(read_only), encoder=encoder, project=project)
        try:
            if path.startswith("memory:"):
                raise duckdb.Error("in memory")
            context.open().close()
        except duckdb.Error:  # in memory, or opened with settings of its own: share the instance by a cursor
            context.cursor = cursor(con)
            name = one(con, "select current_database()")[0]
            if one(con.cursor(), "select current_database()")[0] != name:
                context.catalog = name
        key = f"{path}#{len(_KEPT)}"
        _CONTEXTS[key] = context
        for function in FUNCTIONS:
            callable_ = function.make(context)
            _KEPT.append(callable_)
            _create(con, function.name, callable_, function.parameters, function.returns)

        def context_key(marker: Any) -> Any:
            import pyarrow as pa

            return pa.array([key] * len(marker), pa.string())

        _KEPT.append(context_key)
        _create(con, "m6_context", context_key, ("VARCHAR",), "VARCHAR")
        return context
