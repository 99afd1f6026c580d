"""Training rows: what the candidates of past moments turned out to be worth.

Two sources. Behaviour: the candidates at the start of a window, labelled by what the user did inside it.
Impressions: what ``serve`` showed inside it, labelled by what the user then did with it; shown and ignored is a
negative, and a row weighs 1 / propensity, so that what the strategies in force showed more does not look better.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.functions import candidates_of
from m6rec_udf.moment import Log
from m6rec_udf.ranking import FEATURES
from m6rec_udf.satisfaction import Rows, is_known

WINDOW_SHARE = 0.08
WINDOWS = 4  # the latest one stops and calibrates, the others train
WINDOWS_OF_SMALL_LOGS = 7
SMALL_LOG = 300_000  # events
USERS_PER_WINDOW = 2000
NEGATIVES_PER_USER = {False: 50, True: 20}  # of items new to the user, and of items it knows
REQUESTS_PER_WINDOW = 3000
LARGEST_IMPRESSION_WEIGHT = 10.0
LEAST_ANSWERS = 100  # impressions followed by something, in all windows together; fewer are not learned from


def cuts(log: Log) -> list[float]:
    """Moments from which windows look ahead, latest first: quantiles of the log's times."""
    if len(log.happened_at) < 50:
        return []
    windows = WINDOWS_OF_SMALL_LOGS if len(log.happened_at) < SMALL_LOG else WINDOWS
    shares = [1 - WINDOW_SHARE * (j + 1) for j in range(windows)]
    found = [float(np.quantile(log.happened_at, s, method="higher")) for s in shares]
    first = float(log.happened_at.min())
    return [c for at, c in enumerate(found) if c > first and c not in found[:at]]


@dataclass(frozen=True)
class Outcomes:
    """Rows of mart_outcomes of one window, sorted by (user, item)."""

    user: np.ndarray
    item: np.ndarray
    satisfaction: np.ndarray


    def only(self, keep: np.ndarray) -> Outcomes:
        """The outcomes of a mask."""
        return Outcomes(self.user[keep], self.item[keep], self.satisfaction[keep])


@dataclass(frozen=True)
class Impressions:
    """Rows of mart_impressions of one window, sorted by (request, rank); ``request`` counts from 0."""

    request: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    propensity: np.ndarray
    shown_at: np.ndarray
    satisfaction: np.ndarray

    @property
    def answered(self) -> int:
        """How many were followed by something."""
        return int((self.satisfaction > 0).sum())

    def only(self, keep: np.ndarray) -> Impressions:
        """The impressions of a mask."""
        columns = (getattr(self, field.name)[keep] for field in fields(self))
        return Impressions(*columns)


def rows_of_impressions(
    snapshot: Snapshot, log: Log, impressions: Impressions, *, seed: int, extra: Any = None
) -> Rows:
    """Impressions with the features they had when they were shown: the window's snapshot, the history until then.

    An item that the snapshot would not have proposed to the user is left out: no candidate looks like it.
    """
    generator = np.random.default_rng(seed)
    requests, first = np.unique(impressions.request, return_index=True)
    if len(requests) > REQUESTS_PER_WINDOW:
        keep = np.sort(generator.choice(len(requests), REQUESTS_PER_WINDOW, replace=False))
        requests, first = requests[keep], first[keep]
    parts = []
    for start in range(0, len(requests), 500):
        at = first[start : start + 500]
        users = impressions.user[at]
        behaviour = log.before(users, impressions.shown_at[at], snapshot.settings["segments"])
        found, x = candidates_of(
            snapshot,
            behaviour,
            allowed=None,
            exclude_seen=not snapshot.settings["repeats_allowed"],
            at_least=10,
            extra=None if extra is None else _per_request(extra, users),
        )
        shown = np.flatnonzero(np.isin(impressions.request, requests[start : start + 500]))
        row = np.searchsorted(requests[start : start + 500], impressions.request[shown])
        key = found.row.astype(np.int64) * snapshot.n + found.item  # ascending
        wanted = row.astype(np.int64) * snapshot.n + impressions.item[shown]
        place = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        known = key[place] == wanted if len(key) else np.zeros(len(wanted), bool)
        shown, place = shown[known], place[known]
        weight = np.minimum(1.0 / impressions.propensity[shown], LARGEST_IMPRESSION_WEIGHT)
        parts.append(Rows(x[place], impressions.satisfaction[shown], weight, impressions.rank[shown]))
    return join(parts) if parts else no_rows()


