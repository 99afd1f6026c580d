"""Hand results to others: tables that need no Python, and copies that many processes can read."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf import files
from m6rec_udf.errors import LockedError, M6Error, NotBuiltError, NotInstalledError, ParameterError
from m6rec_udf.logs import logged
from m6rec_udf.query import cursor

PUBLISHED_STORAGE = "v1.4.0"
_STAGE = "m6_publish_stage"
_LISTS = """
create or replace temp table m6_publish_stage as
with

lists as (
    select * from m6.recommend_many('m6.known_users', k := $k)
    union all by name
    select * replace ('*' as user_id) from m6.recommend('', k := $k)
),

titled as (
    select lists.*, items.title, items.category
    from lists
    left join m6.items as items on lists.item_id = items.item_id
)

select * from titled
order by user_id, rank, item_id
"""
_TABLE_COMMENT = "one row per (user_id, rank): published lists; user_id * is the list for everybody else"
_COLUMN_COMMENTS = {
    "user_id": "who; * for a user not listed here",
    "item_id": "see m6.items",
    "rank": "place in the list, from 1",
    "score": "what the list is ordered by",
    "satisfaction": "calibrated expected satisfaction in [0, 1]",
    "strategy": "strategy that proposed the item",
    "reason": "why, in words",
    "domain": "domain of the item",
    "policy_version": "strategy weights in force when published",
    "model_version": "build in force when published",
    "title": "title of the item when published",
    "category": "category of the item when published",
}


def quote_name(name: str) -> str:
    """A SQL identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """A SQL string literal, for the statements that take no parameters (ATTACH, COMMENT)."""
    return "'" + text.replace("'", "''") + "'"


def first_row(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...] | None:
    """The first row of an executed query; reads all, as an unfinished result blocks the connection's relations."""
    rows = result.fetchall()
    return rows[0] if rows else None


