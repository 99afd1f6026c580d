"""Generated behaviour of a shop: power-law items and users, clusters of taste, trends, text. Not real data."""

from __future__ import annotations

import numpy as np
import polars as pl

SIZES = {
    100_000: (5_000, 3_000),
    1_000_000: (100_000, 20_000),
    10_000_000: (200_000, 100_000),
    50_000_000: (1_000_000, 200_000),
}
DAYS = 365
FAITHFUL = 0.7  # share of events inside the user's own cluster
WORDS = 4_000


def shape_of(events: int) -> tuple[int, int]:
    """(users, items) that go with a number of events."""
    if events in SIZES:
        return SIZES[events]
    return max(events // 20, 50), max(int(30 * events**0.5 / 3), 40)


def make(events: int, *, items: int | None = None, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Frames ``events`` (views, purchases, ratings), ``items`` with text and prices, ``users`` with segments.

    ``items``: so many instead of those that go with the number of events.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = shape_of(events)
    n_items = items or n_items
    clusters = max(10, n_items // 500)
    item_cluster = rng.integers(0, clusters, n_items)
    weight = (rng.permutation(n_items) + 10.0) ** -0.8
    user_cluster = rng.integers(0, clusters, n_users)
    user = rng.choice(n_users, events, p=_shares(rng.lognormal(0, 1, n_users)))
    item = rng.choice(n_items, events, p=_shares(weight))
    faithful = rng.random(events) < FAITHFUL
    order = np.lexsort((-weight, item_cluster))
    first = np.searchsorted(item_cluster[order], np.arange(clusters + 1))
    own = user_cluster[user]
    depth = rng.random(events) ** 3  # the front of the cluster's list more often
    size = np.maximum(first[own + 1] - first[own], 1)
    item = np.where(faithful, order[np.minimum(first[own] + (depth * size).astype(int), n_items - 1)], item)
    born = np.where(rng.random(n_items) < 0.8, 0.0, rng.random(n_items) * DAYS)
    when = born[item] + rng.random(events) * (DAYS - born[item])
    kind = rng.choice(3, events, p=[0.55, 0.35, 0.10])
    stars = np.clip(np.round(3.0 + 1.2 * faithful + rng.normal(0, 0.8, events)), 1, 5)
    frame = pl.DataFrame(
        {"user": user, "item": item, "kind": kind, "value": np.where(kind == 2, stars, np.nan), "when": when}
    )
    events_frame = frame.select(
        user_id="u" + pl.col("user").cast(pl.String),
        item_id="i" + pl.col("item").cast(pl.String),
        event_type=pl.col("kind").replace_strict({0: "view", 1: "purchase", 2: "rating"}),
        value=pl.col("value").fill_nan(None),
        happened_at=pl.datetime(2024, 1, 1) + pl.duration(microseconds=(pl.col("when") * 86400e6).cast(pl.Int64)),
    )
    return {"events": events_frame, "items": _items(rng, item_cluster, born), "users": _users(user_cluster)}


def _shares(weight: np.ndarray) -> np.ndarray:
    return weight / weight.sum()


def _items(rng: np.random.Generator, cluster: np.ndarray, born: np.ndarray) -> pl.DataFrame:
    n = len(cluster)
    common, special = rng.integers(0, WORDS, (n, 4)), rng.integers(0, 40, (n, 4)) + 40 * cluster[:, None] + WORDS
    words = np.concatenate([special, common], axis=1)
    return (
        pl.DataFrame(
            {
                "item_id": [f"i{i}" for i in range(n)],
                "domain": ["shop"] * n,
                "title": [" ".join(f"w{w}" for w in row[:3]) for row in words],
                "description": [" ".join(f"w{w}" for w in row[3:]) for row in words],
                "category": [f"category {c}" for c in cluster],
                "brand": [f"brand {b}" for b in rng.integers(0, max(n // 50, 5), n)],
                "price": np.round(np.exp(rng.normal(3, 0.8, n)), 2),
                "created_at": [None] * n,
                "born": born,
            }
        )
        .with_columns(
            created_at=pl.datetime(2024, 1, 1) + pl.duration(microseconds=(pl.col("born") * 86400e6).cast(pl.Int64))
        )
        .drop("born")
    )


def _users(cluster: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": [f"u{u}" for u in range(len(cluster))], "segment": [f"segment {c % 4}" for c in cluster]}
    )
