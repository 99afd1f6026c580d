"""What a peer is: a method in the form m6rec's evaluation takes, ``(con, as_of, users, k) -> user_id, item_id, rank``.

Peers read ``eval_history`` (what may be learned from) and ``eval_touched`` (what must not be shown), the temporary
tables the evaluation fills for a split. Users without history get popular items.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from scipy import sparse

BLOCK = 256
NEVER = -1e30


@dataclass
class Log:
    """A history in numbers.

    Attributes:
        user_ids, item_ids: sorted ids; the numbers are positions in them.
        user, item, y: one entry per event, by user and then by time; equal times are shuffled with a fixed seed.
        touched: ones where an item must not be shown, ``[users, items]``; empty where known items stay in the lists.
        asked: the users to make lists for, ascending.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    user: np.ndarray
    item: np.ndarray
    y: np.ndarray
    touched: sparse.csr_matrix
    asked: np.ndarray

    def liked(self, least_y: float) -> sparse.csr_matrix:
        """Ones at the (user, item) pairs with an event of at least this satisfaction."""
        keep = self.y >= least_y
        return ones(self.user[keep], self.item[keep], (len(self.user_ids), len(self.item_ids)))


class Logs:
    """The log of the split evaluated last, read once for all methods."""

    def __init__(self) -> None:
        self.key: Any = None
        self.log: Log | None = None

    def get(self, con: duckdb.DuckDBPyConnection, as_of: datetime) -> Log:
        """The log behind the ``eval_*`` tables of a moment."""
        counts = con.execute(
            "select (select count(*) from eval_history), (select count(*) from eval_touched), "
            "(select count(*) from eval_users)"
        ).fetchall()[0]
        if self.log is None or self.key != (as_of, *counts):
            self.key, self.log = (as_of, *counts), _read(con)
        return self.log


def _read(con: duckdb.DuckDBPyConnection) -> Log:
    users = con.execute(
        "select user_id from eval_history union select user_id from eval_users union select user_id from eval_touched "
        "order by 1"
    ).fetchnumpy()["user_id"]
    items = con.execute("select distinct item_id from eval_history order by 1").fetchnumpy()["item_id"]
    numbers = (
        "with u as (select user_id, row_number() over (order by user_id) - 1 as u from (select user_id from "
        "eval_history union select user_id from eval_users union select user_id from eval_touched)), "
        "i as (select item_id, row_number() over (order by item_id) - 1 as i "
        "from (select distinct item_id from eval_history)) "
    )
    events = con.execute(
        numbers + "select u, i, y from eval_history join u using (user_id) join i using (item_id) "
        "order by u, happened_at, md5(item_id || '/' || user_id), i"
    ).fetchnumpy()
    touched = con.execute(
        numbers + "select u, i from eval_touched join u using (user_id) join i using (item_id)"
    ).fetchnumpy()
    asked = con.execute(numbers + "select u from eval_users join u using (user_id) order by u").fetchnumpy()["u"]
    y = np.ma.filled(np.ma.asarray(events["y"], np.float64), 0.0)
    shape = (len(users), len(items))
    return Log(np.asarray(users), np.asarray(items), events["u"], events["i"], y,
               ones(touched["u"], touched["i"], shape), asked)  # fmt: skip


def ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    found = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    found.sum_duplicates()
    found.data[:] = 1
    return found


Scores = Callable[[np.ndarray], np.ndarray]


class Peer:
    """A method that scores every item for a block of users.

    Attributes:
        least_y: satisfaction from which an event counts as liked.
        seconds: processor time of one fit, for methods that would go on and on.
        settings: what the grid says.
    """

    def __init__(self, logs: Logs, *, least_y: float = 0.0, seconds: float = math.inf, **settings: Any) -> None:
        self.logs, self.least_y, self.seconds, self.settings = logs, least_y, seconds, settings

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        """Learn; returns what scores users: positions -> float ``[users, items]``."""
        raise NotImplementedError

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        log = self.logs.get(con, as_of)
        liked = log.liked(self.least_y)
        with warnings.catch_warnings(), one_blas_thread():
            warnings.simplefilter("ignore")
            scores = self.fit(log, liked)
            return lists(log, liked, scores, np.asarray(users["user_id"].to_pylist(), dtype=object), k)


def lists(log: Log, liked: sparse.csr_matrix, scores: Scores, users: np.ndarray, k: int) -> pa.Table:
    """The k best untouched items of each user; what a method cannot score follows by popularity."""
    popular = np.asarray(liked.sum(0), np.float64).ravel()
    tail = NEVER + popular / (1.0 + popular.max(initial=0)) * 1e29
    wanted = np.searchsorted(log.user_ids.astype(str), users.astype(str))
    out: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        found = np.asarray(scores(block), np.float64)
        found = np.where(found > NEVER, found, tail)
        found[np.diff(liked.indptr)[block] == 0] = tail
        touched = log.touched[block]
        found[np.repeat(np.arange(len(block)), np.diff(touched.indptr)), touched.indices] = -np.inf
        best = np.argpartition(-found, min(k, found.shape[1] - 1), axis=1)[:, :k]
        value = np.take_along_axis(found, best, 1)
        order = np.lexsort((best, -value), axis=1)
        best, value = np.take_along_axis(best, order, 1), np.take_along_axis(value, order, 1)
        rows, places = np.nonzero(np.isfinite(value))
        out.append((block[rows], best[rows, places], places + 1))
    user, item, rank = (np.concatenate(parts) for parts in zip(*out, strict=True))
    return pa.table(
        {"user_id": pa.array(log.user_ids[user], pa.string()), "item_id": pa.array(log.item_ids[item], pa.string()),
         "rank": rank}
    )  # fmt: skip


@contextmanager
def one_blas_thread() -> Iterator[None]:
    if not importlib.util.find_spec("threadpoolctl"):
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield
