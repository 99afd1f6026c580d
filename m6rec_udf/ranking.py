"""Features of (user, item) candidates: the columns the satisfaction model sees."""

from __future__ import annotations

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import Candidates
from m6rec_udf.history import Profile
from m6rec_udf.kernels.describing import FEATURES, PLACE, described

SESSION_DAYS = 30 / 1440  # half-life of "in the middle of a visit": the usual 30 minutes
ITEM_FEATURES = tuple(name for name in FEATURES if name.startswith("item_"))  # the first ones
USER_FEATURES = tuple(name for name in FEATURES if name.startswith("user_"))

__all__ = ["FEATURES", "ITEM_FEATURES", "PLACE", "USER_FEATURES", "features", "item_features"]


def features(snapshot: Snapshot, profile: Profile, found: Candidates) -> np.ndarray:
    """Feature matrix of the candidates, float32 ``[c, len(FEATURES)]``; NaN where nothing is known."""
    x = np.empty((len(found.row), len(FEATURES)), np.float32)
    described(
        (profile.first, profile.item),
        (profile.events.astype(np.float64), profile.last_days, profile.long_weight, profile.buy_again),
        (_user_features(profile), profile.mean_log_price),
        (found.row, found.item, found.supporters, found.scores),
        (snapshot.item_features, snapshot.category, snapshot.brand, snapshot.domain, snapshot.repurchase_days),
        snapshot.labels,
        len(snapshot.settings["domains"]),
        profile.span,
        x,
    )
    return x


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


def _user_features(profile: Profile) -> np.ndarray:
    """Features named user_*, float64 ``[users, len(USER_FEATURES)]``."""
    events = profile.user_events
    columns = {
        "user_log_events": np.log1p(events),
        "user_repeat_share": 1 - profile.items / np.where(events > 0, events, np.nan),
        "user_satisfaction": profile.user_satisfaction,
        "user_idle_share": profile.idle_days / profile.span,
        "user_tenure_share": profile.tenure_days / profile.span,
        "user_session": 0.5 ** (profile.idle_days / SESSION_DAYS),
        "user_log_events_short": np.log1p(profile.events_short),
        "user_log_events_long": np.log1p(profile.events_long),
        "user_mean_log_popularity": profile.mean_log_popularity,
    }
    return np.stack([columns[name] for name in USER_FEATURES], axis=1)