@logged("publish", lambda rows: {"rows": rows})
def publish(con: duckdb.DuckDBPyConnection, *, to: str | Path | None = None, k: int = 10) -> int:
    """Write the lists of all users as ``m6.recommendations``: any DuckDB client reads them, without m6rec.

    The columns are those of ``m6.recommend`` with the item's title and category beside them. ``user_id``
    ``*`` is the list for a user not in the table.

    Args:
        con: a dressed connection to a built database.
        to: a file of its own (replaced in one step, in storage version v1.4.0, so that older DuckDB shells
            read it); None writes into the database itself, in one transaction.
        k: length of each list.

    Returns:
        The number of rows written.

    Raises:
        NotBuiltError: nothing is built yet.
        ParameterError: ``k`` is below 1, or ``to`` is not ours to replace.
        LockedError: another process writes ``to``.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ParameterError(f"k is {k!r}, expected a whole number from 1", "pass for example k=10")
    require_built(con)
    work = cursor(con)
    try:
        work.execute(_LISTS, {"k": k})
        try:
            if to is None:
                _write(work, "m6")
            else:
                with _new_file(work, Path(to), PUBLISHED_STORAGE) as catalog:
                    work.execute(f"create schema {catalog}.m6")
                    _write(work, f"{catalog}.m6")
            row = first_row(work.execute(f"select count(*) from {_STAGE}"))
        finally:
            work.execute(f"drop table if exists {_STAGE}")
    finally:
        work.close()
    assert row is not None
    return int(row[0])


@logged("snapshot")
def snapshot(con: duckdb.DuckDBPyConnection, to: str | Path) -> Path:
    """Copy the whole database to a new file in one step: what read-only processes serve from.

    The copy is one consistent moment and is written afresh, so nothing that was deleted is in it; the connection may
    go on serving and writing meanwhile. A file already at ``to`` is replaced only when it is an m6rec database; its
    readers keep the file they opened (`m6rec_udf.Serving` notices the new one). A new file is its owner's alone
    (mode 600).

    Raises:
        ParameterError: ``to`` is the database itself, or a file m6rec did not write.
        LockedError: another process writes ``to``.
    """
    target = Path(to)
    work = cursor(con)
    try:
        source = _current(work)[0]
        with _new_file(work, target, None) as catalog:
            work.execute(f"copy from database {quote_name(source)} to {catalog}")
            _copy_triggers(work, source, catalog)
    finally:
        work.close()
    return target


def require_built(con: duckdb.DuckDBPyConnection) -> int:
    """The version of the build in force.

    Raises:
        NotBuiltError: the database holds no build.
        NotInstalledError: the database holds no m6rec tables.
    """
    try:
        row = first_row(con.execute("select model_version from m6.active"))
    except duckdb.CatalogException as error:
        raise NotInstalledError(
            "the database has no m6rec tables, expected a file made by m6rec",
            "open it with m6rec_udf.connect(path), then load and build",
        ) from error
    if row is None or row[0] is None:
        raise NotBuiltError(
            "the database is not built yet, expected one build in force",
            "call m6.build(con), or run `m6rec build`",
        )
    return int(row[0])


def _write(work: duckdb.DuckDBPyConnection, schema: str) -> None:
    """The staged rows as ``<schema>.recommendations`` with its comments, in one transaction."""
    columns = [row[0] for row in work.execute(f"select column_name from (describe {_STAGE})").fetchall()]
    work.execute("begin")
    try:
        work.execute(
            f"create or replace table {schema}.recommendations as from {_STAGE} order by user_id, rank, item_id"
        )
        work.execute(f"comment on table {schema}.recommendations is {quote_text(_TABLE_COMMENT)}")
        for name in columns:
            text = quote_text(_COLUMN_COMMENTS.get(name, "see m6.recommend"))
            work.execute(f"comment on column {schema}.recommendations.{quote_name(name)} is {text}")
        work.execute("commit")
    except BaseException:
        work.execute("rollback")
        raise


def _copy_triggers(work: duckdb.DuckDBPyConnection, source: str, catalog: str) -> None:
    """Create the triggers in the copy: COPY FROM DATABASE leaves them out."""
    statements = work.execute(
        "select sql from duckdb_triggers() where database_name = ? and not temporary order by trigger_name", [source]
    ).fetchall()
    if not statements:
        return
    work.execute(f"use {catalog}")
    try:
        for (statement,) in statements:
            work.execute(statement)
    finally:
        work.execute(f"use {quote_name(source)}")


def _current(con: duckdb.DuckDBPyConnection) -> tuple[str, str | None]:
    """Name and path of the current database."""
    row = first_row(
        con.execute("select database_name, path from duckdb_databases() where database_name = current_database()")
    )
    assert row is not None
    return str(row[0]), None if row[1] is None else str(row[1])


@contextmanager
def _new_file(work: duckdb.DuckDBPyConnection, target: Path, storage: str | None) -> Iterator[str]:
    """Attach a new file beside ``target`` and yield its catalog name; on success it takes the target's place."""
    if work.execute("select current_setting('enable_external_access')").fetchall() == [(False,)]:
        raise ParameterError(
            f"found a connection without external access, expected one that may write {target}",
            "do it on a connection with external_access=True",
        )
    _require_replaceable(work, target)
    catalog = f"m6_new_{uuid.uuid4().hex[:12]}"
    options = "read_write" if storage is None else f"read_write, storage_version {quote_text(storage)}"
    with private_folder(target) as folder:
        temporary = folder / target.name
        work.execute(f"attach {quote_text(str(temporary))} as {catalog} ({options})")
        try:
            yield catalog
            work.execute(f"checkpoint {catalog}")
        finally:
            work.execute(f"detach {catalog}")
        take_place(temporary, target)


