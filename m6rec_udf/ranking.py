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


def features(snapshot: Snapshot, profile: Profile, found: Candidates) -> np.ndarray:
    """Feature matrix of the candidates, float32 ``[c, len(FEATURES)]``; NaN where nothing is known."""
    row, item = found.row, found.item
    columns = {
        **_item_features(snapshot, item, profile.span),
        **_user_features(profile, row),
        **_pair_features(snapshot, profile, row, item),
    }
    columns["pair_popularity_gap"] = columns["item_log_events"] - columns["user_mean_log_popularity"]
    columns["pair_price_gap"] = columns["item_log_price"] - profile.mean_log_price[row]
    for name in SCORED:
        raw = found.scores[name]
        columns[f"score_{name}"] = raw
        columns[f"share_{name}"] = _share_of_best(row, raw, profile.users)
        columns[f"rank_{name}"] = _rank(row, np.where(raw > 0, raw, 0), profile.users)
    trend = columns["item_log_trend_short"] + columns["item_log_trend_medium"]
    columns["rank_trending"] = _rank(row, trend, profile.users)
    columns["rank_success"] = _rank(row, columns["item_log_success_long"], profile.users)
    columns["supporters"] = np.bitwise_count(found.supporters)
    out = np.empty((len(row), len(FEATURES)), np.float32)
    for at, name in enumerate(FEATURES):
        out[:, at] = columns[name]
    return out


def _item_features(snapshot: Snapshot, item: np.ndarray, span: float) -> dict[str, np.ndarray]:
    def column(name: str) -> np.ndarray:
        return np.asarray(snapshot.column(name)[item], np.float64)

    events, price = column("events"), column("price")
    return {
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


def _share_of_best(row: np.ndarray, score: np.ndarray, users: int) -> np.ndarray:
    """Score over the user's best one, in [0, 1]; 0 where the strategy says nothing."""
    positive = np.maximum(score.astype(np.float64), 0.0)
    best = np.zeros(users)
    np.maximum.at(best, row, positive)
    return np.asarray(positive / np.where(best > 0, best, 1.0)[row])


def _rank(row: np.ndarray, score: np.ndarray, users: int) -> np.ndarray:
    """Rank from 0 inside the user's candidates, largest score first; ties share the first one's rank."""
    rounded = np.round(score.astype(np.float64), 6)
    order = np.lexsort((-rounded, row))
    first = np.searchsorted(row[order], np.arange(users))
    position = np.arange(len(row)) - first[row[order]]
    is_new = np.ones(len(row), bool)
    is_new[1:] = (rounded[order][1:] != rounded[order][:-1]) | (row[order][1:] != row[order][:-1])
    start = np.maximum.accumulate(np.where(is_new, np.arange(len(row)), 0))
    out = np.empty(len(row), np.float64)
    out[order] = position[start]
    return out
