"""Use tables where they are: views of the contract over the user's own tables, nothing copied."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from m6rec_udf import histories
from m6rec_udf.errors import ParameterError, SchemaError, UnknownNameError
from m6rec_udf.query import one
from m6rec_udf.sources import quote

# contract column -> SQL of its default where the user's table has none; None: required
_EVENTS = {
    "event_id": "cast(null as varchar)",
    "user_id": None,
    "item_id": None,
    "event_type": "'view'",
    "value": "cast(null as double)",
    "happened_at": None,
}
_ITEMS = {
    "item_id": None,
    "domain": "'default'",
    "title": "cast(null as varchar)",
    "description": "cast(null as varchar)",
    "category": "cast(null as varchar)",
    "brand": "cast(null as varchar)",
    "tags": "cast(null as varchar[])",
    "price": "cast(null as double)",
    "image_path": "cast(null as varchar)",
    "created_at": "cast(null as timestamp)",
    "is_available": "true",
    "attributes": "cast(null as json)",
}
_TYPES = {
    "value": "double",
    "price": "double",
    "happened_at": "timestamp",
    "created_at": "timestamp",
    "tags": "varchar[]",
    "is_available": "boolean",
    "attributes": "json",
}


def use_tables(
    con: duckdb.DuckDBPyConnection,
    *,
    events: str | None = None,
    items: str | None = None,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Read events and items from tables or views of the same database, without copying them.

    ``m6.events`` and ``m6.items`` become views; rows that break the contract (no user, item or time) are left
    out by the view. ``load`` into such a table is refused by the database. New rows count in the next query.

    Args:
        con: a dressed connection.
        events, items: name of a table or view, ``shop.orders``.
        columns: source column to contract column, by table, as in ``load``.

    Raises:
        UnknownNameError: there is no such table.
        SchemaError: a required column is missing.
        ParameterError: the contract table already holds rows, or no table is named.
    """
    given = {"events": (events, _EVENTS), "items": (items, _ITEMS)}
    todo = {table: pair for table, pair in given.items() if pair[0] is not None}
    if not todo:
        raise ParameterError("found no table to use, expected events or items", "use_tables(con, events='shop.orders')")
    statements = [
        _view(con, table, str(source), contract, dict((columns or {}).get(table, {})))
        for table, (source, contract) in todo.items()
    ]
    con.execute("begin")
    try:
        for statement in statements:
            con.execute(statement)
        histories.reset(con)
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise


def _view(
    con: duckdb.DuckDBPyConnection, table: str, source: str, contract: Mapping[str, str | None], mapped: dict[str, str]
) -> str:
    name = ".".join(quote(part) for part in source.split("."))
    try:
        found = [row[0] for row in con.execute(f"describe from {name}").fetchall()]
    except duckdb.CatalogException as error:
        raise UnknownNameError(
            f"there is no table {source!r} ({str(error).splitlines()[0]}), expected a table or view of this database",
            "name it with its schema: 'shop.orders'",
        ) from error
    kind = one(
        con, "select table_type from information_schema.tables where table_schema = 'm6' and table_name = ?", [table]
    )[0]
    if kind == "BASE TABLE" and one(con, f"select 1 from m6.{table} limit 1")[0] is not None:
        raise ParameterError(
            f"m6.{table} already holds loaded rows, expected an empty table to put a view in its place",
            "use a new file, or load the other table too",
        )
    of_contract = {target: at for at, target in mapped.items()} | {c: c for c in found if c not in mapped}
    missing = [c for c, default in contract.items() if default is None and of_contract.get(c) not in found]
    if missing:
        raise SchemaError(
            f"{source} has the columns {', '.join(found)}, expected also {', '.join(missing)}",
            f"map them: columns={{'{table}': {{'your_column': '{missing[0]}'}}}}",
        )
    parts = [
        f"cast({quote(of_contract[c])} as {_TYPES.get(c, 'varchar')}) as {c}"
        if of_contract.get(c) in found
        else f"{default} as {c}"
        for c, default in contract.items()
    ]
    if table == "events":
        parts += ["cast(null as varchar) as batch_id", "cast(0 as bigint) as event_seq"]
    required = " and ".join(f"{c} is not null" for c, default in contract.items() if default is None)
    drop = f"drop {'view' if kind == 'VIEW' else 'table'} m6.{table}"
    return f"{drop};\ncreate view m6.{table} as select * from (select {', '.join(parts)} from {name}) where {required}"
