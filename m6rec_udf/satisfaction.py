"""The satisfaction model: LightGBM with objective cross_entropy, calibrated on a later slice of time.

y in [0, 1] is what the satisfaction function says of the user's later behaviour, z the predicted
satisfaction; the loss is -[y log z + (1 - y) log(1 - z)] (docs/formulas.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from m6rec_udf.errors import NotBuiltError
from m6rec_udf.forest import Forest
from m6rec_udf.logistic import logit, sigmoid
from m6rec_udf.ranking import FEATURES, PLACE
from m6rec_udf.unseen import UnseenPart

LINEAR_TRENDS = (
    "item_log_trend_very_short",
    "item_log_trend_short",
    "item_log_trend_medium",
    "item_log_trend_long",
    "item_log_events",
    "item_log_successes",
    "item_log_success_short",
    "item_log_success_medium",
    "item_log_success_long",
)
LINEAR_LOGS = (
    *LINEAR_TRENDS,
    "pair_log_events",
    "pair_category_share",
    "score_buy_again",
    "supporters",
)
LINEAR_RANKS = (
    "rank_covisitation",
    "rank_item_item",
    "rank_matrix_factorization",
    "rank_semantic",
    "rank_trending",
    "rank_success",
)
LINEAR_SHARES = ("share_covisitation", "share_item_item", "share_matrix_factorization", "share_semantic")
ROWS_AT_ONCE = 8192  # of the logistic score: what it works on stays in the processor's cache
MANY_ROWS = 4096  # fewer are predicted on one thread
LINEAR_FEATURES = LINEAR_LOGS + LINEAR_RANKS + LINEAR_SHARES
LEAST_SESSION = 1e-3  # user_session five hours after the last behaviour: the visit is over
SIGNS = {  # of the rows that a part answers for, the first that fits: a feature above 0, or not
    "known": ("pair_log_events", True),
    "unseen": ("item_log_events", False),
    "stranger": ("user_log_events", False),
    "new_domain": ("pair_new_domain", True),
}
PARTS = ("new", "known", "unseen", "stranger", "new_domain", "session")


@dataclass
class Part:
    """One model: a logistic score, trees on top of it, and a calibration.

    Attributes:
        text: LightGBM's own text format; empty where the logistic score answers alone, and where there was too little
            to learn even that, then a fixed score of trend and strategy ranks orders the items around the base rate.
        slope, intercept: calibration sigmoid(slope * logit(z) + intercept) (Platt 1999).
        base_rate: mean y of the training rows.
        linear: intercept and weights of the logistic score the trees start from, by LINEAR_FEATURES.
        curve: cross-entropy on the later slice by number of trees.
        lean: share of the trends alone in the raw score, already in ``linear``.
    """

    text: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    base_rate: float = 0.05
    linear: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    lean: float = 0.0
    _booster: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def forest(self) -> Forest | None:
        """The trees as serving asks them; None where only LightGBM can."""
        return Forest.of(self.text)

    @property
    def trees(self) -> int:
        """Number of trees."""
        return self.text.count("Tree=")

    def booster(self) -> Any:
        """The LightGBM booster, parsed at first use; None where there is none."""
        if self._booster is None and self.text:
            import lightgbm

            self._booster = lightgbm.Booster(model_str=self.text)
        return self._booster

    def raw(self, x: np.ndarray) -> np.ndarray:
        """Logit of z before calibration, float64 ``[r]``."""
        columns = Columns(x)
        return np.asarray(self.start(columns, linear_rows(columns)) + self.trees_of(x))

    def start(self, columns: Columns, linear: np.ndarray) -> np.ndarray:
        """The raw score without the trees, float64 ``[r]``; ``linear`` are the linear_rows of the columns."""
        if not self.linear:
            return np.asarray(logit(np.full(len(columns), self.base_rate)) + _prior_score(columns))
        weight = np.asarray(self.linear)
        return np.asarray(weight[0] + (weight[1:, None] * linear).sum(axis=0))

    def trees_of(self, x: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
        """What the trees add to the raw score of the rows ``at`` of x (None: of all), float64."""
        if self.forest is not None:
            return self.forest.predict(x, at)
        rows = x if at is None else x[at]
        if not len(rows):
            return np.zeros(0)
        on = threads() if len(rows) > MANY_ROWS else 1
        booster = self.booster()
        known = rows[:, : booster.num_feature()]  # features were added since
        return np.asarray(booster.predict(known, raw_score=True, num_threads=on), np.float64)

    def linear_parts(self, x: np.ndarray) -> np.ndarray:
        """Intercept and the share of each linear feature in the raw score, float64 ``[r, 1 + linear features]``."""
        return np.asarray(np.column_stack([np.ones(len(x)), linear_inputs(x)]) * np.asarray(self.linear))


@dataclass
class SatisfactionModel:
    """Predicts calibrated satisfaction, in parts that ask different questions of the same features.

    Coming back to an item is far more likely than finding a new one and follows other signs; who has no history is
    served by what is going on; in the middle of a visit the last few items say what comes next. In one model the most
    frequent of these cases would take the trees of the others.

    Attributes:
        new: items new to the user, over the window that follows.
        known: items with behaviour of the user; None: scored like new ones.
        unseen: items without behaviour of anybody; None: scored like new ones.
        stranger: users without behaviour; None: scored like the others.
        new_domain: items of a domain without behaviour of the user, who has some elsewhere; None: scored like new ones.
        session: items new to the user, what comes next in a visit; None: ``new`` alone.
        session_share: of the session part between visits.
    """

    new: Part = field(default_factory=Part)
    known: Part | None = None
    unseen: UnseenPart | None = None
    stranger: Part | None = None
    new_domain: Part | None = None
    session: Part | None = None
    session_share: float = 0.0
    features: tuple[str, ...] = FEATURES

    @property
    def parts(self) -> dict[str, Part | UnseenPart]:
        """The parts by name."""
        found = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def base_rate(self) -> float:
        """Mean y of new items: what is expected of an item nothing is known about."""
        return self.new.base_rate

    def to_json(self) -> str:
        """Everything as JSON text."""
        keys = {
            UnseenPart: ("floor", "slope", "intercept", "base_rate"),
            Part: ("text", "slope", "intercept", "base_rate", "linear", "curve", "lean"),
        }
        parts = {name: {key: getattr(part, key) for key in keys[type(part)]} for name, part in self.parts.items()}
        return json.dumps({**parts, "session_share": self.session_share, "features": list(self.features)})

    @classmethod
    def from_json(cls, text: str) -> SatisfactionModel:
        """The model back from its JSON text; made before the last features were added, it answers without them.

        Raises NotBuiltError: written by a version of m6rec with other features or another form of the model.
        """
        stored = json.loads(text)
        features = tuple(stored.pop("features", ()))
        if not features or features != FEATURES[: len(features)] or "new" not in stored:
            raise NotBuiltError(
                f"the build in this file was made by another version of m6rec ({len(features)} features, expected "
                f"{len(FEATURES)})",
                "run m6rec_udf.build(con) again; the data stays as it is",
            )
        unseen, share = stored.pop("unseen", None), float(stored.pop("session_share", 0.0))
        return cls(
            **{name: Part(**part) for name, part in stored.items()},
            session_share=share,
            unseen=None if unseen is None else UnseenPart(**unseen),
            features=features,
        )

    def mixture(self, x: np.ndarray | Columns) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Coefficient of each part's raw score and the offset: log-odds = offset + sum of coefficient * raw score.

        Between visits the parts ``new`` and ``session`` are mixed as (1 - c) and c = ``session_share`` and calibrated
        together (the calibration stands in ``new``); inside one, the share of that mixture falls to 0 as
        ``user_session`` rises to 1, and ``session`` answers alone with its own calibration.
        """
        columns, parts = _columns(x), self.parts
        own = _own_parts(columns, parts)
        coefficient = {name: np.where(own[name], part.slope, 0.0) for name, part in parts.items() if name in own}
        offset = np.zeros(len(columns))
        for name, mask in own.items():
            offset[mask] = parts[name].intercept
        if self.session is not None:
            guest = own["new"] & (columns["user_log_events"] > 0)
            inside = columns["user_session"][guest].astype(np.float64)
            inside[inside < LEAST_SESSION] = 0.0
            between = (1.0 - inside) * self.new.slope
            coefficient["session"] = np.zeros(len(columns))
            coefficient["new"][guest] = between * (1.0 - self.session_share)
            coefficient["session"][guest] = between * self.session_share + inside * self.session.slope
            offset[guest] = (1.0 - inside) * self.new.intercept + inside * self.session.intercept
        return coefficient, offset

    def start(self, x: np.ndarray | Columns) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Log-odds without the trees, float64 ``[r]``, and the coefficient of each part's."""
        rows = _columns(x).x
        parts = [self._start(Columns(rows[at : at + ROWS_AT_ONCE])) for at in range(0, max(len(rows), 1), ROWS_AT_ONCE)]
        if len(parts) == 1:
            return parts[0]
        names = dict.fromkeys(name for _, coefficient in parts for name in coefficient)
        coefficients = {name: np.concatenate([coefficient[name] for _, coefficient in parts]) for name in names}
        return np.concatenate([own for own, _ in parts]), coefficients

    def _start(self, columns: Columns) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        coefficient, out = self.mixture(columns)
        linear = linear_rows(columns)
        for name, weight in coefficient.items():
            if weight.any():
                part = self.parts[name]
                out += weight * (part.start(columns, linear) if isinstance(part, Part) else part.start(columns))
        return out, coefficient

    def with_trees(
        self, start: np.ndarray, coefficient: dict[str, np.ndarray], columns: Columns, at: np.ndarray | None = None
    ) -> np.ndarray:
        """Logit of the calibrated satisfaction, float64, of the rows ``at`` (None: of all) from what ``start`` gave."""
        rows = np.arange(len(columns)) if at is None else at
        out = start[rows]
        for name, weight in coefficient.items():
            part, mine = self.parts[name], weight[rows]
            if isinstance(part, Part) and part.text:
                own = np.flatnonzero(mine)
                out[own] += mine[own] * part.trees_of(columns.x, rows[own])
        return out

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """Logit of the calibrated satisfaction, float64 ``[r]``."""
        columns = _columns(x)
        return self.with_trees(*self.start(columns), columns)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Calibrated satisfaction in (0, 1), float64 ``[r]``."""
        return sigmoid(self.log_odds(x))


class Columns:
    """A feature matrix ``[r, len(FEATURES)]`` read by the names of its columns."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.x[:, PLACE[name]])

    def columns(self, names: tuple[str, ...]) -> np.ndarray:
        """Columns of all rows, float32 ``[len(names), r]``."""
        return np.asarray(self.x[:, [PLACE[name] for name in names]].T)


