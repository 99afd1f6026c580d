"""Lists of recommenders, checked, in the temporary table ``eval_lists`` of an evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb

from m6rec_udf.baselines import Recommender
from m6rec_udf.errors import SchemaError


@contextmanager
def _registered(con: duckdb.DuckDBPyConnection, name: str, given: Any) -> Iterator[str]:
    """A frame, Arrow table or relation under a name; Polars frames travel as Arrow."""
    to_arrow = next((getattr(given, n) for n in ("to_arrow", "to_arrow_table") if hasattr(given, n)), None)
    con.register(name, to_arrow() if to_arrow else given)
    try:
        yield name
    finally:
        con.unregister(name)


def collect(
    con: duckdb.DuckDBPyConnection, as_of: datetime, k: int, todo: Mapping[str, Recommender]
) -> dict[str, float]:
    """Ask every recommender for its lists, into ``eval_lists``; returns the seconds each took."""
    users = con.sql("select user_id from eval_users order by user_id").to_arrow_table()
    seconds = {}
    for method, recommender in todo.items():
        begin = time.perf_counter()
        given = recommender(con, as_of, users, k)
        with _registered(con, "eval_given", given):
            seconds[method] = time.perf_counter() - begin
            _accept(con, method, k)
    return seconds


def _accept(con: duckdb.DuckDBPyConnection, method: str, k: int) -> None:
    """Check the lists of one method and keep the first k of each."""
    columns = {row[0] for row in con.execute("describe from eval_given").fetchall()}
    missing = {"user_id", "item_id", "rank"} - columns
    if missing:
        raise SchemaError(
            f"the lists of {method} have the columns {sorted(columns)}, expected also {sorted(missing)}",
            "a recommender returns user_id, item_id and rank from 1",
        )
    con.execute(
        "insert into eval_lists "
        "select $1, cast(g.user_id as varchar), cast(g.item_id as varchar), cast(g.rank as integer) "
        "from eval_given g semi join eval_users u on cast(g.user_id as varchar) = u.user_id "
        "where g.rank between 1 and $2",
        [method, k],
    )
    twice = con.execute(
        "select user_id from eval_lists where method = $1 group by user_id "
        "having count(*) > count(distinct item_id) or count(*) > count(distinct rank) order by user_id limit 1",
        [method],
    ).fetchall()
    if twice:
        raise SchemaError(
            f"the list of {method} for user {twice[0][0]} has an item or a rank twice, expected each once",
            "return one row per (user_id, rank) and per (user_id, item_id)",
        )
