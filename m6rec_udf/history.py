"""Users' behaviour as arrays: the in-memory counterpart of feat_user_item and feat_user_activity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from m6rec_udf.arrays import Snapshot

DAY = 86400.0


@dataclass
class Behaviour:
    """Behaviour of ``users`` users, one entry per event, sorted by user.

    Attributes:
        users: number of users.
        row: int ``[e]`` user position, ascending.
        item: int ``[e]`` item_idx.
        interest, satisfaction: float ``[e]``.
        happened_at: float ``[e]`` seconds since 1970.
        segment: int ``[users]`` code in ``settings['segments']``, -1 for none.
        asked_at: float ``[users]`` moment of a question from before the snapshot's moment, seconds since 1970; NaN,
            None or a later one: the snapshot's moment or the user's last event, whichever is later.
    """

    users: int
    row: np.ndarray
    item: np.ndarray
    interest: np.ndarray
    satisfaction: np.ndarray
    happened_at: np.ndarray
    segment: np.ndarray
    asked_at: np.ndarray | None = None

    def block(self, start: int, stop: int) -> Behaviour:
        """The users ``start`` to ``stop``."""
        a, b = np.searchsorted(self.row, [start, stop])
        return Behaviour(
            stop - start,
            self.row[a:b] - start,
            self.item[a:b],
            self.interest[a:b],
            self.satisfaction[a:b],
            self.happened_at[a:b],
            self.segment[start:stop],
            None if self.asked_at is None else self.asked_at[start:stop],
        )

    def latest(self, most: np.ndarray) -> Behaviour:
        """The last ``most`` behaviours of each user (int ``[users]``); those of a user are in the order of time."""
        left = np.searchsorted(self.row, self.row, side="right") - np.arange(len(self.row))
        return self.only(left <= most[self.row])

    def only(self, keep: np.ndarray) -> Behaviour:
        """The behaviour of a mask, of the same users."""
        return Behaviour(
            self.users,
            self.row[keep],
            self.item[keep],
            self.interest[keep],
            self.satisfaction[keep],
            self.happened_at[keep],
            self.segment,
            self.asked_at,
        )

    def of(self, users: np.ndarray) -> Behaviour:
        """Some of the users, by their positions in ascending order."""
        place = np.full(self.users, -1, np.int64)
        place[users] = np.arange(len(users))
        keep = place[self.row] >= 0
        kept = self.only(keep)
        return replace(
            kept,
            users=len(users),
            row=place[kept.row],
            segment=self.segment[users],
            asked_at=None if self.asked_at is None else self.asked_at[users],
        )


class Profile:
    """What is derived from the behaviour of a block of users, as of the moment each is asked about."""

    def __init__(self, snapshot: Snapshot, behaviour: Behaviour) -> None:
        self.snapshot = snapshot
        self.users = behaviour.users
        self.segment = behaviour.segment
        self.span = float(snapshot.settings["span_days"])
        b, n = behaviour, snapshot.n
        now = np.full(b.users, float(snapshot.settings["as_of"]))
        np.maximum.at(now, b.row, b.happened_at)
        if b.asked_at is not None:
            now = np.fmin(now, b.asked_at)
        age = (now[b.row] - b.happened_at) / DAY
        self._activity(b, age)
        key = b.row.astype(np.int64) * n + b.item
        self.pair_key, pair = np.unique(key, return_inverse=True)
        m = len(self.pair_key)
        self.row, self.item = self.pair_key // max(n, 1), self.pair_key % max(n, 1)
        self.events = np.bincount(pair, minlength=m)
        self.interest = np.full(m, -np.inf)
        np.maximum.at(self.interest, pair, b.interest)
        lowest = np.full(m, np.inf)
        np.minimum.at(lowest, pair, b.interest)
        self.last_days = np.full(m, np.inf)
        np.minimum.at(self.last_days, pair, age)
        order = np.lexsort((self.item, self.last_days, self.row))
        first = np.searchsorted(self.row, np.arange(self.users))
        rank = np.empty(m, np.int64)
        rank[order] = np.arange(m) - first[self.row[order]]
        decayed = self.interest * 0.5 ** (self.last_days / (0.5 * self.span))
        self.long_weight = np.where(lowest < 0, lowest, decayed)
        self.short_weight = np.where((self.interest > 0) & (rank < 20), 0.9**rank, 0.0)

    def _activity(self, b: Behaviour, age: np.ndarray) -> None:
        def per_user(weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(b.row, weights, self.users).astype(np.float64)

        self.user_events = per_user()
        some = np.where(self.user_events > 0, self.user_events, np.nan)
        self.user_satisfaction = per_user(b.satisfaction) / some
        self.idle_days = np.full(self.users, np.inf)
        np.minimum.at(self.idle_days, b.row, age)
        self.idle_days[~np.isfinite(self.idle_days)] = np.nan
        self.tenure_days = np.full(self.users, np.nan)
        np.fmax.at(self.tenure_days, b.row, age)
        self.events_short = per_user((age <= 0.01 * self.span).astype(float))
        self.events_long = per_user((age <= 0.1 * self.span).astype(float))
        popularity = np.log1p(self.snapshot.column("events")[b.item])
        self.mean_log_popularity = per_user(popularity) / some
        price = self.snapshot.column("price")[b.item]
        priced = ~np.isnan(price)
        counted = per_user(priced.astype(float))
        log_price = np.where(priced, np.log1p(np.maximum(np.nan_to_num(price), 0)), 0)
        self.mean_log_price = per_user(log_price) / np.where(counted > 0, counted, np.nan)

    def _matrix(self, weight: np.ndarray) -> sp.csr_matrix:
        keep = weight > 0
        start = np.searchsorted(self.row[keep], np.arange(self.users + 1))
        return sp.csr_matrix(
            (weight[keep].astype(np.float32), self.item[keep], start), shape=(self.users, self.snapshot.n)
        )

    @cached_property
    def long(self) -> sp.csr_matrix:
        """Positive time-decayed interest, CSR ``[users, n]``."""
        return self._matrix(self.long_weight)

    @cached_property
    def short(self) -> sp.csr_matrix:
        """Weights of the latest 20 items, CSR ``[users, n]``."""
        return self._matrix(self.short_weight)

    @cached_property
    def items(self) -> np.ndarray:
        """Distinct items per user."""
        return np.bincount(self.row, minlength=self.users)

    @cached_property
    def first(self) -> np.ndarray:
        """Where each user's pairs start, int64 ``[users + 1]``."""
        return np.searchsorted(self.row, np.arange(self.users + 1))

    @cached_property
    def buy_again(self) -> np.ndarray:
        """Raw score of cand_buy_again for every pair, float64; 0: not proposed."""
        rate = self.snapshot.column("repurchase_rate")[self.item]
        rhythm = self.snapshot.column("repurchase_days")[self.item].astype(np.float64)
        late = np.abs(self.last_days - np.where(np.isnan(rhythm), 0.1 * self.span, rhythm))
        score = rate * np.log1p(self.events) * np.exp(-late / (np.nan_to_num(rhythm) + 0.1 * self.span))
        return np.where(self.interest > 0, score, 0.0)

    def find(self, row: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position of (user, item) among the pairs, and whether it is there."""
        key = row.astype(np.int64) * self.snapshot.n + item
        at = np.minimum(np.searchsorted(self.pair_key, key), max(len(self.pair_key) - 1, 0))
        if not len(self.pair_key):
            return at, np.zeros(len(key), bool)
        return at, self.pair_key[at] == key
