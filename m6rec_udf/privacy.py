"""Forget a person: delete their rows from the database and from its copies, and say what remains."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf.errors import M6Error, NotInstalledError
from m6rec_udf.publish import first_row, quote_name

_USER_COLUMNS = ("user_id", "other_user_id")
_USER_NUMBER = "user_idx"  # the user's number in the tables of the build in force, see stg_users
_FEEDBACK = """
delete from m6.feedback as f
where
    f.user_id = $user
    or (f.user_id is null and (
        f.impression_id in (select i.impression_id from m6.impressions as i where i.user_id = $user)
        or f.request_id in (select i.request_id from m6.impressions as i where i.user_id = $user)
    ))
    or f.impression_id in (select i.impression_id from m6.impressions as i where i.user_id = $user)
"""
_REJECTED = """
update m6.rejected_rows
set content = null, reason = case when regexp_matches(reason, $pattern) then 'forgotten' else reason end
where regexp_matches(coalesce(content, ''), $pattern) or regexp_matches(reason, $pattern)
"""


@dataclass
class _Report:
    """What one file held and what stays in it."""

    deleted: dict[str, int] = field(default_factory=dict)
    remains: list[str] = field(default_factory=list)


def forget_user(
    con: duckdb.DuckDBPyConnection, user_id: str, *, snapshots: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Delete everything stored about a user, in one transaction; a user who is not there changes nothing.

    Rows go from every table of the schema ``m6`` that has a column ``user_id`` or ``other_user_id``, from the tables
    of the build in force that know the user by a number (``user_idx``), from the feedback that answers the user's
    impressions and from the cached vectors of their profile; the text of rejected rows that mention them is
    blanked. The next query knows nothing of the user.

    Deleted bytes stay in free blocks of the file until it is written afresh: ``snapshot(con, to)`` writes a copy
    without them, ``compact(path)`` replaces a closed file (``m6rec forget`` does it). Copies named in
    ``snapshots`` are cleaned and compacted here; they must not be open elsewhere.

    Args:
        con: a connection to the database, outside a transaction.
        user_id: whom to forget.
        snapshots: files made by ``snapshot`` or ``publish`` that must forget the user too.

    Returns:
        ``deleted`` (rows per table, every table that was searched), ``total``, ``snapshots`` (rows per file),
        ``model_versions`` (builds that have read the user), ``artefacts`` (of these builds, those that hold the
        id itself) and ``remains`` (what was not or cannot be done, in words).

    Raises:
        NotInstalledError: the database holds no m6rec tables.
    """
    user = str(user_id)
    if not _tables(con):
        raise NotInstalledError(
            "the database has no m6rec tables, expected a file made by m6rec", "open it with m6rec_udf.connect(path)"
        )
    vectors = _text_hashes(con, user)
    report = _Report()
    con.execute("begin")
    try:
        _delete(con, user, vectors, report)
        total = sum(report.deleted.values())
        versions, artefacts = _built_with(con, user) if total else ([], [])
        if total:
            detail = {"deleted": report.deleted, "model_versions": versions, "artefacts": artefacts}
            con.execute("insert into m6.audit (action, detail) values ('forget_user', ?)", [json.dumps(detail)])
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    _forget_arrays(con)
    _checkpoint(con, report)
    if total:
        report.remains += _remains(con, versions)
    copies = {str(path): _forget_in_copy(Path(path), user, report) for path in snapshots}
    return {
        "deleted": report.deleted,
        "total": total,
        "snapshots": copies,
        "model_versions": versions,
        "artefacts": artefacts,
        "remains": report.remains,
    }


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Tables of the schema m6, each with its columns that hold a user's id."""
    rows = con.execute(
        "select t.table_name, list(c.column_name order by c.column_index) filter (where c.column_name in $names) "
        "from duckdb_tables() as t inner join duckdb_columns() as c "
        "on c.table_oid = t.table_oid and c.database_oid = t.database_oid "
        "where t.schema_name = 'm6' and t.database_name = current_database() and not t.temporary "
        "group by t.table_name order by t.table_name",
        {"names": [*_USER_COLUMNS, _USER_NUMBER]},
    ).fetchall()
    return {str(name): list(columns or []) for name, columns in rows}


def _delete(con: duckdb.DuckDBPyConnection, user: str, vectors: list[str], report: _Report) -> None:
    """Delete the user's rows table by table: feedback first, as impressions tell whose it is."""
    tables = _tables(con)
    given = {"user": user, "numbers": _numbers(con, user, tables)}
    if "feedback" in tables and "impressions" in tables:
        report.deleted["feedback"] = _count(con.execute(_FEEDBACK, {"user": user}))
    for table, columns in tables.items():
        if not columns:
            continue
        condition = " or ".join(
            f"list_contains($numbers, {column})" if column == _USER_NUMBER else f"cast({column} as varchar) = $user"
            for column in columns
        )
        found = _count(con.execute(f"delete from m6.{quote_name(table)} where {condition}", _used(condition, given)))
        report.deleted[table] = report.deleted.get(table, 0) + found
    if "rejected_rows" in tables:
        pattern = rf"(^|[^\w]){re.escape(user)}([^\w]|$)" if user else "^$.^"
        report.deleted["rejected_rows"] = _count(con.execute(_REJECTED, {"pattern": pattern}))
    if "text_vectors" in tables:
        report.deleted["text_vectors"] = _count(
            con.execute("delete from m6.text_vectors where content_hash in $hashes", {"hashes": vectors})
        )


