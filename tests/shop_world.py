"""A small synthetic shop: 60 users, 80 items in 2 domains, views, purchases and ratings over 200 days.

Users come in four tastes, one per category, so that there is something to learn. Generated, not real.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder

START = datetime(2024, 1, 1)
DAYS = 200
USERS = [f"u{n:02d}" for n in range(60)]
ITEMS = [f"i{n:02d}" for n in range(80)]
UNKNOWN = ["nobody", "stranger"]
QUIET = "import __main__\n__main__.__file__ = 'script'\n"  # before code for `python -c`: no progress bar in stdout
CATEGORIES = ("drama", "comedy", "history", "cooking")
EVENT_SCHEMA = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "value": pl.Float64,
    "happened_at": pl.Datetime("us"),
}


def category_of(n: int) -> int:
    return n % 2 if n < 40 else 2 + n % 2


def frames(seed: int = 0) -> dict[str, pl.DataFrame]:
    """items, users, events and feedback of the shop."""
    rng = np.random.default_rng(seed)
    items = pl.DataFrame(
        {
            "item_id": ITEMS,
            "domain": ["movies" if n < 40 else "books" for n in range(80)],
            "title": [f"{CATEGORIES[category_of(n)].title()} number {n}" for n in range(80)],
            "description": [f"{CATEGORIES[category_of(n)]} about topic{n % 7} and topic{n % 5}" for n in range(80)],
            "category": [CATEGORIES[category_of(n)] for n in range(80)],
            "brand": [f"maker {n % 6}" for n in range(80)],
            "price": [float(5 + 3 * (n % 11)) for n in range(80)],
            "created_at": [START + timedelta(days=100 + n) if n % 20 == 19 else None for n in range(80)],
            "is_available": [n != 7 for n in range(80)],
        },
        schema_overrides={"created_at": pl.Datetime("us")},
    )
    users = pl.DataFrame({"user_id": USERS[:50], "segment": [("new", "loyal", None)[n % 3] for n in range(50)]})
    events = pl.DataFrame(_events(rng), schema=EVENT_SCHEMA, orient="row")
    feedback = pl.DataFrame(
        [
            (
                f"f{n}",
                USERS[n % 60],
                ITEMS[(7 * n) % 80],
                ("click", "purchase", "dismiss")[n % 3],
                START + timedelta(days=40 + 1.5 * n),
            )
            for n in range(100)
        ],
        schema=["feedback_id", "user_id", "item_id", "event_type", "happened_at"],
        orient="row",
    )
    return {"items": items, "users": users, "events": events, "feedback": feedback}


def _events(rng: np.random.Generator) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    weight = 1.0 / (1.0 + np.arange(80) % 40) ** 0.7
    kind = np.array([category_of(n) for n in range(80)])
    for u, user in enumerate(USERS):
        liked = np.where(kind == u % 4, 6.0, 1.0) * weight
        for item in rng.choice(80, size=int(rng.integers(6, 26)), replace=False, p=liked / liked.sum()):
            day = rng.uniform(100 + item if item % 20 == 19 else 0, DAYS)
            at = START + timedelta(hours=6 * int(day * 4))  # coarse, so that times tie
            rows.append((None, user, ITEMS[item], "view", None, at))
            if rng.random() < (0.7 if kind[item] == u % 4 else 0.2):
                rows.append(
                    (None, user, ITEMS[item], "purchase", float(5 + 3 * (item % 11)), at + timedelta(minutes=9))
                )
            if rng.random() < 0.4:
                stars = float(rng.integers(4, 6) if kind[item] == u % 4 else rng.integers(1, 5))
                rows.append((None, user, ITEMS[item], "rating", stars, at + timedelta(minutes=9)))
    return [(f"e{n}", *row[1:]) for n, row in enumerate(rows)]


def connect(path: Path | str, **options: Any) -> duckdb.DuckDBPyConnection:
    return m6.connect(path, encoder=HashEncoder(32), **options)


def fill(
    path: Path | str, data: dict[str, pl.DataFrame], *, as_of: datetime | None = None, seed: int = 0
) -> duckdb.DuckDBPyConnection:
    """A new file with the data loaded and built, and the tables that business rules are written in."""
    con = connect(path)
    m6.load(con, **data)
    rules(con)
    m6.build(con, as_of=as_of, seed=seed)
    return con


def rules(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("create table picked as select item_id from m6.items where item_id like '%3' or item_id like '%8'")
    con.execute("create table margin as select item_id, 1.0 + price / 40 as boost from m6.items")
    con.execute("create table audience as select unnest($ids) as user_id", {"ids": [*USERS, *UNKNOWN]})


def rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """All rows; an unfinished result would block the connection."""
    return con.execute(sql, parameters if parameters is not None else []).fetchall()


def recommend(con: duckdb.DuckDBPyConnection, user: str, options: str = "") -> list[dict[str, Any]]:
    """The list of one user as dicts; ``options`` is written as in SQL: "k := 5, in_domain := 'movies'"."""
    cursor = con.execute(f"from m6.recommend(?{', ' if options else ''}{options})", [user])
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def items_of(listed: list[dict[str, Any]]) -> list[str]:
    return [row["item_id"] for row in listed]


def state(con: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """What is in force: versions, weights, and the lists of some users."""
    return (
        rows(con, "select model_version, policy_version from m6.active"),
        rows(con, "from m6.strategy_weights_active order by all"),
        [
            [(r["item_id"], r["strategy"], round(r["satisfaction"], 6)) for r in recommend(con, u)]
            for u in ("u00", "u17", "nobody")
        ],
    )
