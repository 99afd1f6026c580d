"""What goes with the items of a basket: the probability of being the next one in it, of every item.

What was taken together speaks, what is in demand, and what the customer has taken before. Learned by
``basket_learning``; the formula is in docs/formulas.md, "Completing a basket".
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.history import Behaviour

FEATURES = ("together", "log_together", "log_trend", "log_events", "log_times", "was_taken", "log_days_since")
OF_THE_BASKET = 4  # of them; the others are the customer's
NEAREST = 100  # candidates of a basket by what was taken together
DEMANDED = 50  # the same by what is in demand
LEAST_TOGETHER = 0.01
LEAST_EVENTS = 0.01
DAY = 86400.0
DECIMALS = 12  # of a value beside the largest one: below, items are equal


@dataclass(frozen=True)
class Taken:
    """What users have taken before: pairs sorted by (row, item).

    Attributes:
        row, item: int ``[p]``.
        times: int ``[p]``, moments at which it was taken.
        days_since: float64 ``[p]`` the last one.
    """

    row: np.ndarray
    item: np.ndarray
    times: np.ndarray
    days_since: np.ndarray

    @classmethod
    def of(cls, behaviour: Behaviour, now: np.ndarray, positive_at: float) -> Taken:
        """The successes, seen from ``now`` (seconds since 1970, of each user)."""
        good = behaviour.satisfaction >= np.float32(positive_at)
        columns = behaviour.row[good], behaviour.item[good], behaviour.happened_at[good]
        order = np.lexsort(columns[::-1])
        row, item, at = (column[order] for column in columns)
        new = (np.diff(row, prepend=-1) != 0) | (np.diff(item, prepend=-1) != 0)
        first = np.flatnonzero(new)
        if not len(first):
            return cls(first, first, first, np.zeros(0))
        times = np.add.reduceat((new | (np.diff(at, prepend=np.nan) != 0)).astype(np.int64), first)
        last = np.append(first[1:], len(row)) - 1
        return cls(row[first], item[first], times, np.maximum(now[row[last]] - at[last], 0) / DAY)

    def by_row(self, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(items, the customer's features of them ``[items, 3]``) of each row."""
        values = np.column_stack([np.log1p(self.times), np.ones(len(self.times)), np.log1p(self.days_since)])
        first = np.searchsorted(self.row, np.arange(rows + 1))
        return [(self.item[a:b], values[a:b]) for a, b in itertools.pairwise(first.tolist())]


class Demand:
    """How much every item is in demand: ``features`` (log_trend, log_events) ``[n, 2]``, and the order by both."""

    def __init__(self, snapshot: Snapshot) -> None:
        trend, events = (snapshot.column(name).astype(np.float64) + LEAST_EVENTS for name in ("trend_short", "events"))
        self.trend = trend
        self.features = np.log(np.column_stack([trend, events]))
        self.order = np.lexsort((np.arange(snapshot.n), -np.round(self.features.sum(axis=1), 9)))


def matrix(rows: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """1 for every (basket, item), CSR ``[baskets, n]``, indices sorted, each pair once."""
    key = np.unique(rows.astype(np.int64) * shape[1] + items)
    start = np.searchsorted(key, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
    return sp.csr_matrix((np.ones(len(key), np.float32), (key % shape[1]).astype(np.int32), start), shape=shape)


class Pool:
    """The items that may well be next in one basket, and what is known of them.

    Args:
        together: items and sums of their weights with those of the basket, positive ones.
        own: items the customer has taken, and the customer's features of them.
        open_: bool ``[n]`` items that may be shown and are not in the basket.

    Attributes:
        items: ``[c]`` ascending.
        x: float64 ``[c, features]``.
    """

    def __init__(
        self,
        demand: Demand,
        together: tuple[np.ndarray, np.ndarray],
        own: tuple[np.ndarray, np.ndarray],
        open_: np.ndarray,
    ) -> None:
        there = open_[together[0]]
        near, weight = together[0][there], together[1][there]
        nearest = np.lexsort((near, -weight))[:NEAREST]
        demanded = demand.order[open_[demand.order]][:DEMANDED]
        mine = open_[own[0]]
        self.items = np.unique(np.concatenate([near[nearest], demanded, own[0][mine]]))
        self.x = np.zeros((len(self.items), len(FEATURES)))
        at = np.searchsorted(self.items, near)
        at = np.minimum(at, max(len(self.items) - 1, 0))
        inside = self.items[at] == near
        self.x[at[inside], 0] = weight[inside]
        self.x[:, 1] = np.log(self.x[:, 0] + LEAST_TOGETHER)
        self.x[:, 2:OF_THE_BASKET] = demand.features[self.items]
        self.x[np.searchsorted(self.items, own[0][mine]), OF_THE_BASKET:] = own[1][mine]


def row_of(matrix: sp.csr_matrix, at: int) -> tuple[np.ndarray, np.ndarray]:
    """(columns, values) of a row."""
    a, b = matrix.indptr[at : at + 2]
    return matrix.indices[a:b], matrix.data[a:b]


def probabilities(demand: Demand, pool: Pool, mix: dict[str, Any], open_: np.ndarray) -> np.ndarray:
    """Probability of being the next item of the basket, float64 ``[n]``; 0 for items that are not open.

    ``mix``: ``weights`` of FEATURES, and ``reach``, the share of next items that are in the pool; the other items
    share the rest by their trend.
    """
    out = np.where(open_, demand.trend, 0.0)
    out[pool.items] = 0.0
    rest = float(out.sum())
    reach = float(mix["reach"]) if rest > 0 else 1.0
    if rest > 0:
        out *= (1 - reach if len(pool.items) else 1.0) / rest
    if len(pool.items):
        raw = pool.x @ np.asarray(mix["weights"])
        power = np.exp(raw - raw.max())
        out[pool.items] = reach * power / power.sum()
    return out


def best(value: np.ndarray, open_: np.ndarray, k: int) -> np.ndarray:
    """The k open items with the largest values, best first; ties after rounding by item."""
    items = np.flatnonzero(open_)
    score = value[items]
    largest = float(np.abs(score).max(initial=0.0))
    if largest > 0:
        score = np.round(score / largest, DECIMALS)
    if k < len(items):
        keep = score >= (np.partition(score, len(items) - k)[len(items) - k] if k else np.inf)
        items, score = items[keep], score[keep]
    return np.asarray(items[np.lexsort((items, -score))][:k])


def because(weights: sp.csr_matrix, basket: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The item of the basket that speaks most for each of the items, -1 where none does; ties to the lower one.

    ``basket``: ascending.
    """
    if not len(basket):
        return np.full(len(items), -1)
    lines = weights[basket][:, items].toarray()
    return np.where(lines.max(axis=0) > 0, basket[lines.argmax(axis=0)], -1)
