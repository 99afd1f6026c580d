"""Load data into the contract tables: all of it accounted for, in one transaction, twice the same as once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from m6rec_udf.errors import M6Error, NotInstalledError, ParameterError, SchemaError
from m6rec_udf.load_columns import CONTRACTS
from m6rec_udf.load_plan import EventTypes, Plan, make_plans, stage_query
from m6rec_udf.logs import logged
from m6rec_udf.sources import open_source

_LADDER = (5.0, 10.0, 100.0)
_LOG_ORDER = {
    "events": "happened_at, user_id, item_id, event_type, value, event_id",
    "feedback": (
        "happened_at, user_id, item_id, impression_id, request_id, event_type, value, feedback_id, ingested_at"
    ),
}
_INSERTS = {
    "events": (
        "insert into m6.events (event_id, user_id, item_id, event_type, value, happened_at, batch_id, event_seq) "
        "select event_id, user_id, item_id, event_type, value, happened_at, $batch, $base + (rowid - $first) "
        "from m6_sorted"
    ),
    "feedback": (
        "insert into m6.feedback (feedback_id, impression_id, request_id, user_id, item_id, event_type, value, "
        "happened_at, ingested_at, feedback_seq) "
        "select coalesce(feedback_id, $batch || '-' || (rowid - $first + 1)), impression_id, request_id, user_id, "
        "item_id, event_type, value, happened_at, coalesce(ingested_at, cast(now() at time zone 'UTC' as timestamp)), "
        "$base + (rowid - $first) from m6_sorted"
    ),
}
_COUNTS = ("given", "loaded", "rejected", "already_there")
_SEQUENCES = {"events": "m6.event_seq", "feedback": "m6.feedback_seq"}


@dataclass(frozen=True)
class TableReport:
    """What became of the rows handed over for one table: given = loaded + rejected + already_there.

    Attributes:
        given: rows handed over (events of a wide frame are counted one by one).
        loaded: rows new or changed in the table.
        rejected: rows in ``m6.rejected_rows``.
        already_there: rows known before, by key or because the whole batch was loaded before.
        reasons: rejected rows by reason.
    """

    given: int
    loaded: int
    rejected: int
    already_there: int
    reasons: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """``report["events"]["loaded"]``."""
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)


@dataclass(frozen=True)
class LoadReport(Mapping[str, TableReport]):
    """What `load` did, by table; a mapping that prints as a table."""

    tables: dict[str, TableReport]

    def __getitem__(self, table: str) -> TableReport:
        return self.tables[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __str__(self) -> str:
        lines = [f"{'table':<12}{'given':>12}{'loaded':>12}{'rejected':>12}{'already there':>15}"]
        for name, row in self.tables.items():
            lines.append(f"{name:<12}{row.given:>12,}{row.loaded:>12,}{row.rejected:>12,}{row.already_there:>15,}")
            lines += [f"    {count:,} rejected: {reason}" for reason, count in row.reasons.items()]
        return "\n".join(lines)


@logged("load", lambda report: {table: {name: row[name] for name in _COUNTS} for table, row in report.items()})
def load(
    con: duckdb.DuckDBPyConnection,
    *,
    events: Any = None,
    items: Any = None,
    users: Any = None,
    relations: Any = None,
    feedback: Any = None,
    event_types: Any = None,
    columns: Mapping[str, Mapping[str, str]] | None = None,
    wide: Mapping[str, str] | None = None,
    default_time: datetime | str | None = None,
) -> LoadReport:
    """Load rows into the contract tables, in one transaction: all of the call or nothing.

    Each table takes a Polars DataFrame or LazyFrame, a pyarrow Table or RecordBatchReader, a pandas DataFrame,
    a DuckDB relation, or paths and globs of Parquet, CSV or JSON files. Ids of any type become text; timestamps,
    dates, ISO text and epoch numbers (seconds; milli-, micro- and nanoseconds by their size) become UTC. ``ts`` and
    ``timestamp`` are taken for ``happened_at``, ``text`` for ``description``. Without ``event_type`` an event is a
    ``rating`` where there is a ``value`` and a ``view`` elsewhere. Unknown columns of items and users go to
    ``attributes``; those of the other tables are ignored.

    Rows that do not fit go to ``m6.rejected_rows`` with the reason. Events are known again by ``event_id``, a whole
    batch of events or feedback by the hash of its rows in any order. Items, users, relations and event types are
    inserted or updated by key; columns that are not given keep their values.

    Args:
        con: a connection dressed by `connect` or `install`, with no transaction open.
        events: user_id, item_id, happened_at; optional event_type, value, event_id.
        items: item_id; optional domain, title, description, category, brand, tags, price, ...
        users: user_id; optional segment, profile, attributes.
        relations: user_id, other_user_id; optional kind, weight.
        feedback: event_type, happened_at and impression_id, or item_id with request_id or user_id.
        event_types: event_type, interest, satisfaction; optional value_low, value_high, unit, description.
        columns: per table, contract column by source column.
        wide: event type by column of an events frame with one row per (user, item); a cell that is neither
            empty nor 0 is an event. Found by itself where columns are named like event types.
        default_time: UTC; happened_at of events and feedback that have no such column.

    Returns:
        given, loaded, rejected and already_there per table.

    Raises:
        SchemaError: columns are missing or of a wrong type (all mistakes at once), or the rows cannot be read.
        ParameterError: an argument is of the wrong kind, no file matches, or a transaction is open.
        NotInstalledError: the connection has no contract tables.

    Example:
        >>> import duckdb, polars
        >>> from m6rec_udf.connection import migrate
        >>> con = duckdb.connect()
        >>> _ = migrate(con)
        >>> frame = polars.DataFrame({"customer": [1], "item_id": ["a"], "ts": ["2024-05-01T10:00:00+02:00"]})
        >>> report = load(con, events=frame, columns={"events": {"customer": "user_id"}})
        >>> report["events"].loaded
        1
    """
    tables = {
        "event_types": event_types,
        "items": items,
        "users": users,
        "relations": relations,
        "events": events,
        "feedback": feedback,
    }
    given = {name: data for name, data in tables.items() if data is not None}
    if not given:
        raise ParameterError(f"found nothing to load, expected at least one of {', '.join(CONTRACTS)}")
    _require_ready(con)
    with ExitStack() as stack:
        stack.enter_context(_settings(con))
        sources = [stack.enter_context(open_source(con, name, data)) for name, data in given.items()]
        known = _event_types(con)
        plans = make_plans(
            sources, columns=columns or {}, wide=wide, default_time=_as_time(con, default_time), known=known
        )
        return LoadReport(_run(con, plans))


def _run(con: duckdb.DuckDBPyConnection, plans: list[Plan]) -> dict[str, TableReport]:
    """Load every table in one transaction."""
    reports: dict[str, TableReport] = {}
    table = ""
    con.execute("begin")
    try:
        for plan in plans:
            table = plan.table
            reports[table] = _load_table(con, plan)
        con.execute("drop table if exists temp.m6_stage")
        con.execute("drop table if exists temp.m6_sorted")
        con.execute("drop table if exists temp.m6_ranked")
        con.execute("commit")
    except BaseException as error:
        _rollback(con)
        if isinstance(error, duckdb.IOException) and "write" in str(error).lower():
            raise M6Error(
                f"{table}: loading stopped, nothing was loaded: {error}",
                "free space on the disk, then load the same again",
            ) from error
        if isinstance(error, duckdb.Error):
            raise SchemaError(
                f"{table}: loading stopped, nothing was loaded: {error}",
                "repair the source, or read it yourself and pass the frame",
            ) from error
        raise
    return reports


def _rollback(con: duckdb.DuckDBPyConnection) -> None:
    """Roll back; after a failed commit there is nothing left to roll back."""
    try:
        con.execute("rollback")
    except duckdb.TransactionException as error:
        if "no transaction" not in str(error):
            raise


def _require_ready(con: duckdb.DuckDBPyConnection) -> None:
    """Check that the contract tables are there and writable, and that no transaction is open."""
    found = con.execute(
        "select 1 from duckdb_tables() where schema_name = 'm6' and table_name = 'load_batches' "
        "and database_name = current_database()"
    ).fetchall()
    if not found:
        raise NotInstalledError(
            "this database has no m6 tables, expected a connection dressed by m6rec",
            "call m6rec_udf.install(con), or open the file with m6rec_udf.connect(path)",
        )
    if _row(con, "select readonly from duckdb_databases() where database_name = current_database()")[0]:
        raise ParameterError("found a read-only connection, expected one that may write", "open it without read_only")
    if _transaction(con) == _transaction(con):
        raise ParameterError("found an open transaction, expected none: load is one by itself", "commit or roll back")


def _transaction(con: duckdb.DuckDBPyConnection) -> int:
    """Number of the current transaction; without an open one every statement has its own."""
    return int(_row(con, "select txid_current()")[0])


@contextmanager
def _settings(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Text without an offset is UTC, and rows keep their order, whatever the caller has set."""
    wanted = {"TimeZone": "UTC", "preserve_insertion_order": "true"}
    before = {name: str(_row(con, f"select current_setting('{name}')")[0]) for name in wanted}
    changed = {name: old for name, old in before.items() if old.lower() != wanted[name].lower()}
    for name in changed:
        con.execute(f"set {name} = '{wanted[name]}'")
    try:
        yield
    finally:
        for name, old in changed.items():
            con.execute(f"set {name} = ?", [old])


