"""Forget a person: delete their rows from the database and from its copies, and say what remains."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf.errors import M6Error, NotInstalledError, ParameterError
from m6rec_udf.files import occurrences
from m6rec_udf.logs import logged
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
    or regexp_full_match(coalesce(f.request_id, ''), $named) or regexp_full_match(coalesce(f.impression_id, ''), $named)
"""
_NAMED = (
    r"(.*-)?{}(-\d+)?"  # m6.serve(request := 'r1') names its requests r1-<user_id>, the impressions r1-<user_id>-<rank>
)
_FREE_BLOCKS = "deleted bytes stay in free blocks of the file"
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


@logged("forget_user", lambda report: {"rows": report["total"], "copies": len(report["snapshots"])})
def forget_user(
    con: duckdb.DuckDBPyConnection | str | Path,
    user_id: str,
    *,
    snapshots: Sequence[str | Path] = (),
    ticket: str | None = None,
) -> dict[str, Any]:
    """Delete everything stored about a user, in one transaction; a user who is not there changes nothing.

    Rows go from every table of the schema ``m6`` that has a column ``user_id`` or ``other_user_id``, from the tables
    of the build in force that know the user by a number (``user_idx``), from the feedback that answers the user's
    impressions and from the cached vectors of their profile; the text of rejected rows that mention them is
    blanked. The next query knows nothing of the user.

    Deleted bytes stay in free blocks of the file until it is written afresh, and a file cannot be replaced under an
    open connection. So name the closed file instead of a connection: it is opened, cleaned, written afresh beside
    itself, put in its place in one step and searched byte by byte (``m6rec forget`` does the same). With a connection
    the rows are gone and the bytes remain until ``compact(path)``. Copies named in ``snapshots`` are cleaned and
    written afresh in either case; they must not be open elsewhere.

    The audit row says what was deleted, and neither the id nor a hash of it: who can guess an id can try its hash.
    ``ticket`` is kept there, so that a request can be shown to have been carried out.

    Args:
        con: the path of the closed file, or a connection to the database, outside a transaction.
        user_id: whom to forget.
        snapshots: files made by ``snapshot`` or ``publish`` that must forget the user too.
        ticket: a number of the request, for the audit row.

    Returns:
        ``deleted`` (rows per table, every table that was searched), ``total``, ``snapshots`` (rows per file),
        ``model_versions`` (builds that have read the user), ``artefacts`` (of these builds, those that hold the
        id itself), ``occurrences`` (how often the bytes of the id were found afterwards, by file that was written
        afresh; a short id also occurs by chance) and ``remains`` (what was not or cannot be done, in words).

    Raises:
        NotInstalledError: the database holds no m6rec tables.
        LockedError: the file named is open.
        ParameterError: there is no such file, or the ticket holds the id.
    """
    user = str(user_id)
    if ticket is not None and user and user in ticket:
        raise ParameterError("the ticket holds the id of the user, expected text that does not", "ticket='2024-117'")
    if isinstance(con, str | Path):
        return _forget_in_file(Path(con), user, snapshots, ticket)
    if not _tables(con):
        raise NotInstalledError(
            "the database has no m6rec tables, expected a file made by m6rec", "open it with m6rec_udf.connect(path)"
        )
    vectors = _text_hashes(con, user)
    report = _Report()
    con.execute("begin")
    try:
        con.execute("update m6.active set policy_version = policy_version")  # a build that commits meanwhile fails
        _delete(con, user, vectors, report)
        total = sum(report.deleted.values())
        versions, artefacts = _built_with(con, user) if total else ([], [])
        if total:
            detail = {"deleted": report.deleted, "model_versions": versions, "artefacts": artefacts, "ticket": ticket}
            con.execute("insert into m6.audit (action, detail) values ('forget_user', ?)", [json.dumps(detail)])
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    _forget_arrays(con)
    _checkpoint(con, report)
    if total:
        report.remains += _remains(con, versions)
    report.remains += _mentions(con, user)
    copies = {str(path): _forget_in_copy(Path(path), user, report) for path in snapshots}
    return {
        "deleted": report.deleted,
        "total": total,
        "snapshots": copies,
        "model_versions": versions,
        "artefacts": artefacts,
        "occurrences": {path: occurrences(path, user) for path, rows in copies.items() if rows >= 0},
        "remains": report.remains,
    }


