"""Features of (user, item) candidates: the columns the satisfaction model sees."""

from __future__ import annotations

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import Candidates, buy_again_score
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


PLACE = {name: at for at, name in enumerate(FEATURES)}


class Features:
    """Features of the candidates of a block of users, each computed when it is asked for; NaN where nothing is known.

    ``features["rank_semantic"]`` is one column of all candidates, float32 ``[c]``; ``features.matrix(at)`` is all
    columns of some.
    """

    def __init__(self, snapshot: Snapshot, profile: Profile, found: Candidates) -> None:
        self.snapshot, self.profile, self.found = snapshot, profile, found
        self._columns: dict[str, np.ndarray] = {}
        self._by_user = _ByUser(found.row, profile.users)
        self._of_user = _user_features(profile)
        self._known = profile.find(found.row, found.item)

    def __len__(self) -> int:
        return len(self.found.row)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            self._columns[name] = np.asarray(self._column(name, None), np.float32)
        return self._columns[name]

    def matrix(self, at: np.ndarray | None = None) -> np.ndarray:
        """All columns of the candidates ``at`` these positions (default: of all), float32 ``[r, len(FEATURES)]``."""
        item = self.found.item if at is None else self.found.item[at]
        out = np.empty((len(item), len(FEATURES)), np.float32)
        out[:, : len(ITEM_FEATURES)] = self.snapshot.item_features[item]
        for name in FEATURES[len(ITEM_FEATURES) :]:
            if name in self._columns or name.startswith(("share_", "rank_")):  # they compare with the user's others
                out[:, PLACE[name]] = self[name] if at is None else self[name][at]
            else:
                out[:, PLACE[name]] = self._column(name, at)
        return out

    def _column(self, name: str, at: np.ndarray | None) -> np.ndarray:
        """One column of the candidates at some positions; None: of all."""
        found, profile, snapshot = self.found, self.profile, self.snapshot
        row, item = (found.row, found.item) if at is None else (found.row[at], found.item[at])
        kind, _, rest = name.partition("_")
        column: np.ndarray
        if kind == "item":
            column = snapshot.item_features[item, PLACE[name]]
        elif kind == "user":
            column = self._of_user[name][row]
        elif name == "pair_popularity_gap":
            column = self._column("item_log_events", at) - self._of_user["user_mean_log_popularity"][row]
        elif name == "pair_price_gap":
            column = self._column("item_log_price", at) - profile.mean_log_price[row]
        elif kind == "pair" or name == "score_buy_again":
            pair = self._known if at is None else (self._known[0][at], self._known[1][at])
            column = _pair_feature(snapshot, profile, name, row, item, pair)
        elif kind == "score":
            column = found.scores[rest] if at is None else found.scores[rest][at]
        elif name == "supporters":
            column = np.bitwise_count(found.supporters if at is None else found.supporters[at])
        else:
            assert at is None, "shares and ranks compare a candidate with all others of its user"
            column = self._compared(kind, rest)
        return column

    def _compared(self, kind: str, name: str) -> np.ndarray:
        """A share_* or rank_* column of all candidates."""
        if kind == "share":
            return self._by_user.share_of_best(self.found.scores[name])
        if name == "trending":
            return self._by_user.rank(self["item_log_trend_short"] + self["item_log_trend_medium"])
        if name == "success":
            return self._by_user.rank(self["item_log_success_long"])
        return self._by_user.rank(np.maximum(self.found.scores[name], 0))


def features(snapshot: Snapshot, profile: Profile, found: Candidates) -> np.ndarray:
    """Feature matrix of the candidates, float32 ``[c, len(FEATURES)]``; NaN where nothing is known."""
    return Features(snapshot, profile, found).matrix()


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


def _user_features(profile: Profile) -> dict[str, np.ndarray]:
    """Features named user_*, one entry per user."""
    events = profile.user_events
    return {
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


def _pair_feature(
    snapshot: Snapshot,
    profile: Profile,
    name: str,
    row: np.ndarray,
    item: np.ndarray,
    pair: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """A feature of (user, item) pairs; ``pair``: where each stands in the profile, and whether it is there."""
    if name in ("pair_category_share", "pair_brand_share"):
        return _share(profile, snapshot.category if name == "pair_category_share" else snapshot.brand, row, item)
    out = np.zeros(len(row)) if name in ("pair_log_events", "score_buy_again") else np.full(len(row), np.nan)
    own = np.flatnonzero(pair[1])
    at = pair[0][own]
    if name == "pair_log_events":
        out[own] = np.log1p(profile.events[at])
    elif name == "score_buy_again":
        out[own] = buy_again_score(snapshot, profile)[at]
    elif name == "pair_last_share":
        out[own] = profile.last_days[at] / profile.span
    else:
        rhythm = snapshot.column("repurchase_days")[item[own]].astype(np.float64)
        out[own] = profile.last_days[at] / np.maximum(rhythm, 0.01)
    return out


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
