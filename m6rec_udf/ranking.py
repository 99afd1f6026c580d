"""Features of (user, item) candidates: the columns the satisfaction model sees."""

from __future__ import annotations

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import SCORED, Candidates, buy_again_score
from m6rec_udf.history import Profile

SESSION_DAYS = 30 / 1440  # half-life of "in the middle of a visit": the usual 30 minutes

FEATURES: tuple[str, ...] = (
    "item_log_events",
    "item_log_users",
    "item_log_trend_very_short",
    "item_log_trend_short",
    "item_log_trend_medium",
    "item_log_trend_long",
    "item_log_successes",
    "item_log_success_short",
    "item_log_success_medium",
    "item_log_success_long",
    "item_trend_ratio_short",
    "item_trend_ratio_medium",
    "item_satisfaction",
    "item_age_share",
    "item_idle_share",
    "item_repurchase_rate",
    "item_log_price",
    "user_log_events",
    "user_repeat_share",
    "user_satisfaction",
    "user_idle_share",
    "user_tenure_share",
    "user_session",
    "user_log_events_short",
    "user_log_events_long",
    "user_mean_log_popularity",
    "pair_popularity_gap",
    "pair_price_gap",
    "pair_category_share",
    "pair_brand_share",
    "pair_log_events",
    "pair_last_share",
    "pair_repurchase_phase",
    "score_covisitation",
    "score_item_item",
    "score_matrix_factorization",
    "score_semantic",
    "score_buy_again",
    "share_covisitation",
    "share_item_item",
    "share_matrix_factorization",
    "share_semantic",
    "rank_covisitation",
    "rank_item_item",
    "rank_matrix_factorization",
    "rank_semantic",
    "rank_trending",
    "rank_success",
    "supporters",
)
ITEM_FEATURES = tuple(name for name in FEATURES if name.startswith("item_"))  # the first ones


def features(snapshot: Snapshot, profile: Profile, found: Candidates) -> np.ndarray:
    """Feature matrix of the candidates, float32 ``[c, len(FEATURES)]``; NaN where nothing is known."""
    row, item = found.row, found.item
    out = np.empty((len(row), len(FEATURES)), np.float32)
    out[:, : len(ITEM_FEATURES)] = snapshot.item_features[item]
    of_item = {name: out[:, at] for at, name in enumerate(ITEM_FEATURES)}
    columns = {**_user_features(profile, row), **_pair_features(snapshot, profile, row, item)}
    columns["pair_popularity_gap"] = of_item["item_log_events"] - columns["user_mean_log_popularity"]
    columns["pair_price_gap"] = of_item["item_log_price"] - profile.mean_log_price[row]
    by_user = _ByUser(row, profile.users)
    for name in SCORED:
        raw = found.scores[name]
        columns[f"score_{name}"] = raw
        columns[f"share_{name}"] = by_user.share_of_best(raw)
        columns[f"rank_{name}"] = by_user.rank(np.where(raw > 0, raw, 0))
    columns["rank_trending"] = by_user.rank(of_item["item_log_trend_short"] + of_item["item_log_trend_medium"])
    columns["rank_success"] = by_user.rank(of_item["item_log_success_long"])
    columns["supporters"] = np.bitwise_count(found.supporters)
    for at, name in enumerate(FEATURES[len(ITEM_FEATURES) :], len(ITEM_FEATURES)):
        out[:, at] = columns[name]
    return out


def item_features(snapshot: Snapshot) -> np.ndarray:
    """The features named item_* of every item, float32 ``[n, len(ITEM_FEATURES)]``."""
    span = float(snapshot.settings["span_days"])

    def column(name: str) -> np.ndarray:
        return np.asarray(snapshot.column(name), np.float64)

    events, price = column("events"), column("price")
    columns = {
        "item_log_events": np.log1p(events),
        "item_log_users": np.log1p(column("users")),
        "item_log_trend_very_short": np.log(column("trend_very_short") + 0.01),
        "item_log_trend_short": np.log(column("trend_short") + 0.01),
        "item_log_trend_medium": np.log(column("trend_medium") + 0.01),
        "item_log_trend_long": np.log(column("trend_long") + 0.01),
        "item_log_successes": np.log1p(column("successes")),
        "item_log_success_short": np.log(column("success_short") + 0.01),
        "item_log_success_medium": np.log(column("success_medium") + 0.01),
        "item_log_success_long": np.log(column("success_long") + 0.01),
        "item_trend_ratio_short": column("trend_short") / (column("trend_long") + 0.1),
        "item_trend_ratio_medium": column("trend_medium") / (events + 1.0),
        "item_satisfaction": column("satisfaction"),
        "item_age_share": column("age_days") / span,
        "item_idle_share": column("idle_days") / span,
        "item_repurchase_rate": column("repurchase_rate"),
        "item_log_price": np.log1p(np.maximum(price, 0)),
    }
    return np.column_stack([columns[name] for name in ITEM_FEATURES]).astype(np.float32)