def _forget_in_file(path: Path, user: str, snapshots: Sequence[str | Path], ticket: str | None) -> dict[str, Any]:
    """Forget in a closed file, and write it afresh."""
    from m6rec_udf.connection import connect
    from m6rec_udf.publish import compact, require_closed

    if not path.exists():
        raise ParameterError(f"there is no file {path}, expected a database", "check the path")
    require_closed(path).close()
    con = connect(path)
    try:
        report = forget_user(con, user, snapshots=snapshots, ticket=ticket)
    finally:
        con.close()
    compact(path)
    report["remains"] = [text for text in report["remains"] if not text.startswith(_FREE_BLOCKS)]
    report["occurrences"] = {str(path): occurrences(path, user), **report["occurrences"]}
    return report


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
        named = _NAMED.format(re.escape(user)) if user else "^$.^"
        report.deleted["feedback"] = _count(con.execute(_FEEDBACK, {"user": user, "named": named}))
    last = ["history_edits"]  # deleting events writes into it
    for table, columns in sorted(tables.items(), key=lambda pair: pair[0] in last):
        if not columns:
            continue
        condition = " or ".join(
            f"list_contains($numbers, {column})" if column == _USER_NUMBER else f"cast({column} as varchar) = $user"
            for column in columns
        )
        found = _count(con.execute(f"delete from m6.{quote_name(table)} where {condition}", _used(condition, given)))
        report.deleted[table] = report.deleted.get(table, 0) + found
    if "rejected_rows" in tables:
        report.deleted["rejected_rows"] = _count(con.execute(_REJECTED, {"pattern": _as_word(user)}))
    if "text_vectors" in tables:
        report.deleted["text_vectors"] = _count(
            con.execute("delete from m6.text_vectors where content_hash in $hashes", {"hashes": vectors})
        )


def _as_word(user: str) -> str:
    """Regular expression of an id that stands by itself in a text."""
    return rf"(^|[^\w]){re.escape(user)}([^\w]|$)" if user else "^$.^"


def _mentions(con: duckdb.DuckDBPyConnection, user: str) -> list[str]:
    """Where the id still stands in a text: in fields of other rows, and in tables that are not m6rec's."""
    if not user:
        return []
    columns = con.execute(
        "select c.schema_name, c.table_name, c.column_name from duckdb_columns() as c "
        "inner join duckdb_tables() as t on t.table_oid = c.table_oid and t.database_oid = c.database_oid "
        "where c.database_name = current_database() and not t.temporary "
        "and c.data_type in ('VARCHAR', 'JSON', 'VARCHAR[]') order by all"
    ).fetchall()
    found = []
    for schema, table, column in columns:
        name, text = f"{quote_name(schema)}.{quote_name(table)}", f"cast({quote_name(column)} as varchar)"
        row = first_row(
            con.execute(
                f"select count(*) from {name} where contains({text}, $user) and regexp_matches({text}, $word)",
                {"user": user, "word": _as_word(user)},
            )
        )
        if row is not None and row[0]:
            found.append(
                f"{schema}.{table}.{column} mentions the id in {row[0]} rows: they are not the user's, edit them"
            )
    return found


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
            f"{_FREE_BLOCKS}: close it and call m6.compact(path), or write a copy with m6.snapshot(con, to); "
            "m6.forget_user(path, user_id) does all of it"
        )
    if versions:
        numbers = ", ".join(map(str, versions))
        remains.append(
            f"builds {numbers} have learned from the user: run m6.build(con), which learns afresh, for one without "
            "them; then delete these versions from m6.artefact_names, and from m6.artefact_contents what none names"
        )
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
            report.remains += [f"{path}: {text}" for text in _mentions(con, user)]
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
