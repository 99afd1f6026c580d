"""Look over a database and name, for everything unusual, what was found and what to do."""

from __future__ import annotations

import datetime as dt
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf import registry, resources
from m6rec_udf.models import parameter_names
from m6rec_udf.publish import first_row

OK, WARN, FAIL = "ok", "warn", "fail"
_SEVERITY = {FAIL: 0, WARN: 1, OK: 2}
_SHOWN = 3
_MANY_BLOCKS = 40  # 10 MB: below that free space is no ailment


@dataclass(frozen=True)
class Finding:
    """One check and what it found."""

    check: str
    status: str
    found: str
    remedy: str


@dataclass(frozen=True)
class Check:
    """One SELECT of ``sql/checks``: the rows it returns are what is wrong."""

    name: str
    meaning: str
    status: str
    remedy: str
    sql: str


def doctor(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Check the database: one row per check, the worst first.

    Returns:
        A relation of ``check``, ``status`` (ok, warn or fail), ``found`` and ``remedy``.

    Example:
        >>> m6.doctor(con).filter("status <> 'ok'").show()  # doctest: +SKIP
    """
    rows = findings(con)
    columns = {
        "names": [row.check for row in rows],
        "statuses": [row.status for row in rows],
        "found": [row.found for row in rows],
        "remedies": [row.remedy for row in rows],
    }
    return con.sql(
        'select unnest($names) as "check", unnest($statuses) as status, '
        "unnest($found) as found, unnest($remedies) as remedy",
        params=columns,
    )


def findings(con: duckdb.DuckDBPyConnection, *, checked_at: dt.datetime | None = None) -> list[Finding]:
    """The findings of ``doctor`` as Python objects.

    Args:
        con: a connection to an m6rec database; it need not be built.
        checked_at: the wall clock, UTC without time zone; now by default.
    """
    now = checked_at or dt.datetime.now(dt.UTC).replace(tzinfo=None)
    if not _has_table(con, "active"):
        hint = "open the file with m6rec_udf.connect(path)"
        return [Finding("installed", FAIL, "the database has no m6rec tables", hint)]
    as_of = _built_as_of(con)
    found = [_built(con, as_of), _registered(con), _fragmented(con), _readable_by_others(con), _compiled()]
    if as_of is not None:
        found += [_current_encoder(con), _stale_vectors(con, as_of)]
    parameters = {"checked_at": now, "as_of": as_of or now}
    found += [_run(con, check, parameters) for check in load_checks() if as_of is not None or not _needs_build(check)]
    return sorted(found, key=lambda row: (_SEVERITY[row.status], row.check))


def load_checks(root: Path | None = None) -> list[Check]:
    """The checks of a folder (the shipped ``sql/checks`` by default), by name.

    Line 1 of a file says what a row means, line 2 is ``-- remedy (warn|fail): what to do``.
    """
    return [_parse(path) for path in sorted((root or resources.sql_root() / "checks").glob("chk_*.sql"))]


def _parse(path: Path) -> Check:
    text = path.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    remedy = re.match(r"-- remedy \((warn|fail)\): (.+)", rest)
    return Check(
        name=path.stem.removeprefix("chk_"),
        meaning=first.removeprefix("--").strip(),
        status=remedy[1] if remedy else FAIL,
        remedy=remedy[2].strip() if remedy else f"read sql/checks/{path.name}",
        sql=text,
    )


def _run(con: duckdb.DuckDBPyConnection, check: Check, parameters: dict[str, Any]) -> Finding:
    """Run one check; the rows it returns are counted and the first few shown."""
    names = parameter_names(_code(check.sql))
    unknown = [name for name in names if name not in parameters]
    if unknown:
        return Finding(check.name, OK, f"belongs to the build (parameter {', '.join(unknown)})", "")
    given = {name: parameters[name] for name in names}
    body = check.sql.rstrip().rstrip(";")
    try:
        result = con.execute(f"select *, count(*) over () as rows_found from (\n{body}\n) limit {_SHOWN}", given)
        columns = [column[0] for column in result.description][:-1]
        rows = result.fetchall()
    except duckdb.CatalogException as error:
        missing = str(error).splitlines()[0]
        return Finding(check.name, WARN, f"could not run: {missing}", "run `m6rec build`, then the doctor again")
    except duckdb.Error as error:
        return Finding(check.name, FAIL, f"could not run: {str(error).splitlines()[0]}", check.remedy)
    if not rows:
        return Finding(check.name, OK, "nothing", "")
    return Finding(check.name, check.status, _describe(check, columns, rows), check.remedy)


def _describe(check: Check, columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    """How many rows a check returned, what they mean, and the first few of them."""
    examples = "; ".join(
        ", ".join(f"{name} {value}" for name, value in zip(columns, row[:-1], strict=True)) for row in rows
    )
    more = " ..." if rows[0][-1] > len(rows) else ""
    meaning = re.sub(r"^one row( per|,)\s*", "", check.meaning)
    return f"{rows[0][-1]} x {meaning} ({examples}{more})"


def _code(text: str) -> str:
    """SQL without its line comments."""
    return re.sub(r"--[^\n]*", "", text)


def _needs_build(check: Check) -> bool:
    return bool(re.search(r"\b(m6\.models|m6\.artefacts|m6\.item_vectors)\b", _code(check.sql)))


def _has_table(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    row = first_row(
        con.execute(
            "select 1 from duckdb_tables() where schema_name = 'm6' and table_name = ? "
            "and database_name = current_database()",
            [name],
        )
    )
    return row is not None


def _built_as_of(con: duckdb.DuckDBPyConnection) -> dt.datetime | None:
    row = first_row(con.execute("select m.as_of from m6.active as a inner join m6.models as m using (model_version)"))
    return row[0] if row else None


def _built(con: duckdb.DuckDBPyConnection, as_of: dt.datetime | None) -> Finding:
    if as_of is None:
        row = first_row(con.execute("select (select count(*) from m6.events), (select count(*) from m6.items)"))
        assert row is not None
        remedy = "run `m6rec build`" if row[0] or row[1] else "run `m6rec load`, then `m6rec build`"
        return Finding("built", FAIL, f"no build, {row[0]} events and {row[1]} items", remedy)
    row = first_row(
        con.execute(
            "select a.model_version, (select count(*) from m6.events as e where e.event_seq > m.event_seq), "
            "(select count(*) from m6.feedback as f where f.feedback_seq > m.feedback_seq) "
            "from m6.active as a inner join m6.models as m using (model_version)"
        )
    )
    assert row is not None
    return Finding(
        "built", OK, f"build {row[0]} as of {as_of}; {row[1]} events and {row[2]} feedback rows came after it", ""
    )


def _registered(con: duckdb.DuckDBPyConnection) -> Finding:
    if registry.is_registered(con):
        return Finding("functions", OK, "the m6_* functions are registered", "")
    return Finding("functions", WARN, "this connection has no m6_* functions", "call m6rec_udf.install(con)")


def _current_encoder(con: duckdb.DuckDBPyConnection) -> Finding:
    """Whether the encoder of this connection is the one the build used."""
    row = first_row(
        con.execute(
            "select m.encoder, (select mode(len(v.vector)) from m6.item_vectors as v) "
            "from m6.active as a inner join m6.models as m using (model_version)"
        )
    )
    assert row is not None
    built, dimension = row
    if not registry.is_registered(con):
        return Finding("encoder", OK, f"the build used {built}; this connection has none", "")
    current = registry.context_of(con).encoder.name
    if current != built:
        return Finding(
            "encoder",
            FAIL,
            f"the build used {built} ({dimension} numbers a vector), this connection has {current}",
            f"connect with the encoder {built}, or run `m6rec build` with the new one",
        )
    return Finding("encoder", OK, f"{built}, {dimension} numbers a vector", "")


def _stale_vectors(con: duckdb.DuckDBPyConnection, as_of: dt.datetime) -> Finding:
    """Items whose text has changed since their vector was computed."""
    text = resources.read_sql("staging", "stg_items").rstrip().rstrip(";")
    given = {"as_of": as_of} if "as_of" in parameter_names(_code(text)) else {}
    try:
        rows = con.execute(
            f"with stg_items as (\n{text}\n) select i.item_id from stg_items as i "
            "inner join m6.item_vectors as v on i.item_id = v.item_id "
            "where sha256(i.item_text) <> v.content_hash order by i.item_id",
            given,
        ).fetchall()
    except duckdb.Error as error:
        return Finding("stale_vectors", WARN, f"could not run: {str(error).splitlines()[0]}", "run `m6rec build`")
    if rows:
        few = ", ".join(str(row[0]) for row in rows[:_SHOWN])
        return Finding("stale_vectors", WARN, f"{len(rows)} items changed since the build ({few})", "run `m6rec build`")
    return Finding("stale_vectors", OK, "nothing", "")


def _fragmented(con: duckdb.DuckDBPyConnection) -> Finding:
    """Whether much of the file is blocks that nothing uses: deleted rows, replaced builds."""
    row = first_row(
        con.execute(
            "select block_size, total_blocks, free_blocks from pragma_database_size() "
            "where database_name = current_database()"
        )
    )
    if row is None or not row[1]:
        return Finding("fragmented_file", OK, "nothing in a file", "")
    block, total, free = row
    found = f"{free} of {total} blocks are free ({free * block / 1e6:.0f} of {total * block / 1e6:.0f} MB)"
    if total >= _MANY_BLOCKS and free > total / 2:
        remedy = "close the file and call m6.compact(path): it is written afresh; free blocks also hold deleted bytes"
        return Finding("fragmented_file", WARN, found, remedy)
    return Finding("fragmented_file", OK, found, "")


def _readable_by_others(con: duckdb.DuckDBPyConnection) -> Finding:
    """Whether other people on the machine may read the file or its log, which holds people's behaviour."""
    row = first_row(con.execute("select path from duckdb_databases() where database_name = current_database()"))
    paths = [] if row is None or row[0] is None else [Path(row[0]), Path(f"{row[0]}.wal")]
    there = [path for path in paths if path.exists()]
    if not there or os.name != "posix" or not there[0].parent.stat().st_mode & 0o005:
        return Finding("readable_by_others", OK, "nothing", "")
    wide = [f"{path.name} ({path.stat().st_mode & 0o777:o})" for path in there if path.stat().st_mode & 0o077]
    if not wide:
        return Finding("readable_by_others", OK, "nothing", "")
    return Finding(
        "readable_by_others",
        WARN,
        f"others may read {' and '.join(wide)}",
        f"chmod 700 {there[0].parent}; or chmod 600 the file and run with umask 077, as DuckDB makes its log anew",
    )


def _compiled() -> Finding:
    """Whether the machine code of the inner loops is kept: else each process makes it anew before its first list."""
    from m6rec_udf.kernels.compiled import place

    kept = place()
    if kept is not None:
        return Finding("compiled_loops", OK, f"kept in {kept}", "")
    remedy = "set NUMBA_CACHE_DIR to a folder that can be written, and make the first list while an image is made"
    return Finding("compiled_loops", WARN, "no folder for machine code can be written: 20 s for each process", remedy)