def _as_time(con: duckdb.DuckDBPyConnection, moment: datetime | str | None) -> datetime | None:
    """A moment as naive UTC."""
    if moment is None:
        return None
    row = None
    if isinstance(moment, datetime | str):
        row = _row(con, "select make_timestamp(epoch_us(try_cast($moment as timestamptz)))", {"moment": moment})
    if row is None or not isinstance(row[0], datetime) or not 1970 <= row[0].year < 2200:
        raise ParameterError(f"found default_time={moment!r}, expected a time between 1970 and 2200")
    return row[0]


def _event_types(con: duckdb.DuckDBPyConnection) -> EventTypes:
    """The event types in force."""
    rows = con.execute("select event_type, value_low is not null from m6.event_types").fetchall()
    return EventTypes(frozenset(row[0] for row in rows), frozenset(row[0] for row in rows if row[1]))


def _load_table(con: duckdb.DuckDBPyConnection, plan: Plan) -> TableReport:
    """Stage, recognise, insert, account."""
    query, parameters = stage_query(plan, _event_types(con))
    con.execute(f"create or replace temp table m6_stage as {query}", parameters)
    names = ", ".join(plan.columns)
    given, refused, first, sum_, xor = _row(
        con,
        "select count(*), count(reason), min(row_id), sum(row_hash), bit_xor(row_hash) from ("
        f"select rowid as row_id, reason, hash(hash({names}, reason, content)) as row_hash from m6_stage)",
    )
    if given == 0:
        return TableReport(0, 0, 0, 0)
    batch = hashlib.md5(f"{plan.table}:{names}:{given}:{sum_}:{xor}".encode(), usedforsecurity=False).hexdigest()
    is_known = bool(con.execute("select 1 from m6.load_batches where batch_id = ?", [batch]).fetchall())
    if is_known and plan.contract.is_log:
        return TableReport(given, 0, 0, given)
    loaded, copies = _append(con, plan, batch, given - refused) if plan.contract.is_log else _upsert(con, plan)
    if is_known and loaded == 0:
        return TableReport(given, 0, 0, given)
    rejected = refused + copies
    reasons = _write_rejected(con, plan, batch, first, copies, is_known=is_known) if rejected else {}
    already = given - rejected - loaded
    con.execute(
        "insert or replace into m6.load_batches (batch_id, table_name, given, loaded, rejected, already_there) "
        "values (?, ?, ?, ?, ?, ?)",
        [batch, plan.table, given, loaded, rejected, already],
    )
    return TableReport(given, loaded, rejected, already, reasons)


