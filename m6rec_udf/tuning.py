"""Settings a build chooses by itself, on the latest window before its moment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import SPARE
from m6rec_udf.collaborative import LARGE, ease, head_items, item_item_parts, joined, top_per_row
from m6rec_udf.event_log import Log
from m6rec_udf.fronts import best_of_rows, fronts
from m6rec_udf.history import Profile
from m6rec_udf.item_models import CLOSED_FORM_ITEMS, item_item_weights
from m6rec_udf.moment import Settings

TREND_COLUMNS = ("trend_very_short", "trend_short", "trend_medium", "trend_long")
TREND_POWERS = (0.25, 0.5, 1.0)
_TRENDS = [("trend_short", 0.0), *((column, power) for column in TREND_COLUMNS for power in TREND_POWERS)]
REGULARISATION_PER_USER = (0.2, 0.05, 0.8)  # the first is the default
KEPT = ((100, False), (400, False), (400, True))  # weights of each proposed item, and whether of either sign
TAIL_WEIGHTS = (0.3, 0.1, 0.03)
USERS = 600
LEAST_USERS = 20
CHOICE_ITEMS = 2500  # most popular ones, on which a large log's regularisation and neighbours are chosen
DEPTH = 20


def usual_regularisation(users: int) -> float:
    """Lambda of the closed form where there is nobody to choose on: 0.2 per user, between 20 and 20,000."""
    return float(np.clip(REGULARISATION_PER_USER[0] * users, 20, 20_000))


def choose_item_item(
    snapshot: Snapshot, x: sp.csr_matrix, log: Log, settings: Settings, until: float
) -> tuple[Settings, sp.csr_matrix, str]:
    """Regularisation, neighbours, weight of the tail and trend of item-item, by what users did in (as_of, until].

    Each variant ranks the unseen items of users active in the window; the best mean NDCG@20 wins, the first of equals.
    Regularisation and neighbours are chosen among the most popular items, tail and trend over all items.
    ``x``: interactions up to as_of, CSR ``[users, n]``. Returns the settings, the weights of ``item_item_weights`` with
    them, and the figures in words.
    """
    users = _users(snapshot, log, until, settings.seed)
    if len(users) < LEAST_USERS:
        why = f"{len(users)} users to choose on, fewer than {LEAST_USERS}: the default"
        return settings, item_item_weights(x, settings), why
    closed, figures = _choose_closed_form(snapshot, x, log, settings, users, until)
    problem = _problem(snapshot, log, users, np.arange(snapshot.n), until)
    parts = item_item_parts(
        x,
        regularisation=closed.regularisation,
        neighbours=closed.neighbours,
        most_items=CLOSED_FORM_ITEMS,
        either_sign=closed.either_sign,
    )
    weights = {share: joined(*parts, share) for share in TAIL_WEIGHTS}
    usual = weights[TAIL_WEIGHTS[0]]
    trends = dict(zip(_TRENDS, _values(snapshot, usual, _TRENDS, problem), strict=True))
    trend = max(trends, key=lambda t: trends[t])
    tails = {share: _values(snapshot, matrix, [trend], problem)[0] for share, matrix in weights.items()}
    tail = max(tails, key=lambda share: tails[share])
    figures += "; trend " + ", ".join(f"{c}^{p:g} {value:.4f}" for (c, p), value in trends.items())
    figures += "; tail " + ", ".join(f"{share:g} {value:.4f}" for share, value in tails.items())
    chosen = replace(closed, tail_weight=tail, trend_column=trend[0], trend_power=trend[1])
    return chosen, weights[tail], f"NDCG@{DEPTH} of {len(users)} users in the latest window: {figures}"


def _choose_closed_form(
    snapshot: Snapshot, x: sp.csr_matrix, log: Log, settings: Settings, users: np.ndarray, until: float
) -> tuple[Settings, str]:
    """Regularisation and neighbours, with the trend that suits each best.

    Where there are many interactions, they are chosen among the most popular items: three solves of the whole closed
    form would take longer than all else.
    """
    head = head_items(x, CLOSED_FORM_ITEMS if x.nnz < LARGE else CHOICE_ITEMS)
    history, open_, wanted = _problem(snapshot, log, users, head, until)
    factors = [_factor(snapshot, trend)[head] for trend in _TRENDS]
    found: dict[tuple[float, int, bool], float] = {}
    for per_user in REGULARISATION_PER_USER:
        regularisation = float(np.clip(per_user * log.users, 20, 20_000))
        dense = ease(x[:, head], regularisation)
        for neighbours, either_sign in KEPT:
            base = (history @ top_per_row(dense.T, neighbours, either_sign=either_sign).T).toarray()
            values = [_ndcg(base * factor, open_, wanted) / len(users) for factor in factors]
            found[regularisation, neighbours, either_sign] = round(max(values), 6)
    regularisation, neighbours, either_sign = max(found, key=lambda variant: found[variant])
    figures = ", ".join(
        f"lambda {lam:g} of {k} {'weights of either sign' if either else 'positive weights'} {value:.4f}"
        for (lam, k, either), value in found.items()
    )
    chosen = replace(settings, regularisation=regularisation, neighbours=neighbours, either_sign=either_sign)
    return chosen, figures


def _factor(snapshot: Snapshot, trend: tuple[str, float]) -> np.ndarray:
    settings = {**snapshot.settings, "trend_column": trend[0], "trend_power": trend[1]}
    return replace(snapshot, settings=settings).trend_factor


def _values(
    snapshot: Snapshot,
    weights: sp.csr_matrix,
    trends: list[tuple[str, float]],
    problem: tuple[sp.csr_matrix, np.ndarray, np.ndarray],
) -> list[float]:
    """Mean NDCG of item-item weights times each trend, in blocks of users."""
    history, open_, wanted = problem
    factors, totals = [_factor(snapshot, trend) for trend in trends], np.zeros(len(trends))
    for start in range(0, len(open_), 100):
        block = slice(start, start + 100)
        base = (history[block] @ weights).toarray()
        totals += [_ndcg(base * factor, open_[block], wanted[block]) for factor in factors]
    return [round(float(total) / len(open_), 6) for total in totals]


def _users(snapshot: Snapshot, log: Log, until: float, seed: int) -> np.ndarray:
    """Users with a history at as_of and a success in the window; a sample where there are many."""
    as_of = float(snapshot.settings["as_of"])
    inside = (log.happened_at > as_of) & (log.happened_at <= until)
    inside &= log.satisfaction >= snapshot.settings["positive_at"]
    has_history = np.zeros(log.users, bool)
    has_history[log.user[log.happened_at <= as_of]] = True
    users = np.unique(log.user[inside & has_history[log.user]])
    if len(users) > USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, USERS, replace=False))
    return users


def _problem(
    snapshot: Snapshot, log: Log, users: np.ndarray, head: np.ndarray, until: float
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """(history, may be shown, was a success in the window), each ``[users, head]``."""
    as_of = float(snapshot.settings["as_of"])
    profile = Profile(snapshot, log.behaviour(users, as_of, snapshot.settings["segments"]))
    place = np.full(snapshot.n, -1)
    place[head] = np.arange(len(head))
    open_ = np.repeat(snapshot.is_known[head][None], len(users), axis=0)
    seen = place[profile.item] >= 0
    open_[profile.row[seen], place[profile.item[seen]]] = False
    mine = (log.happened_at > as_of) & (log.happened_at <= until) & np.isin(log.user, users)
    mine &= (log.satisfaction >= snapshot.settings["positive_at"]) & (place[log.item] >= 0)
    wanted = np.zeros(open_.shape, bool)
    wanted[np.searchsorted(users, log.user[mine]), place[log.item[mine]]] = True
    return profile.long[:, head].tocsr(), open_, wanted & open_


def _ndcg(scores: np.ndarray, open_: np.ndarray, wanted: np.ndarray) -> float:
    """Sum over users of NDCG at DEPTH (Jarvelin and Kekalainen 2002)."""
    front = fronts(np.where(open_, scores, -np.inf), DEPTH + SPARE)
    row, item = best_of_rows(*front, scores[front], len(scores), DEPTH)
    first = np.searchsorted(row, np.arange(len(open_)))
    gain = wanted[row, item] / np.log2(np.arange(len(row)) - first[row] + 2)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, DEPTH + 2)))])
    best = ideal[np.minimum(wanted.sum(1), DEPTH)]
    return float((np.bincount(row, gain, len(open_)) / np.where(best > 0, best, np.inf)).sum())
