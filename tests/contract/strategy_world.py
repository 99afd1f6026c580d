"""Two built shops, and every strategy computed twice over them: by its SQL file and in memory."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import polars as pl
import shop_world

import m6rec_udf as m6
from m6rec_udf import models
from m6rec_udf.arrays import Snapshot, of_version
from m6rec_udf.candidates import Candidates, Scores, propose
from m6rec_udf.engine import InDuckDB
from m6rec_udf.functions import behaviour_of
from m6rec_udf.history import Behaviour, Profile
from m6rec_udf.query import one
from m6rec_udf.registry import context_of

START = shop_world.START
PERSONAL = ("buy_again", "covisitation", "item_item", "matrix_factorization", "semantic", "social")
STRATEGIES = (*PERSONAL, "segment_popular", "popular", "trending", "fresh")


def grocery_frames(seed: int = 1) -> dict[str, pl.DataFrame]:
    """40 users who buy the same of 50 products again and again, some of them tied to others; generated."""
    rng = np.random.default_rng(seed)
    products = range(50)
    items = pl.DataFrame(
        {
            "item_id": [f"p{n:02d}" for n in products],
            "title": [None if n == 3 else f"product {n} of shelf{n % 5}" for n in products],
            "category": [None if n == 3 else f"shelf{n % 5}" for n in products],
            "brand": [f"brand {n % 3}" for n in products],
            "price": [None if n % 7 == 0 else float(1 + n % 9) for n in products],
            "created_at": [START + timedelta(days={46: 400, 47: 149, 48: 148, 49: 148}.get(n, 0)) for n in products],
        },
        schema_overrides={"created_at": pl.Datetime("us"), "price": pl.Float64},
    )
    rows = []
    for user in range(40):
        for item in rng.choice(44, size=8, replace=False):
            rhythm = 4.0 + item % 11
            for day in np.arange(rng.uniform(0, rhythm), 150, rhythm + rng.uniform(-1, 1)):
                kind = ("purchase", "purchase", "view", "return")[int(rng.choice(4, p=[0.5, 0.3, 0.18, 0.02]))]
                rows.append((f"c{user:02d}", f"p{item:02d}", kind, START + timedelta(seconds=int(day * 86400))))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "happened_at"], orient="row")
    users = pl.DataFrame(
        {"user_id": [f"c{n:02d}" for n in range(40)] + ["idle"], "segment": [("a", "b")[n % 2] for n in range(41)]}
    )
    ties = [
        (f"c{n:02d}", f"c{(n * step) % 40:02d}", kind, 1.0 + n % 3)
        for n in range(30)
        for step, kind in ((3, "follows"), (7, "friend"))
    ]
    ties += [("c01", "c03", "blocks", 1.0), ("c05", "c15", "blocks", 1.0)]
    relations = pl.DataFrame(ties, schema=["user_id", "other_user_id", "kind", "weight"], orient="row")
    relations = relations.filter(pl.col("user_id") != pl.col("other_user_id"))
    return {"items": items, "users": users, "events": events, "relations": relations}


class World:
    """A built shop.

    Attributes:
        con: a dressed connection. work: a cursor on which bare names are the tables of the build.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        self.work = con.cursor()
        self.work.execute("set search_path = 'm6'")
        version, self.as_of = one(con, "select model_version, as_of from m6.models order by 1 desc")
        self.snapshot: Snapshot = of_version(context_of(con), version)
        self.users = dict(shop_world.rows(con, "select user_idx, user_id from m6.stg_users order by 1"))
        self.models = models.collect()

    @cached_property
    def bound(self) -> dict[str, Any]:
        settings = self.snapshot.settings
        return {"as_of": self.as_of, "span_days": settings["span_days"], "positive_at": settings["positive_at"]}

    def some_users(self, seed: int, size: int) -> list[int]:
        return sorted(np.random.default_rng(seed).choice(list(self.users), size, replace=False).tolist())

    def in_sql(self, strategy: str, users: list[int]) -> dict[int, dict[int, float]]:
        """raw_score by item_idx by user_idx, as sql/strategies says."""
        self.work.execute("create or replace temp table candidate_users (user_idx integer)")
        self.work.execute("insert into candidate_users select unnest(cast(? as integer[]))", [users])
        models.run(self.work, self.models[f"cand_{strategy}"], self.bound, temporary=True)
        models.check_columns(InDuckDB().columns(self.work, f"cand_{strategy}"), self.models[f"cand_{strategy}"])
        found: dict[int, dict[int, float]] = {}
        for user, item, score in shop_world.rows(self.work, f"from cand_{strategy} order by all"):
            assert item not in found.setdefault(user, {}), "one row per (user, item)"
            found[user][item] = score
        self.work.execute(f"drop table temp.cand_{strategy}")
        return found

    def behaviour(self, user_ids: list[str], until: Any = None) -> Behaviour:
        table = self.con.sql(
            "select segment, history from m6.user_history($ids, until := $until) order by list_position($ids, user_id)",
            params={"ids": user_ids, "until": until or self.as_of},
        ).to_arrow_table()
        histories = table["history"].combine_chunks()
        return behaviour_of(self.snapshot, histories, table["segment"].to_pylist())

    def profile(self, user_ids: list[str], until: Any = None) -> Profile:
        return Profile(self.snapshot, self.behaviour(user_ids, until))

    def in_memory(self, users: list[int], **options: Any) -> tuple[Profile, Candidates]:
        profile = self.profile([self.users[user] for user in users])
        return profile, propose(self.snapshot, profile, **{"at_least": 1, "exclude_seen": False, **options})


def proposed_by(snapshot: Snapshot, found: Candidates, strategy: str, row: int) -> set[int]:
    """item_idx a strategy proposed to the user in a row."""
    bit = np.uint64(snapshot.settings["strategies"][strategy])
    mine = (found.row == row) & ((found.supporters >> bit) & np.uint64(1) > 0)
    return set(found.item[mine].tolist())


def assert_top(expected: dict[int, float], got: set[int], k: int, what: str) -> None:
    """``got`` are the k best of ``expected``; items within the last bits of the k-th score may change places."""
    assert len(got) == min(k, len(expected)), what
    if not got:
        return
    near = 2e-5 * max(abs(score) for score in expected.values())
    least = sorted(expected.values(), reverse=True)[len(got) - 1]
    assert {item for item, score in expected.items() if score > least + near} <= got, what
    assert got <= {item for item, score in expected.items() if score >= least - near}, what


__all__ = ["PERSONAL", "STRATEGIES", "Scores", "World", "assert_top", "grocery_frames", "m6", "proposed_by"]