def _append(con: duckdb.DuckDBPyConnection, plan: Plan, batch: str, rows: int) -> tuple[int, int]:
    """Append the new rows of a log, ``rows`` before known ones go, in the order of their content; (loaded, 0).

    Where every row has a key they come in its order: to put keys in order into the index that keeps them unique takes
    a third of the time, and of equal keys one stands behind the other.
    """
    (key,), order = plan.contract.key, _LOG_ORDER[plan.table]
    keys = 0
    if key in plan.picks:
        keys = _row(con, f"select count({key}) from m6_stage where reason is null")[0]
    by = key if keys == rows else order
    _sort(con, plan, by, has_keys=keys > 0)
    twice = f"select count({key}) > count(distinct {key}) from m6_sorted"
    if keys == rows:
        neighbours = f"select {key} = lag({key}) over () as is_copy from m6_sorted"
        twice = f"select coalesce(bool_or(is_copy), false) from ({neighbours})"
    if keys and _row(con, twice)[0]:
        once = f"qualify {key} is null or row_number() over (partition by {key} order by {order}) = 1"
        _sort(con, plan, by, has_keys=True, once=once)
    count, first, best = _row(
        con, "select count(*), min(rowid), max(value) filter (where event_type = 'rating') from m6_sorted"
    )
    if count:
        base = _reserve(con, _SEQUENCES[plan.table], count)
        con.execute(_INSERTS[plan.table], {"batch": batch, "base": base, "first": first})
    if best is not None and plan.table == "events":
        raise_scale(con, best)
    return count, 0