def _per_request(extra: Any, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposals of the SQL-only strategies for the users of requests, (request position, item, bit)."""
    distinct = np.unique(users)
    row, item, bit = extra(distinct)
    order = np.argsort(row, kind="stable")
    row, item, bit = row[order], item[order], bit[order]
    own = np.searchsorted(distinct, users)
    start, stop = np.searchsorted(row, own, "left"), np.searchsorted(row, own, "right")
    length = stop - start
    at = np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(length.sum())
    return np.repeat(np.arange(len(users)), length), item[at], bit[at]


def no_rows() -> Rows:
    """Nothing to learn from."""
    return Rows(np.zeros((0, len(FEATURES)), np.float32), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))


def rows_of_window(
    snapshot: Snapshot,
    log: Log,
    outcomes: Outcomes,
    *,
    seed: int,
    extra: Any = None,
) -> Rows:
    """Candidates at the snapshot's moment, labelled by the outcomes of the window after it.

    Users are those active in the window; y is the best satisfaction of the pair inside it, 0 where nothing
    happened. Of the rows with y = 0 a sample is kept and weighted so that the base rate stays what it was.
    """
    as_of = float(snapshot.settings["as_of"])
    users = np.unique(outcomes.user)
    generator = np.random.default_rng(seed)
    if len(users) > USERS_PER_WINDOW:
        users = np.sort(generator.choice(users, USERS_PER_WINDOW, replace=False))
    n = snapshot.n
    label_key, label = outcomes.user * n + outcomes.item, outcomes.satisfaction
    xs, ys, ws = [], [], []
    for start in range(0, len(users), 1000):
        block = users[start : start + 1000]
        behaviour = log.behaviour(block, as_of, snapshot.settings["segments"])
        own = None if extra is None else extra(block)
        found, x = candidates_of(
            snapshot,
            behaviour,
            allowed=None,
            exclude_seen=not snapshot.settings["repeats_allowed"],
            at_least=10,
            extra=own,
        )
        wanted = block[found.row].astype(np.int64) * n + found.item
        at = np.minimum(np.searchsorted(label_key, wanted), max(len(label_key) - 1, 0))
        y = np.where(label_key[at] == wanted, label[at], 0.0)
        keep, weight = _sample(found.row, y, is_known(x), len(block), generator)
        xs.append(x[keep])
        ys.append(y[keep])
        ws.append(weight[keep])
    if not xs:
        return no_rows()
    y = np.concatenate(ys)
    return Rows(np.concatenate(xs), y, np.concatenate(ws), np.zeros(len(y), np.int64))


def _sample(
    row: np.ndarray, y: np.ndarray, known: np.ndarray, users: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(kept rows, their weights): every positive, and some negatives of each user standing for all of them."""
    keep, weight, chance = y > 0, np.ones(len(y)), generator.random(len(y))
    for is_of_history, most in NEGATIVES_PER_USER.items():
        negative = (y <= 0) & (known == is_of_history)
        count = np.bincount(row[negative], minlength=users)
        share = np.minimum(1.0, most / np.maximum(count, 1))[row]
        keep |= negative & (chance < share)
        weight[negative] = 1 / share[negative]
    return np.flatnonzero(keep), weight


def join(parts: list[Rows]) -> Rows:
    """Rows of several windows as one."""
    return Rows(
        np.concatenate([p.x for p in parts]),
        np.concatenate([p.y for p in parts]),
        np.concatenate([p.weight for p in parts]),
        np.concatenate([p.slot for p in parts]),
    )
