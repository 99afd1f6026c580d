"""Two data sets with every contract table filled, loaded and built by DuckDB: what both engines are asked about."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

import m6rec_udf as m6
from m6rec_udf import datasets
from m6rec_udf.embed import HashEncoder

CONTRACT = ("events", "items", "users", "relations", "event_types", "feedback", "impressions")


def movielens() -> dict[str, pl.DataFrame]:
    """All ratings of 100 users."""
    frames = datasets.movielens()
    users = frames["events"]["user_id"].unique().sort().gather_every(6)[:100]
    return _filled(frames["items"], frames["events"].filter(pl.col("user_id").is_in(users.to_list())))


def grocery() -> dict[str, pl.DataFrame]:
    """The purchases of 60 households of Complete Journey among the 1,500 products they bought most."""
    frames = datasets.grocery()
    users = frames["events"]["user_id"].unique().sort().gather_every(30)[:60]
    events = frames["events"].filter(pl.col("user_id").is_in(users.to_list()))
    most = events.group_by("item_id").len().sort("len", "item_id", descending=[True, False]).head(1500)
    events = events.filter(pl.col("item_id").is_in(most["item_id"].to_list()))
    items = frames["items"].filter(pl.col("item_id").is_in(events["item_id"].unique().to_list()))
    return _filled(items, events, price=True)


DATA = {"movielens": movielens, "grocery": grocery}


def _filled(items: pl.DataFrame, events: pl.DataFrame, *, price: bool = False) -> dict[str, pl.DataFrame]:
    """Prices, segments, ties, parts of seconds and an item without a row: what the data sets do not have."""
    rng = np.random.default_rng(5)
    events = events.with_columns(
        pl.col("happened_at") + pl.Series(rng.integers(0, 1_000_000, len(events))).cast(pl.Duration("us")),
        pl.Series("event_type", np.where(rng.random(len(events)) < 0.02, "dismiss", events["event_type"].to_numpy())),
    )
    if price:
        items = items.with_columns(price=pl.Series(np.round(np.exp(rng.normal(1, 1, len(items))), 2)))
    items = items.with_columns(description=pl.Series([f"  item {n}; Größe {n % 7} 名\t" for n in range(len(items))]))
    items = items.sort("item_id").slice(1)
    users = events["user_id"].unique().sort()
    segments = pl.DataFrame({"user_id": users, "segment": [f"segment {n % 3}" for n in range(len(users))]})
    ties = pl.DataFrame(
        {
            "user_id": users,
            "other_user_id": pl.concat([users[7:], users[:7]]),
            "kind": [("follows", "friend", "blocks")[n % 3] for n in range(len(users))],
            "weight": 1.0 + rng.integers(0, 3, len(users)),
        }
    )
    return {"items": items, "events": events, "users": segments.slice(3), "relations": ties}


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    return m6.connect(path, encoder=HashEncoder(32))


def react(con: duckdb.DuckDBPyConnection) -> None:
    """Lists shown during the last weeks of the data, and what followed: by impression, by user, by request."""
    last = con.execute("select max(happened_at) from m6.events").fetchall()[0][0]
    people = con.execute("select user_id from m6.known_users order by user_id limit 40").fetchall()
    for at, (user,) in enumerate(people):
        shown = last - timedelta(days=at % 20, seconds=1.25 * at)
        con.execute(
            "insert into m6.impressions by name select * replace (cast(? as timestamp) as shown_at) "
            "from m6.serve(?, k := 5, seed := ?)",
            [shown, user, at],
        )
    con.execute(
        "insert into m6.feedback by name select 'by impression ' || impression_id as feedback_id, impression_id, "
        "case when rank = 2 then 'dismiss' else 'click' end as event_type, "
        "shown_at + interval 100 second as happened_at from m6.impressions where rank < 4 and seed % 2 = 0"
    )
    con.execute(
        "insert into m6.feedback by name select 'by user ' || impression_id as feedback_id, user_id, item_id, "
        "'purchase' as event_type, shown_at + interval 1 hour as happened_at from m6.impressions where rank = 5"
    )
    con.execute(
        "insert into m6.feedback by name select 'by request ' || impression_id as feedback_id, request_id, item_id, "
        "'rating' as event_type, 4.5 as value, shown_at + interval 2 hour as happened_at "
        "from m6.impressions where rank = 4"
    )


def tables_of(con: duckdb.DuckDBPyConnection, tables: Any) -> None:
    """The contract tables of a file for Spark."""
    for name in CONTRACT:
        tables.take(con, f"m6_{name}", f"from m6.{name}")