def _user_features(profile: Profile, row: np.ndarray) -> dict[str, np.ndarray]:
    events = profile.user_events
    return {
        "user_log_events": np.log1p(events)[row],
        "user_repeat_share": (1 - profile.items / np.where(events > 0, events, np.nan))[row],
        "user_satisfaction": profile.user_satisfaction[row],
        "user_idle_share": (profile.idle_days / profile.span)[row],
        "user_tenure_share": (profile.tenure_days / profile.span)[row],
        "user_session": (0.5 ** (profile.idle_days / SESSION_DAYS))[row],
        "user_log_events_short": np.log1p(profile.events_short)[row],
        "user_log_events_long": np.log1p(profile.events_long)[row],
        "user_mean_log_popularity": profile.mean_log_popularity[row],
    }


def _pair_features(snapshot: Snapshot, profile: Profile, row: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
    at, is_there = profile.find(row, item)
    if not len(profile.pair_key):
        nothing = np.full(len(row), np.nan)
        events, last, again = np.zeros(len(row)), nothing, np.zeros(len(row))
    else:
        events = np.where(is_there, profile.events[at], 0)
        last = np.where(is_there, profile.last_days[at], np.nan)
        again = np.where(is_there, buy_again_score(snapshot, profile)[at], 0.0)
    rhythm = snapshot.column("repurchase_days")[item].astype(np.float64)
    return {
        "pair_category_share": _share(profile, snapshot.category, row, item),
        "pair_brand_share": _share(profile, snapshot.brand, row, item),
        "pair_log_events": np.log1p(events),
        "pair_last_share": last / profile.span,
        "pair_repurchase_phase": last / np.maximum(rhythm, 0.01),
        "score_buy_again": again,
    }


def _share(profile: Profile, code: np.ndarray, row: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Share of the user's interest that went to the candidate's category or brand."""
    positive = profile.long_weight > 0
    weight = np.where(positive, profile.long_weight, 0.0)
    total = np.bincount(profile.row, weight, profile.users)
    labels = int(code.max(initial=-1)) + 2
    key = profile.row * labels + code[profile.item] + 1
    unique, where = np.unique(key, return_inverse=True)
    summed = np.bincount(where, weight, len(unique))
    wanted = row * labels + code[item] + 1
    if not len(unique):
        return np.full(len(row), np.nan)
    at = np.minimum(np.searchsorted(unique, wanted), len(unique) - 1)
    share = np.where(unique[at] == wanted, summed[at], 0.0) / np.where(total > 0, total, np.nan)[row]
    return np.where(code[item] >= 0, share, np.nan)


class _ByUser:
    """Candidates laid out as one line per user, to compare each with the user's others; ``row`` is ascending."""

    def __init__(self, row: np.ndarray, users: int) -> None:
        self.row = row
        first = np.searchsorted(row, np.arange(users))
        self.place = np.arange(len(row)) - first[row]
        self.shape = (users, int(self.place.max(initial=-1)) + 1)

    def _lines(self, score: np.ndarray) -> np.ndarray:
        lines = np.full(self.shape, -np.inf)
        lines[self.row, self.place] = score
        return lines

    def share_of_best(self, score: np.ndarray) -> np.ndarray:
        """Score over the user's best one, in [0, 1]; 0 where the strategy says nothing."""
        positive = np.maximum(score.astype(np.float64), 0.0)
        best = self._lines(positive).max(axis=1, initial=0.0)
        return np.asarray(positive / np.where(best > 0, best, 1.0)[self.row])

    def rank(self, score: np.ndarray) -> np.ndarray:
        """Rank from 0 inside the user's candidates, largest score first; ties share the first one's rank."""
        lines = self._lines(np.round(score.astype(np.float64), 6))
        order = np.argsort(-lines, axis=1)
        ordered = np.take_along_axis(lines, order, 1)
        start = np.broadcast_to(np.arange(self.shape[1]), self.shape).copy()
        start[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = 0
        ranks = np.empty(self.shape)
        np.put_along_axis(ranks, order, np.maximum.accumulate(start, axis=1).astype(np.float64), 1)
        return np.asarray(ranks[self.row, self.place])