def _columns(x: np.ndarray | Columns) -> Columns:
    return Columns(x) if isinstance(x, np.ndarray) else x


def _own_parts(columns: Columns, among: Container[str]) -> dict[str, np.ndarray]:
    """Which rows a part answers for, bool ``[r]`` by its name; inside a visit ``session`` joins ``new``."""
    left = np.ones(len(columns), bool)
    own = {}
    for name, (feature, has_some) in SIGNS.items():
        if name in among:
            mine = columns[feature] > 0 if has_some else columns[feature] <= 0
            own[name] = mine & left
            left &= ~mine
    return {**own, "new": left}


def part_names(x: np.ndarray, among: Container[str]) -> np.ndarray:
    """The part that answers for each row ``[r]``, of those there are; inside a visit ``session`` joins ``new``."""
    names = np.full(len(x), "new", dtype=f"<U{max(map(len, PARTS))}")
    for name, own in _own_parts(Columns(x), among).items():
        names[own] = name
    return names


def has_history(x: np.ndarray) -> np.ndarray:
    """Rows whose user has behaviour, bool ``[r]``."""
    return np.asarray(x[:, PLACE["user_log_events"]] > 0)


def is_known(x: np.ndarray) -> np.ndarray:
    """Rows whose user has behaviour with the item, bool ``[r]``."""
    return np.asarray(x[:, PLACE["pair_log_events"]] > 0)


