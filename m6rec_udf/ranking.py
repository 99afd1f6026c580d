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


def _named(kind: str) -> tuple[str, ...]:
    return tuple(name for name in FEATURES if name.startswith(kind))


USER_FEATURES, SHARES, RANKS = _named("user_"), _named("share_"), _named("rank_")


class Features:
    """Features of the candidates of a block of users, computed when they are asked for; NaN where nothing is known.

    ``features.columns(names)`` are some columns of all candidates, ``features.matrix(at)`` all columns of some.
    """

    def __init__(self, snapshot: Snapshot, profile: Profile, found: Candidates) -> None:
        self.snapshot, self.profile, self.found = snapshot, profile, found
        self._by_user = _ByUser(found.row, profile.users)
        self._of_user = _user_features(profile)
        self._pair = profile.find(found.row, found.item)
        self._once: dict[str, np.ndarray] = {}  # what matrix does not compute for some candidates alone

    def __len__(self) -> int:
        return len(self.found.row)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.columns((name,))[0])

    def columns(self, names: tuple[str, ...]) -> np.ndarray:
        """Columns of all candidates, float32 ``[len(names), c]``."""
        out = np.empty((len(names), len(self)), np.float32)
        for at, name in enumerate(names):
            if name not in self._once:
                self._compute(name)
            out[at] = self._once[name]
        return out

    def matrix(self, at: np.ndarray | None = None) -> np.ndarray:
        """All columns of the candidates ``at`` these positions (default: of all), float32 ``[r, len(FEATURES)]``."""
        found, part = self.found, slice(None) if at is None else at
        row, item = found.row[part], found.item[part]
        out = np.empty((len(row), len(FEATURES)), np.float32)
        out[:, : len(ITEM_FEATURES)] = self.snapshot.item_features[item]
        out[:, _span(USER_FEATURES)] = self._of_user[row]
        out[:, PLACE["pair_popularity_gap"]] = (
            out[:, PLACE["item_log_events"]] - self._of_user[row, _of_user("user_mean_log_popularity")]
        )
        out[:, PLACE["pair_price_gap"]] = out[:, PLACE["item_log_price"]] - self.profile.mean_log_price[row]
        for name in ("pair_category_share", "pair_log_events", "score_buy_again"):
            out[:, PLACE[name]] = self[name][part]
        out[:, PLACE["pair_brand_share"]] = _share(self.profile, self.snapshot.brand, row, item)
        self._last(out[:, PLACE["pair_last_share"]], out[:, PLACE["pair_repurchase_phase"]], item, part)
        for name, score in found.scores.items():
            out[:, PLACE[f"score_{name}"]] = score[part]
        out[:, _span((*SHARES, *RANKS))] = self.columns((*SHARES, *RANKS)).T[part]
        out[:, PLACE["supporters"]] = np.bitwise_count(found.supporters[part])
        return out

    def _compute(self, name: str) -> None:
        found, profile, snapshot = self.found, self.profile, self.snapshot
        kind, _, rest = name.partition("_")
        if kind == "item":
            self._once.update(zip(ITEM_FEATURES, snapshot.item_features[found.item].T, strict=True))
        elif kind == "user":
            self._once[name] = self._of_user[found.row, _of_user(name)]
        elif kind == "share":
            scores = np.stack([found.scores[each.removeprefix("share_")] for each in SHARES])
            self._once.update(zip(SHARES, self._by_user.share_of_best(scores), strict=True))
        elif kind == "rank":
            raw = [found.scores[each.removeprefix("rank_")] for each in RANKS[:-2]]
            trend = self["item_log_trend_short"] + self["item_log_trend_medium"]
            lines = np.stack([*np.maximum(raw, 0), trend, self["item_log_success_long"]])
            self._once.update(zip(RANKS, self._by_user.rank(lines), strict=True))
        elif name == "pair_category_share":
            self._once[name] = _share(profile, snapshot.category, found.row, found.item)
        elif name in ("pair_log_events", "score_buy_again"):
            own = np.flatnonzero(self._pair[1])
            at = self._pair[0][own]
            events, again = np.zeros((2, len(self)))
            if len(own):
                events[own] = np.log1p(profile.events[at])
                again[own] = buy_again_score(snapshot, profile)[at]
            self._once["pair_log_events"], self._once["score_buy_again"] = events, again
        elif name == "supporters":
            self._once[name] = np.bitwise_count(found.supporters)
        else:
            self._once[name] = found.scores[rest]

    def _last(self, share: np.ndarray, phase: np.ndarray, item: np.ndarray, part: slice | np.ndarray) -> None:
        """Fill in when the user had each item last, as a share of the span and of the item's usual rhythm."""
        at, is_there = self._pair[0][part], self._pair[1][part]
        share[:], phase[:] = np.nan, np.nan
        own = np.flatnonzero(is_there)
        if len(own):
            last = self.profile.last_days[at[own]]
            rhythm = self.snapshot.column("repurchase_days")[item[own]].astype(np.float64)
            share[own], phase[own] = last / self.profile.span, last / np.maximum(rhythm, 0.01)


def _span(names: tuple[str, ...]) -> slice:
    """Where features that stand together stand."""
    return slice(PLACE[names[0]], PLACE[names[-1]] + 1)


def _of_user(name: str) -> int:
    return PLACE[name] - PLACE[USER_FEATURES[0]]


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

    def _lines(self, scores: np.ndarray) -> np.ndarray:
        lines = np.full((len(scores), *self.shape), -np.inf)
        lines[:, self.row, self.place] = scores
        return lines

    def share_of_best(self, scores: np.ndarray) -> np.ndarray:
        """Scores ``[s, c]`` over the user's best one of each, in [0, 1]; 0 where the strategy says nothing."""
        positive = np.maximum(scores.astype(np.float64), 0.0)
        best = self._lines(positive).max(axis=2, initial=0.0)
        return np.asarray(positive / np.where(best > 0, best, 1.0)[:, self.row])

    def rank(self, scores: np.ndarray) -> np.ndarray:
        """Ranks ``[s, c]`` from 0 inside the user's candidates, largest first; ties share the first one's rank."""
        lines = self._lines(np.round(scores.astype(np.float64), 6))
        order = np.argsort(-lines, axis=2)
        ordered = np.take_along_axis(lines, order, 2)
        start = np.broadcast_to(np.arange(self.shape[1]), lines.shape).copy()
        start[:, :, 1:][ordered[:, :, 1:] == ordered[:, :, :-1]] = 0
        ranks = np.empty(lines.shape)
        np.put_along_axis(ranks, order, np.maximum.accumulate(start, axis=2).astype(np.float64), 2)
        return np.asarray(ranks[:, self.row, self.place])
