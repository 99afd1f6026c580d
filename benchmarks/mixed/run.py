"""Views, purchases and ratings together against purchases only, on generated data (not real data).

    python benchmarks/mixed/run.py
    python benchmarks/mixed/run.py --users 1000 --items 500 --seed 3

The same users view, buy and rate; both builds are asked for the purchases of the last tenth of the time, of items the
user had not touched before (no view, no purchase: items viewed already are taken out of both lists).
Means over users with 95 % bootstrap intervals; the difference is paired. Hash encoder, no language model.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import polars as pl

import m6rec_udf as m6
from m6rec_udf.backtest import remove_version
from m6rec_udf.embed import HashEncoder

START = datetime(2024, 1, 1)
DAYS = 120
TASTES = 8
TYPES = ("view", "purchase", "rating")


def make(users: int = 500, items: int = 320, *, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Long ``events`` and ``items``: users look inside their tastes, buy some and rate some."""
    rng = np.random.default_rng(seed)
    taste = np.arange(items) % TASTES
    weight = 1.0 / (5.0 + rng.permutation(items)) ** 0.7
    rows: list[tuple[Any, ...]] = []
    for user in range(users):
        liked = rng.choice(TASTES, 2, replace=False)
        share = weight * np.where(np.isin(taste, liked), 12.0, 1.0)
        looks = int(rng.integers(10, 50))
        for item in rng.choice(items, looks, p=share / share.sum()):
            at = START + timedelta(minutes=int(rng.integers(0, DAYS * 1440)))
            name = (f"u{user:04d}", f"i{item:04d}")
            rows.append((*name, "view", 1.0, at))
            if rng.random() < (0.15 if taste[item] in liked else 0.03):
                rows.append((*name, "purchase", 1.0, at))
                if rng.random() < 0.3:
                    rows.append((*name, "rating", float(rng.integers(3, 6) if taste[item] in liked else 2), at))
    columns = {"user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "value": pl.Float64}
    events = pl.DataFrame(rows, schema={**columns, "happened_at": pl.Datetime("us")}, orient="row")
    catalogue = pl.DataFrame(
        {
            "item_id": [f"i{i:04d}" for i in range(items)],
            "domain": ["shop"] * items,
            "title": [f"thing {i} of kind{taste[i]}" for i in range(items)],
            "category": [f"category {taste[i] // 2}" for i in range(items)],
        }
    )
    return {
        "events": events.unique(["user_id", "item_id", "event_type", "happened_at"], maintain_order=True),
        "items": catalogue,
    }


def widen(events: pl.DataFrame) -> pl.DataFrame:
    """The same events with one row per (user, item, moment) and a column per event type."""
    return events.pivot("event_type", index=["user_id", "item_id", "happened_at"], values="value")


def filled(frames: dict[str, pl.DataFrame], **load: Any) -> duckdb.DuckDBPyConnection:
    """A dressed connection in memory with the frames loaded."""
    con = m6.connect(":memory:", encoder=HashEncoder(32))
    m6.load(con, **frames, **load)
    return con


class PurchasesOnly:
    """A recommender for ``evaluate``: the lists of a build that knows the purchases alone."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        """Lists without what the user had touched in ``con``, as a table of user_id, item_id, rank."""
        version = m6.build(self.con, as_of=as_of, activate=False).model_version
        try:
            deep = self.con.sql(
                "select user_id, item_id, rank from m6.slates("
                "$users, k := $k, exclude_seen := true, until := $until, version := $version)",
                params={"users": users["user_id"].to_pylist(), "k": k + 100, "until": as_of, "version": version},
            ).pl()
        finally:
            remove_version(self.con, version)
        touched = con.sql(
            "select distinct user_id, item_id from m6.events where happened_at <= $at", params={"at": as_of}
        ).pl()
        kept = deep.join(touched, on=["user_id", "item_id"], how="anti").sort("user_id", "rank")
        return kept.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id")).filter(pl.col("rank") <= k)


def main() -> None:
    """Generate, build both, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--items", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    frames = make(given.users, given.items, seed=given.seed)
    # purchases are the targets: ratings keep their place in the history, but no stars make a rating a success
    kinds = pl.DataFrame(
        {"event_type": ["rating"], "interest": [1.0], "satisfaction": [0.9], "value_low": [0.0], "value_high": [6.0]}
    )
    everything = filled(frames, event_types=kinds)
    bought = {**frames, "events": frames["events"].filter(pl.col("event_type") == "purchase")}
    counts = dict(frames["events"]["event_type"].value_counts().iter_rows())
    print(f"generated data: {given.users} users, {given.items} items, " + ", ".join(f"{counts[t]} {t}s" for t in TYPES))
    figures = m6.evaluate(
        everything, positive=1.0, peers={"purchases_only": PurchasesOnly(filled(bought, event_types=kinds))}
    ).pl()
    wanted = figures.filter((pl.col("metric") == "ndcg@10") & (pl.col("slice") == "all"))
    names = {"m6rec": "views, purchases, ratings", "purchases_only": "purchases only"}
    for row in wanted.iter_rows(named=True):
        name = names.get(row["method"], row["method"])
        print(f"NDCG@10 {name:<32} {row['value']:.4f}  [{row['low']:.4f}, {row['high']:.4f}]  {row['n']} users")


if __name__ == "__main__":
    main()