def _sort(con: duckdb.DuckDBPyConnection, plan: Plan, by: str, *, has_keys: bool, once: str = "") -> None:
    """The staged rows that fit and are not there yet as m6_sorted."""
    (key,) = plan.contract.key
    unseen = f"and not exists (select 1 from m6.{plan.table} as t where t.{key} = s.{key})" if has_keys else ""
    con.execute(
        f"create or replace temp table m6_sorted as select {', '.join(plan.columns)} from m6_stage as s "
        f"where reason is null {unseen} {once} order by {by}"
    )


def _reserve(con: duckdb.DuckDBPyConnection, sequence: str, count: int) -> int:
    """First of ``count`` numbers in a row that nobody else gets."""
    while True:
        low, high = _row(
            con,
            f"select min(number), max(number) from (select nextval('{sequence}') as number from range($count))",
            {"count": count},
        )
        if high - low + 1 == count:
            return int(low)


def raise_scale(con: duckdb.DuckDBPyConnection, best: float) -> None:
    """Ratings above the scale of m6.event_types lift its upper end to 5, 10, 100 or their maximum."""
    top = next((step for step in _LADDER if best <= step), best)
    con.execute("update m6.event_types set value_high = ? where event_type = 'rating' and value_high < ?", [top, best])


def _upsert(con: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[int, int]:
    """Insert or update by key; returns (new or changed rows, copies of a key within the batch)."""
    key, names = plan.contract.key, plan.columns
    others = [name for name in names if name not in key]
    same = " and ".join([f"t.{key[0]} is not null", *(f"s.{name} is not distinct from t.{name}" for name in others)])
    match = " and ".join(f"s.{name} = t.{name}" for name in key)
    own_key = ", ".join(f"s.{name}" for name in key)
    con.execute(
        f"create or replace temp table m6_ranked as select s.*, s.rowid as row_id, {same} as is_same, "
        f"row_number() over (partition by {own_key} order by {_row_hash(names)} desc, s.rowid) as copy "
        f"from m6_stage as s left join m6.{plan.table} as t on {match} where s.reason is null"
    )
    changed, copies = _row(
        con, "select count(*) filter (where copy = 1 and not is_same), count(*) filter (where copy > 1) from m6_ranked"
    )
    if changed:
        action = f"update set {', '.join(f'{name} = excluded.{name}' for name in others)}" if others else "nothing"
        con.execute(
            f"insert into m6.{plan.table} ({', '.join(names)}) select {', '.join(names)} from m6_ranked "
            f"where copy = 1 and not is_same order by {', '.join(key)} "
            f"on conflict ({', '.join(key)}) do {action}"
        )
    return changed, copies


def _row_hash(names: list[str]) -> str:
    """SQL hash over staged columns."""
    return f"hash({', '.join(f's.{name}' for name in names)})"


def _write_rejected(
    con: duckdb.DuckDBPyConnection, plan: Plan, batch: str, first: int, copies: int, *, is_known: bool
) -> dict[str, int]:
    """Write refused rows and copies to m6.rejected_rows, once per batch; returns how many per reason."""
    parameters: dict[str, Any] = {}
    refused = "select rowid as row_id, reason, content from m6_stage where reason is not null"
    if copies:
        row = ", ".join(f"{name} := {name}" for name in plan.columns)
        refused += (
            " union all select row_id, $copy_reason, cast(to_json(struct_pack("
            f"{row})) as varchar) from m6_ranked where copy > 1"
        )
        parameters["copy_reason"] = f"duplicate {', '.join(plan.contract.key)} in batch"
    if not is_known:
        con.execute(
            "insert into m6.rejected_rows (batch_id, table_name, row_number, reason, content) "
            f"select $batch, $table, row_id - $first + 1, reason, content from ({refused}) order by row_id",
            {**parameters, "batch": batch, "table": plan.table, "first": first},
        )
    rows = con.execute(
        f"select reason, count(*) from ({refused}) group by reason order by count(*) desc, reason", parameters
    ).fetchall()
    return {str(reason): int(count) for reason, count in rows}


def _row(con: duckdb.DuckDBPyConnection, query: str, parameters: Any = None) -> Any:
    """The only row of a query; reads to the end, since an unfinished result blocks the connection."""
    (row,) = con.execute(query, parameters).fetchall()
    return row
