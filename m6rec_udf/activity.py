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

from m6rec_udf.kernels import counting

if TYPE_CHECKING:
    from m6rec_udf.event_log import Log

DAY = counting.DAY
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
MOST_CELLS = 4_000_000  # segments times items that are summed in a dense table


@dataclass(frozen=True)
class Pairs:
    """The (user, item) pairs of interest, sorted by both.

    Attributes:
        user, item: int32 ``[p]``.
        place: int32 ``[p]`` where the last behaviour stands in the log.
        interest: float32 ``[p]`` the largest interest.
    """

    user: np.ndarray
    item: np.ndarray
    place: np.ndarray
    interest: np.ndarray


class Activity:
    """What the log says as of a moment.

    Args:
        log: behaviour, also later one.
        as_of: the moment, seconds since 1970.
        span_days: days since the first behaviour.
        n: number of items.
    """

    def __init__(self, log: Log, as_of: float, span_days: float, n: int) -> None:
        self.log, self.as_of, self.span_days, self.n = log, float(as_of), float(span_days), n

    def pairs(self) -> Pairs:
        """Pairs of feat_user_item with positive interest."""
        log, place = self.log, np.empty(len(self.log.item), np.int32)
        interest, columns = np.empty(len(place), np.float32), (log.user, log.item, log.interest, log.happened_at)
        count = counting.pairs_of(log.by_pair, *columns, self.as_of, place, interest)
        place = place[:count]
        return Pairs(log.user[place], log.item[place], place, interest[:count])

    def items(self, created_at: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of feat_item_activity by name, each ``[n]``; NaN for NULL.

        ``created_at``: float64 ``[n]``, seconds since 1970, NaN for none.
        """
        n, log = self.n, self.log
        shares = list(dict.fromkeys([*TREND_SHARES.values(), *SUCCESS_SHARES.values()]))
        half_lives = np.asarray(shares) * self.span_days
        sums = np.zeros((n, counting.TREND + 2 * len(shares)))
        sums[:, counting.FIRST], sums[:, counting.IDLE] = -np.inf, np.inf
        columns = log.item, log.interest, log.satisfaction, log.happened_at, log.is_positive
        counting.count(*columns, self.as_of, half_lives, sums)
        events = sums[:, counting.EVENTS].astype(np.int64)
        found = {
            "events": events,
            "successes": sums[:, counting.SUCCESSES].astype(np.int64),
            "satisfaction": sums[:, counting.SATISFACTION] / np.where(events > 0, events, np.nan),
            "first_event_days": np.where(events > 0, sums[:, counting.FIRST], np.nan),
            "idle_days": np.where(events > 0, sums[:, counting.IDLE], np.nan),
        }
        trend, success = counting.TREND, counting.TREND + len(shares)
        found |= {name: sums[:, trend + shares.index(share)] for name, share in TREND_SHARES.items()}
        found |= {name: sums[:, success + shares.index(share)] for name, share in SUCCESS_SHARES.items()}
        found |= self._repurchase()
        catalogue_days = np.where(created_at <= self.as_of, _days_before(self.as_of, created_at), np.nan)
        found["age_days"] = np.where(
            np.isnan(catalogue_days),
            found["first_event_days"],
            np.maximum(np.nan_to_num(found["first_event_days"]), catalogue_days),
        )
        return found

    def _repurchase(self) -> dict[str, np.ndarray]:
        """Users, share of them that came back, and the median of their mean distance, per item."""
        log, (users, again), days = self.log, np.zeros((2, self.n), np.int64), np.empty(self.n)
        columns = log.by_pair, log.user, log.item, log.interest, log.happened_at
        counting.returns_of(*columns, self.as_of, users, again, days)
        return {"users": users, "repurchase_rate": again / np.maximum(users, 1), "repurchase_days": days}

    def segment_trend(self, segment: np.ndarray, segments: int) -> sp.csr_matrix:
        """Trends of feat_segment_item, CSR ``[segments, n]``; ``segment``: code per user, -1 for none."""
        log, shape, half_life = self.log, (max(segments, 1), self.n), SEGMENT_SHARE * self.span_days
        if shape[0] * shape[1] > MOST_CELLS:
            code = segment[log.user]
            keep = (code >= 0) & (log.interest > 0) & (log.happened_at <= self.as_of)
            decay = np.exp2(-_days_before(self.as_of, log.happened_at[keep]) / half_life)
            return sp.csr_matrix((decay, (code[keep], log.item[keep])), shape=shape)
        cells = np.zeros(shape)
        columns = log.user, log.item, log.interest, log.happened_at
        counting.count_by_group(*columns, self.as_of, np.asarray(segment, np.int64), half_life, cells)
        return sp.csr_matrix(cells)

    def transitions(self, pairs: Pairs, users: int) -> sp.csr_matrix:
        """Weights of feat_item_transitions, CSR float64 ``[n, n]``, the 100 best of each row."""
        n, log = self.n, self.log
        active = max(int((np.bincount(pairs.user, minlength=users) > 0).sum()), 1)
        longest = int(min(MOST_POSITIONS, max(LEAST_POSITIONS, POSITIONS / active)))
        is_last = np.zeros(len(log.item), bool)
        is_last[pairs.place] = True
        place = np.empty(min(longest * active, len(pairs.place)), np.int32)
        place = place[: counting.latest_of(is_last, log.user, log.item, log.happened_at, longest, place)]
        recency = 0.5 ** (_days_before(self.as_of, log.happened_at[place]) / (0.25 * self.span_days))
        popularity = np.bincount(pairs.item, minlength=n)
        own = 1 / np.maximum(popularity, 1) ** 0.5
        next_ = 1 / (popularity + 5.0) ** 0.3
        most = min(n * NEXT_ITEMS, 2 * DISTANCES * len(place))  # what stays untouched of it costs nothing
        indices, data = np.empty(most, np.int32), np.empty(most)
        how = DISTANCES, BACKWARDS, NEXT_ITEMS, 10.0**NEXT_DECIMALS
        indptr = counting.steps(log.user[place], log.item[place], recency, own, next_, *how, indices, data)
        return sp.csr_matrix((data[: indptr[-1]], indices[: indptr[-1]], indptr), shape=(n, n))


def _days_before(as_of: float, at: np.ndarray) -> np.ndarray:
    """Days between moments in whole seconds, as date_diff counts them."""
    return np.asarray((np.floor(as_of) - np.floor(at)) / DAY)


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

    rank = counting.ranks_of(steps.indptr.astype(np.int64), steps.data, 10.0**NEXT_DECIMALS)
    item = np.repeat(np.arange(steps.shape[0], dtype=np.int32), np.diff(steps.indptr))
    return pa.table(
        {
            "item_idx": pa.array(item),
            "next_item_idx": pa.array(steps.indices.astype(np.int32)),
            "weight": pa.array(steps.data),
            "neighbour_rank": pa.array(rank),
        }
    )
