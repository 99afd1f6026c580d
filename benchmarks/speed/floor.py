"""The floor: the least work a two-stage recommender has to do, by the best code we can write for it."""

from __future__ import annotations

import time
from typing import Any

import duckdb
import numpy as np

CANDIDATES = 300


def one_user(con: duckdb.DuckDBPyConnection, snapshot: Any, *, times: int = 200) -> dict[str, float]:
    """Median seconds of one matrix-vector product with top-k, one prediction of 300 rows, one key lookup."""
    rng = np.random.default_rng(0)
    factors = np.ascontiguousarray(snapshot.factors)
    vectors = rng.normal(size=(times, factors.shape[1])).astype(np.float32)
    x = rng.random((CANDIDATES, len(snapshot.model.features)), np.float32)
    booster = snapshot.model.new.booster()
    ids = [snapshot.item_ids[i] for i in rng.integers(0, snapshot.n, times)]
    k = min(CANDIDATES, snapshot.n - 1)
    return {
        "matrix-vector product and top-k": _median(lambda at: np.argpartition(factors @ vectors[at], -k)[-k:], times),
        "LightGBM, 300 rows": _median(lambda _: booster.predict(x, raw_score=True, num_threads=1), times)
        if booster
        else 0.0,
        "primary-key lookup": _median(
            lambda at: con.execute("select title from m6.items where item_id = ?", [ids[at]]).fetchall(), times
        ),
    }


def one_call(con: duckdb.DuckDBPyConnection, snapshot: Any) -> Any:
    """The three parts for one user, as a call of a key."""
    rng = np.random.default_rng(0)
    vector = rng.normal(size=snapshot.factors.shape[1]).astype(np.float32)
    x = rng.random((CANDIDATES, len(snapshot.model.features)), np.float32)
    booster, k = snapshot.model.new.booster(), min(CANDIDATES, snapshot.n - 1)
    item_id = snapshot.item_ids[snapshot.n // 2]

    def call(_: str) -> None:
        np.argpartition(snapshot.factors @ vector, -k)[-k:]
        if booster:
            booster.predict(x, raw_score=True, num_threads=1)
        con.execute("select title from m6.items where item_id = ?", [item_id]).fetchall()

    return call


def many_users(snapshot: Any, *, users: int = 256) -> float:
    """Seconds per user in a batch: the matrix product at the machine's rate, top-k, LightGBM on all threads."""
    rng = np.random.default_rng(0)
    block = rng.normal(size=(users, snapshot.factors.shape[1])).astype(np.float32)
    k = min(CANDIDATES, snapshot.n - 1)
    x = rng.random((users * CANDIDATES, len(snapshot.model.features)), np.float32)
    booster = snapshot.model.new.booster()
    start = time.perf_counter()
    np.argpartition(block @ snapshot.factors.T, -k, axis=1)[:, -k:]
    if booster:
        booster.predict(x, raw_score=True)
    return (time.perf_counter() - start) / users


def _median(call: Any, times: int) -> float:
    seconds = []
    for at in range(times):
        start = time.perf_counter()
        call(at)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
