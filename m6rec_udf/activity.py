"""Behaviour of items as of a moment, over the log in memory: how much, how lately, what comes after what.

The definitions are sql/features/feat_item_activity.sql, feat_item_transitions.sql, feat_segment_item.sql and the pairs
of feat_user_item.sql; tests/contract compares the two. A build looks at several moments: over arrays each costs a
fraction of what the SQL costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from m6rec_udf.kernels.counting import steps

if TYPE_CHECKING:
    from m6rec_udf.event_log import Log

DAY = 86400.0
TREND_SHARES = {"trend_very_short": 0.003, "trend_short": 0.01, "trend_medium": 0.03, "trend_long": 0.1}
SUCCESS_SHARES = {"success_short": 0.01, "success_medium": 0.03, "success_long": 0.1}
ACTIVITY_COLUMNS = (
    "events",
    "users",
    "satisfaction",
    *TREND_SHARES,
    "successes",
    *SUCCESS_SHARES,
    "age_days",
    "first_event_days",
    "idle_days",
    "repurchase_rate",
    "repurchase_days",
    "price",
)
SEGMENT_SHARE = 0.03
DISTANCES = 8
BACKWARDS = 0.6
MOST_POSITIONS = 200
LEAST_POSITIONS = 5
POSITIONS = 2_500_000.0  # of all users together
NEXT_ITEMS = 100
NEXT_DECIMALS = 9  # of a weight; equal ones go to the lower item
AT_ONCE = 1 << 18
MOST_CELLS = 4_000_000  # segments times items that are summed in a dense table
PRIME = 2_147_483_647


@dataclass(frozen=True)
class Pairs:
    """The (user, item) pairs of interest, sorted by both.

    Attributes:
        user, item: int32 ``[p]``.
        last_at: float64 ``[p]`` seconds since 1970 of the last behaviour.
        last_days: float64 ``[p]`` its age.
        place: int32 ``[p]`` where the last behaviour stands in the log.
    """

    user: np.ndarray
    item: np.ndarray
    last_at: np.ndarray
    last_days: np.ndarray
    place: np.ndarray


class Activity:
    """What the log says as of a moment.

    Args:
        log: behaviour, also later one.
        as_of: the moment, seconds since 1970.
        span_days: days since the first behaviour.
        n: number of items.
    """

    def __init__(self, log: Log, as_of: float, span_days: float, n: int) -> None:
        order = log.by_pair
        if len(order) and float(log.happened_at.max()) > as_of:
            order = order[log.happened_at[order] <= as_of]
        self.log, self.as_of, self.span_days, self.n, self._order = log, as_of, span_days, n, order
        self._age = _days_before(as_of, log.happened_at[order])

    def _first(self, order: np.ndarray) -> np.ndarray:
        """Where each pair starts among behaviour in the order of pairs; bool."""
        user, item = self.log.user[order], self.log.item[order]
        first = np.ones(len(order), bool)
        first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
        return first

    def pairs(self) -> Pairs:
        """Pairs of feat_user_item with positive interest."""
        first = np.flatnonzero(self._first(self._order))
        if not len(first):
            nothing = np.zeros(0, np.int32)
            return Pairs(nothing, nothing, np.zeros(0), np.zeros(0), nothing)
        keep = np.maximum.reduceat(self.log.interest[self._order], first) > 0
        last = np.append(first[1:], len(self._order))[keep] - 1
        at = self._order[last]
        return Pairs(self.log.user[at], self.log.item[at], self.log.happened_at[at], self._age[last], at)

    def items(self, created_at: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of feat_item_activity by name, each ``[n]``; NaN for NULL.

        ``created_at``: float64 ``[n]``, seconds since 1970, NaN for none.
        """
        n, log = self.n, self.log
        order, age = self._order, self._age
        interested = log.interest[order] > 0
        if not interested.all():
            order, age = order[interested], age[interested]
        events, successes = np.zeros(n, np.int64), np.zeros(n, np.int64)
        satisfaction, first_days, idle_days = np.zeros(n), np.full(n, -np.inf), np.full(n, np.inf)
        trends = {share: np.zeros(n) for share in (*TREND_SHARES.values(), *SUCCESS_SHARES.values())}
        good_trends = {share: np.zeros(n) for share in SUCCESS_SHARES.values()}
        step = max(AT_ONCE, 4 * n)  # what is made of a block stays in the cache
        for start in range(0, len(order), step):
            block, days = order[start : start + step], age[start : start + step]
            item, good = log.item[block], np.flatnonzero(log.is_positive[block])
            good_item = item[good]
            events += np.bincount(item, minlength=n)
            successes += np.bincount(good_item, minlength=n)
            satisfaction += np.bincount(item, log.satisfaction[block], n)
            np.maximum.at(first_days, item, days)
            np.minimum.at(idle_days, item, days)
            for share in trends:
                decay = self._decay(days, share)
                trends[share] += np.bincount(item, decay, n)
                if share in good_trends:
                    good_trends[share] += np.bincount(good_item, decay[good], n)
        found = {
            "events": events,
            "successes": successes,
            "satisfaction": satisfaction / np.where(events > 0, events, np.nan),
            "first_event_days": np.where(events > 0, first_days, np.nan),
            "idle_days": np.where(events > 0, idle_days, np.nan),
        }
        found |= {name: trends[share] for name, share in TREND_SHARES.items()}
        found |= {name: good_trends[share] for name, share in SUCCESS_SHARES.items()}
        found |= self._repurchase(order, age)
        catalogue_days = np.where(created_at <= self.as_of, _days_before(self.as_of, created_at), np.nan)
        found["age_days"] = np.where(
            np.isnan(catalogue_days),
            found["first_event_days"],
            np.maximum(np.nan_to_num(found["first_event_days"]), catalogue_days),
        )
        return found

    def _decay(self, age: np.ndarray, share: float) -> np.ndarray:
        return np.asarray(np.exp2(age * (-1 / (share * self.span_days))))

    def _repurchase(self, order: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
        """Users, share of them that came back, and the median of their mean distance, per item."""
        first = self._first(order)
        start = np.flatnonzero(first)
        at = self.log.happened_at[order]
        another = first.copy()
        another[1:] |= at[1:] != at[:-1]
        times = np.add.reduceat(another.astype(np.int32), start)
        item = self.log.item[order[start]]
        users = np.bincount(item, minlength=self.n)
        again = times > 1
        rate = np.bincount(item, again, self.n) / np.maximum(users, 1)
        last = np.append(start[1:], len(order)) - 1
        days = (age[start[again]] - age[last[again]]) / (times[again] - 1)
        return {"users": users, "repurchase_rate": rate, "repurchase_days": _medians(item[again], days, self.n)}

    def segment_trend(self, segment: np.ndarray, segments: int) -> sp.csr_matrix:
        """Trends of feat_segment_item, CSR ``[segments, n]``; ``segment``: code per user, -1 for none."""
        log, order = self.log, self._order
        code = segment[log.user[order]]
        keep = (code >= 0) & (log.interest[order] > 0)
        decay, shape = self._decay(self._age[keep], SEGMENT_SHARE), (max(segments, 1), self.n)
        code, item = code[keep], log.item[order[keep]]
        if shape[0] * shape[1] > MOST_CELLS:
            return sp.csr_matrix((decay, (code, item)), shape=shape)
        cells = np.bincount(code.astype(np.int64) * self.n + item, decay, shape[0] * shape[1])
        return sp.csr_matrix(cells.reshape(shape))

    def transitions(self, pairs: Pairs, users: int) -> sp.csr_matrix:
        """Weights of feat_item_transitions, CSR float64 ``[n, n]``, the 100 best of each row."""
        n = self.n
        active = max(int((np.bincount(pairs.user, minlength=users) > 0).sum()), 1)
        longest = min(MOST_POSITIONS, max(LEAST_POSITIONS, POSITIONS / active))
        order = latest_first(pairs)
        user, place = pairs.user[order], np.arange(len(order))
        is_first = np.ones(len(order), bool)
        is_first[1:] = user[1:] != user[:-1]
        start = np.maximum.accumulate(np.where(is_first, place, 0)) if len(order) else place
        order = order[place - start < np.floor(longest)]
        user, item = pairs.user[order], pairs.item[order]
        recency = 0.5 ** (pairs.last_days[order] / (0.25 * self.span_days))
        popularity = np.bincount(pairs.item, minlength=n)
        own = 1 / np.maximum(popularity, 1) ** 0.5
        next_ = 1 / (popularity + 5.0) ** 0.3
        indptr, indices, data = steps(
            user, item, recency, own, next_, DISTANCES, BACKWARDS, NEXT_ITEMS, 10.0**NEXT_DECIMALS
        )
        return sp.csr_matrix((data, indices, indptr), shape=(n, n))


def latest_first(pairs: Pairs) -> np.ndarray:
    """Order of the pairs, user by user, last behaviour first; items of the same moment come in an order of chance."""
    order = np.argsort(pairs.place)[::-1].copy()  # the log is sorted by user and time
    user, at = pairs.user[order], pairs.last_at[order]
    again = np.zeros(len(order), bool)
    again[1:] = (user[1:] == user[:-1]) & (at[1:] == at[:-1])
    tied = again.copy()
    tied[:-1] |= again[1:]
    if tied.any():
        own = order[tied]
        mixed = (pairs.user[own].astype(np.int64) * 7919 + pairs.item[own].astype(np.int64) * 104_729) % PRIME
        order[tied] = own[np.lexsort((pairs.item[own], mixed * mixed % PRIME, np.cumsum(~again)[tied]))]
    return order


def _days_before(as_of: float, at: np.ndarray) -> np.ndarray:
    """Days between moments in whole seconds, as date_diff counts them."""
    return np.asarray((np.floor(as_of) - np.floor(at)) / DAY)


def _medians(group: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Median of the values of each group, float64 ``[n]``; NaN where there are none."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=n)
    start = np.cumsum(count) - count
    some = count > 0
    out = np.full(n, np.nan)
    ordered = values[order]
    low, high = (start + (count - 1) // 2)[some], (start + count // 2)[some]
    out[some] = (ordered[low] + ordered[high]) / 2
    return out


def activity_table(found: dict[str, np.ndarray], items: dict[str, Any]) -> Any:
    """The table feat_item_activity from ``Activity.items`` and the catalogue; NaN becomes NULL."""
    import pyarrow as pa

    columns = {
        "item_idx": pa.array(np.arange(len(items["item_ids"]), dtype=np.int32)),
        "item_id": pa.array(items["item_ids"], pa.string()),
        "domain": pa.array(items["domains"], pa.string()),
    }
    for name in ACTIVITY_COLUMNS:
        column = found[name]
        columns[name] = pa.array(column) if column.dtype.kind == "i" else pa.array(column, mask=np.isnan(column))
    return pa.table(columns)


def transitions_table(steps: sp.csr_matrix) -> Any:
    """The table feat_item_transitions from ``Activity.transitions``."""
    import pyarrow as pa

    length = np.diff(steps.indptr)
    lines = np.full((len(length), int(length.max(initial=0))), np.inf)
    is_there = np.arange(lines.shape[1]) < length[:, None]
    lines[is_there] = -np.round(steps.data, NEXT_DECIMALS)
    rank = np.empty(lines.shape, np.int64)
    np.put_along_axis(rank, np.argsort(lines, axis=1, kind="stable"), np.arange(1, lines.shape[1] + 1)[None], 1)
    return pa.table(
        {
            "item_idx": pa.array(np.repeat(np.arange(len(length), dtype=np.int32), length)),
            "next_item_idx": pa.array(steps.indices.astype(np.int32)),
            "weight": pa.array(steps.data),
            "neighbour_rank": pa.array(rank[is_there]),
        }
    )