def is_new_domain(x: np.ndarray) -> np.ndarray:
    """Rows of a domain without behaviour of the user, who has some elsewhere, bool ``[r]``."""
    return np.asarray(x[:, PLACE["pair_new_domain"]] > 0)


def threads() -> int:
    """Threads for LightGBM: OMP_NUM_THREADS, or the cores that nothing else uses. Its answers do not depend on it.

    Its threads wait for each other in a busy loop: on a core that somebody else has taken, two are slower than one.
    """
    fixed = int(os.environ.get("OMP_NUM_THREADS", "0"))
    if fixed:
        return fixed
    cores = os.cpu_count() or 1
    others = max(0.0, os.getloadavg()[0] - 1.0) if hasattr(os, "getloadavg") else 0.0
    return int(min(max(1, round(cores - others)), cores))


def _prior_score(columns: Columns) -> np.ndarray:
    """Order where nothing could be learned: lately popular, near the front of the user's own lists."""
    score = 0.3 * np.nan_to_num(columns["item_log_trend_medium"].astype(np.float64))
    for name in ("covisitation", "item_item", "matrix_factorization", "semantic"):
        known = np.nan_to_num(columns[f"score_{name}"]) > 0
        score += np.where(known, 1.0 / (5.0 + columns[f"rank_{name}"].astype(np.float64)), 0.0)
    return np.asarray(score - 2.0)


def linear_rows(columns: Columns) -> np.ndarray:
    """Inputs of the logistic score: logs as they are, ranks as 1 / (5 + rank), logs of shares; 0 where unknown.

    Returns float64 ``[linear features, r]``.
    """
    out = columns.columns(LINEAR_FEATURES).astype(np.float64)
    ranks, shares = out[len(LINEAR_LOGS) : -len(LINEAR_SHARES)], out[-len(LINEAR_SHARES) :]
    ranks[:] = 5.0 / (5.0 + ranks)
    shares[:] = np.log(np.maximum(shares, 0.0) + 0.01)
    out[~np.isfinite(out)] = 0.0
    return out


def linear_inputs(x: np.ndarray) -> np.ndarray:
    """The same of a feature matrix, float64 ``[r, linear features]``."""
    return linear_rows(Columns(x)).T