@contextmanager
def private_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that its owner alone can enter, gone afterwards.

    What processes killed in here have left for this target is removed first: it may hold people's rows.
    """
    prefix, suffix = f".{target.name}.", ".tmp"
    for left in target.parent.glob(f"{glob.escape(prefix)}*{suffix}"):
        process = left.name.removeprefix(prefix).split("-")[0]
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    folder = target.with_name(f"{prefix}{os.getpid()}-{uuid.uuid4().hex[:12]}{suffix}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be told."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def take_place(temporary: Path, target: Path) -> None:
    """Put a finished file in the place of ``target`` so that a loss of power leaves one of the two, whole."""
    os.chmod(temporary, target.stat().st_mode & 0o777 if target.exists() else 0o600)
    _sync(temporary)
    os.replace(temporary, target)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_replaceable(work: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Refuse a target that is the open database, lies in no folder, or was not written by m6rec."""
    if target.stem == "m6":
        raise ParameterError(
            f"{target} has the stem m6, expected another: DuckDB would take m6.items for a table of the database m6",
            "choose a name such as shop.duckdb",
        )
    if not target.parent.is_dir():
        raise ParameterError(f"the folder {target.parent} does not exist", f"mkdir -p {target.parent}")
    if not target.exists():
        return
    path = _current(work)[1]
    if path is not None and Path(path).exists() and os.path.samefile(path, target):
        raise ParameterError(f"{target} is the open database itself, expected another file", "choose another name")
    try:
        with duckdb.connect(str(target), read_only=True) as other:
            found = first_row(
                other.execute(
                    "select 1 from duckdb_tables() where schema_name = 'm6' "
                    "and table_name in ('migrations', 'recommendations') limit 1"
                )
            )
    except (duckdb.ConnectionException, duckdb.BinderException) as error:
        raise LockedError(
            f"{target} is open for writing in this process, expected no writer", "close its connection first"
        ) from error
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise LockedError(
                f"{target} is open for writing in another process, expected no writer", "close that process first"
            ) from error
        found = None
    if found is None:
        raise ParameterError(
            f"{target} exists and was not written by m6rec, expected a new file or an earlier publication",
            "choose another name, or move the file away yourself",
        )


@logged("compact", lambda sizes: {"bytes_before": sizes[0], "bytes_after": sizes[1]})
def compact(path: str | Path) -> tuple[int, int]:
    """Write a closed database file afresh, so that the bytes of deleted rows are gone.

    DuckDB marks the blocks of deleted rows as free but leaves their bytes in the file. Every connection to the
    file must be closed: the file is replaced in one step and an open connection would go on with the old one.

    Returns:
        The size in bytes before and after.

    Raises:
        LockedError: the file is open in this process or in another.
        M6Error: there is no such file.
    """
    from m6rec_udf.connection import connect

    target = Path(path)
    if not target.exists():
        raise M6Error(f"there is no file {target}, expected a database", "check the path")
    before = target.stat().st_size
    require_closed(target).close()
    with private_folder(target) as folder:
        temporary = folder / target.name
        with duckdb.connect(str(target)) as con:
            is_warehouse, storage = _kind(con)
            if not is_warehouse:
                _copy_plain(con, temporary, storage)
        if is_warehouse:
            dressed = connect(target)
            try:
                snapshot(dressed, temporary)
            finally:
                dressed.close()
        guard = require_closed(target)  # keeps writers away until the new file is in place
        try:
            take_place(temporary, target)
        finally:
            guard.close()
    return before, target.stat().st_size


def require_closed(target: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to a file that nobody writes."""
    try:
        return duckdb.connect(str(target), read_only=True)
    except (duckdb.ConnectionException, duckdb.BinderException, duckdb.IOException) as error:
        raise LockedError(
            f"{target} is open elsewhere, expected every connection to it closed ({str(error).splitlines()[0]})",
            "close the other connections, then call m6.compact(path) again",
        ) from error


def _kind(con: duckdb.DuckDBPyConnection) -> tuple[bool, str]:
    """Whether a file is an m6rec database (else a publication), and its storage version."""
    found = first_row(
        con.execute("select 1 from duckdb_tables() where schema_name = 'm6' and table_name = 'migrations'")
    )
    row = first_row(
        con.execute("select tags['storage_version'] from duckdb_databases() where database_name = current_database()")
    )
    assert row is not None
    return found is not None, str(row[0]).rstrip("+")


def _copy_plain(con: duckdb.DuckDBPyConnection, temporary: Path, storage: str) -> None:
    """Copy a file of tables alone, in its own storage version."""
    source = _current(con)[0]
    with files.private():
        con.execute(
            f"attach {quote_text(str(temporary))} as m6_compact (read_write, storage_version {quote_text(storage)})"
        )
    con.execute(f"copy from database {quote_name(source)} to m6_compact")
    con.execute("detach m6_compact")
