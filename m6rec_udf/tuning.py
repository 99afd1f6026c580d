"""Settings a build chooses by itself, on the latest window before its moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import top_open
from m6rec_udf.history import Profile
from m6rec_udf.moment import Log

TREND_COLUMNS = ("trend_very_short", "trend_short", "trend_medium", "trend_long")
TREND_POWERS = (0.25, 0.5, 1.0)
USERS = 600
DEPTH = 20


def choose_trend(snapshot: Snapshot, log: Log, until: float, *, seed: int) -> tuple[str, float, str]:
    """Half-life and power of the trend that item-item weights are multiplied with.

    Each variant ranks the unseen items of users active in (as_of, until]; the best mean NDCG@20 wins, and the
    first variant, no trend at all, keeps its place unless another is better.

    Returns (column of feat_item_activity, power, the figures in words).
    """
    as_of = float(snapshot.settings["as_of"])
    inside = (log.happened_at > as_of) & (log.happened_at <= until)
    inside &= log.satisfaction >= snapshot.settings["positive_at"]
    has_history = np.zeros(log.users, bool)
    has_history[log.user[log.happened_at <= as_of]] = True
    users = np.unique(log.user[inside & has_history[log.user]])
    if len(users) < 20:
        return "trend_short", 0.5, f"{len(users)} users to choose on, fewer than 20: the default"
    if len(users) > USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, USERS, replace=False))
    variants = [("trend_short", 0.0)] + [(c, p) for c in TREND_COLUMNS for p in TREND_POWERS]
    total = np.zeros(len(variants))
    for start in range(0, len(users), 100):
        block = users[start : start + 100]
        profile = Profile(snapshot, log.behaviour(block, as_of, snapshot.settings["segments"]))
        base = (profile.long @ snapshot.item_item).toarray()
        open_ = np.broadcast_to(snapshot.is_known, base.shape).copy()
        open_[profile.row, profile.item] = False
        wanted = np.zeros(base.shape, bool)
        mine = inside & np.isin(log.user, block)
        wanted[np.searchsorted(block, log.user[mine]), log.item[mine]] = True
        wanted &= open_
        for at, (column, power) in enumerate(variants):
            variant = replace(snapshot, settings={**snapshot.settings, "trend_column": column, "trend_power": power})
            total[at] += _ndcg(base * variant.trend_factor, open_, wanted)
    best = int(np.argmax(np.round(total / len(users), 6)))
    figures = ", ".join(f"{c}^{p:g} {t / len(users):.4f}" for (c, p), t in zip(variants, total, strict=True))
    return *variants[best], f"NDCG@{DEPTH} of {len(users)} users in the latest window: {figures}"


def _ndcg(scores: np.ndarray, open_: np.ndarray, wanted: np.ndarray) -> float:
    """Sum over users of NDCG at DEPTH (Jarvelin and Kekalainen 2002); ``scores`` is overwritten."""
    row, item = top_open(scores, open_, DEPTH)
    first = np.searchsorted(row, np.arange(len(open_)))
    gain = wanted[row, item] / np.log2(np.arange(len(row)) - first[row] + 2)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, DEPTH + 2)))])
    best = ideal[np.minimum(wanted.sum(1), DEPTH)]
    return float((np.bincount(row, gain, len(open_)) / np.where(best > 0, best, np.inf)).sum())