def _numbers(con: duckdb.DuckDBPyConnection, user: str, tables: dict[str, list[str]]) -> list[int]:
    """The user's number in the tables of the build in force."""
    if not {"user_id", _USER_NUMBER} <= set(tables.get("stg_users", [])):
        return []
    rows = con.execute(f"select {_USER_NUMBER} from m6.stg_users where user_id = ?", [user]).fetchall()
    return [row[0] for row in rows]


def _used(text: str, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters that occur in a text."""
    return {name: value for name, value in given.items() if f"${name}" in text}


def _count(result: duckdb.DuckDBPyConnection) -> int:
    """Rows a DELETE or UPDATE touched."""
    row = first_row(result)
    return int(row[0]) if row else 0


def _text_hashes(con: duckdb.DuckDBPyConnection, user: str) -> list[str]:
    """Hashes of the texts about the user whose vectors may be cached."""
    if "users" not in _tables(con):
        return []
    hashes = con.execute(
        "select sha256(profile) from m6.users where user_id = ? and profile is not null", [user]
    ).fetchall()
    has_text = first_row(
        con.execute(
            "select 1 from duckdb_functions() where schema_name = 'm6' and function_name = 'behavior_text' limit 1"
        )
    )
    if has_text:
        hashes += con.execute(
            "select sha256(text) from (select m6.behavior_text(?) as text) where text is not null", [user]
        ).fetchall()
    return [row[0] for row in hashes]


def _built_with(con: duckdb.DuckDBPyConnection, user: str) -> tuple[list[int], list[str]]:
    """Builds kept in the file, and the names of their artefacts that hold the id itself."""
    tables = _tables(con)
    if not {"models", "artefact_names", "artefact_contents"} <= set(tables):
        return [], []
    versions = [row[0] for row in con.execute("select model_version from m6.models order by model_version").fetchall()]
    needles = [user.encode("utf-8").hex(), user.encode("utf-32-le").hex()] if user else []
    held = con.execute(
        "select distinct name from m6.artefacts where exists "
        "(select 1 from (select unnest($needles) as needle) where contains(lower(hex(content)), needle)) order by name",
        {"needles": needles},
    ).fetchall()
    return versions, [row[0] for row in held]


def _forget_arrays(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the arrays held in memory, so that the next query reads the file again."""
    from m6rec_udf import registry

    if registry.is_registered(con):
        context = registry.context_of(con)
        with context.lock:
            context.snapshots.clear()
            context.item_sets.clear()


def _checkpoint(con: duckdb.DuckDBPyConnection, report: _Report) -> None:
    """Move the deletion from the write-ahead log to the file, so that the log does not keep the rows."""
    try:
        con.execute("checkpoint")
    except duckdb.TransactionException as error:
        report.remains.append(
            f"the write-ahead log still holds the rows: {str(error).splitlines()[0]}; run CHECKPOINT when idle"
        )


def _remains(con: duckdb.DuckDBPyConnection, versions: list[int]) -> list[str]:
    """What deletion in this file does not reach."""
    remains = []
    row = first_row(con.execute("select path from duckdb_databases() where database_name = current_database()"))
    if row is not None and row[0] is not None:
        remains.append(
            "deleted bytes stay in free blocks of the file: close it and call m6.compact(path), "
            "or write a copy with m6.snapshot(con, to)"
        )
    if versions:
        numbers = ", ".join(map(str, versions))
        remains.append(f"builds {numbers} have learned from the user: run m6.build(con) for one without them")
    views = con.execute(
        "select view_name from duckdb_views() where schema_name = 'm6' and database_name = current_database() "
        "and view_name in ('events', 'users', 'relations', 'impressions', 'feedback') order by view_name"
    ).fetchall()
    remains += [f"m6.{name} is a view of a table of yours: delete the user there" for (name,) in views]
    remains.append("copies, publications and backups not named in snapshots were not touched")
    return remains


def _forget_in_copy(path: Path, user: str, report: _Report) -> int:
    """Delete the user's rows in another file and write it afresh; -1 where that was not possible."""
    from m6rec_udf.publish import compact

    if not path.exists():
        report.remains.append(f"{path} does not exist")
        return -1
    copied = _Report()
    try:
        with duckdb.connect(str(path)) as con:
            con.execute("begin")
            try:
                _delete(con, user, _copy_hashes(con, user), copied)
                con.execute("commit")
            except BaseException:
                con.execute("rollback")
                raise
        compact(path)
    except (duckdb.Error, M6Error) as error:
        report.remains.append(f"{path} could not be cleaned: {str(error).splitlines()[0]}")
        return sum(copied.deleted.values()) if copied.deleted else -1
    return sum(copied.deleted.values())


def _copy_hashes(con: duckdb.DuckDBPyConnection, user: str) -> list[str]:
    """Hashes of the profile texts in a copy (no functions are registered there)."""
    if "users" not in _tables(con):
        return []
    rows = con.execute("select sha256(profile) from m6.users where user_id = ? and profile is not null", [user])
    return [row[0] for row in rows.fetchall()]
