"""Training rows: what the candidates of past moments turned out to be worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.functions import candidates_of
from m6rec_udf.moment import Log
from m6rec_udf.satisfaction import Rows

WINDOW_SHARE = 0.08
WINDOWS = 4  # the latest one stops and calibrates, the others train
WINDOWS_OF_SMALL_LOGS = 7
SMALL_LOG = 300_000  # events
USERS_PER_WINDOW = 1200
NEGATIVES_PER_USER = 60


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
        keep, weight = _sample(found.row, y, len(block), generator)
        xs.append(x[keep])
        ys.append(y[keep])
        ws.append(weight[keep])
    if not xs:
        return Rows(np.zeros((0, 1), np.float32), np.zeros(0), np.zeros(0))
    return Rows(np.concatenate(xs), np.concatenate(ys), np.concatenate(ws))


def _sample(
    row: np.ndarray, y: np.ndarray, users: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    negative = y <= 0
    count = np.bincount(row[negative], minlength=users)
    share = np.minimum(1.0, NEGATIVES_PER_USER / np.maximum(count, 1))
    keep = ~negative | (generator.random(len(y)) < share[row])
    return np.flatnonzero(keep), np.where(negative, 1 / share[row], 1.0)


def join(parts: list[Rows]) -> Rows:
    """Rows of several windows as one."""
    return Rows(
        np.concatenate([p.x for p in parts]),
        np.concatenate([p.y for p in parts]),
        np.concatenate([p.weight for p in parts]),
    )
