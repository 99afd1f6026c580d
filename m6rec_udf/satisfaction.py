"""The satisfaction model: LightGBM with objective cross_entropy, calibrated on a later slice of time.

y in [0, 1] is what the satisfaction function says of the user's later behaviour, z the predicted
satisfaction; the loss is -[y log z + (1 - y) log(1 - z)] (docs/formulas.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from m6rec_udf.errors import NotBuiltError
from m6rec_udf.logistic import calibrate, logit, sigmoid
from m6rec_udf.ranking import FEATURES
from m6rec_udf.unseen import UnseenPart, is_unseen, train_unseen

TREES = 300
LINEAR_LOGS = (
    "item_log_trend_very_short",
    "item_log_trend_short",
    "item_log_trend_medium",
    "item_log_trend_long",
    "item_log_events",
    "item_log_successes",
    "item_log_success_short",
    "item_log_success_medium",
    "item_log_success_long",
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
LEAST_POSITIVES = 30
SMALL_ROWS = 60_000
PARAMETERS: dict[str, Any] = {
    "objective": "cross_entropy",
    "metric": ["auc", "cross_entropy"],  # stops on the order: a shift of the base rate is calibration's to mend
    "learning_rate": 0.05,
    "num_leaves": 15,  # 7 where there are few rows
    "min_data_in_leaf": 50,
    "lambda_l2": 5.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass
class Rows:
    """Training rows.

    Attributes:
        x: features, float32 ``[r, f]``.
        y: satisfaction, float ``[r]`` in [0, 1].
        weight: float ``[r]``.
        slot: int ``[r]``, from 1: the slot an impression was shown in; 0: not an impression, but what the user
            did in a window of behaviour.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    slot: np.ndarray

    def only(self, keep: np.ndarray) -> Rows:
        """The rows of a mask."""
        return Rows(self.x[keep], self.y[keep], self.weight[keep], self.slot[keep])


@dataclass
class Part:
    """One model: a logistic score, trees on top of it, and a calibration.

    Attributes:
        text: LightGBM's own text format; empty where there was too little to learn from, then a fixed
            score of trend and strategy ranks orders the items around the base rate.
        slope, intercept: calibration sigmoid(slope * logit(z) + intercept) (Platt 1999).
        base_rate: mean y of the training rows.
        linear: intercept and weights of the logistic score the trees start from.
        curve: cross-entropy on the later slice by number of trees.
    """

    text: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    base_rate: float = 0.05
    linear: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    _booster: Any = field(default=None, repr=False, compare=False)

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
        if not len(x):
            return np.zeros(0)
        booster = self.booster()
        if booster is None:
            return np.asarray(logit(np.full(len(x), self.base_rate)) + _prior_score(x))
        trees = booster.predict(x, raw_score=True, num_threads=threads() if len(x) > 4096 else 1)
        return np.asarray(np.asarray(trees, np.float64) + self.linear_parts(x).sum(1))

    def linear_parts(self, x: np.ndarray) -> np.ndarray:
        """Intercept and the share of each linear feature in the raw score, float64 ``[r, 1 + linear features]``."""
        return np.asarray(np.column_stack([np.ones(len(x)), linear_inputs(x)]) * np.asarray(self.linear))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Calibrated satisfaction in (0, 1), float64 ``[r]``."""
        return sigmoid(self.slope * self.raw(x) + self.intercept)


@dataclass
class SatisfactionModel:
    """Predicts calibrated satisfaction: apart for items new to the user, items the user knows, and items new to all.

    Coming back to an item is far more likely than finding a new one and follows other signs; in one model the former
    would take the trees, and lists of new items are what most people ask for.

    Attributes:
        new: for items without behaviour of the user.
        known: for items with behaviour of the user; None: ``new`` serves both.
        unseen: for items without behaviour of anybody; None: ``new`` serves them too.
    """

    new: Part = field(default_factory=Part)
    known: Part | None = None
    unseen: UnseenPart | None = None
    features: tuple[str, ...] = FEATURES

    @property
    def parts(self) -> dict[str, Part | UnseenPart]:
        """The parts by name."""
        found = {"new": self.new, "known": self.known, "unseen": self.unseen}
        return {name: part for name, part in found.items() if part is not None}

    def rows_of(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of ``x`` that each part scores, bool ``[r]`` by name."""
        known = is_known(x) if self.known is not None else np.zeros(len(x), bool)
        unseen = is_unseen(x) & ~known if self.unseen is not None else np.zeros(len(x), bool)
        masks = {"new": ~known & ~unseen, "known": known, "unseen": unseen}
        return {name: masks[name] for name in self.parts}

    @property
    def base_rate(self) -> float:
        """Mean y of new items: what is expected of an item nothing is known about."""
        return self.new.base_rate

    def to_json(self) -> str:
        """Everything as JSON text."""
        keys = {
            UnseenPart: ("floor", "slope", "intercept", "base_rate"),
            Part: ("text", "slope", "intercept", "base_rate", "linear", "curve"),
        }
        parts = {name: {key: getattr(part, key) for key in keys[type(part)]} for name, part in self.parts.items()}
        return json.dumps({**parts, "features": list(self.features)})

    @classmethod
    def from_json(cls, text: str) -> SatisfactionModel:
        """The model back from its JSON text.

        Raises NotBuiltError: written by a version of m6rec with other features or another form of the model.
        """
        stored = json.loads(text)
        features = tuple(stored.pop("features", ()))
        if features != FEATURES or "new" not in stored:
            raise NotBuiltError(
                f"the build in this file was made by another version of m6rec ({len(features)} features, expected "
                f"{len(FEATURES)})",
                "run m6rec_udf.build(con) again; the data stays as it is",
            )
        unseen = stored.pop("unseen", None)
        return cls(
            **{name: Part(**part) for name, part in stored.items()},
            unseen=None if unseen is None else UnseenPart(**unseen),
            features=features,
        )

    def part_of(self, x: np.ndarray) -> Part | UnseenPart:
        """The part that scores one row ``[1, f]``."""
        return next(self.parts[name] for name, rows in self.rows_of(x).items() if rows[0])

    def raw(self, x: np.ndarray) -> np.ndarray:
        """Logit of z before calibration, float64 ``[r]``."""
        return self._by_part(x, lambda part, rows: part.raw(rows))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Calibrated satisfaction in (0, 1), float64 ``[r]``."""
        return self._by_part(x, lambda part, rows: part.predict(rows))

    def _by_part(self, x: np.ndarray, score: Callable[[Part | UnseenPart, np.ndarray], np.ndarray]) -> np.ndarray:
        groups = self.rows_of(x)
        if groups["new"].all():
            return score(self.new, x)
        out = np.empty(len(x))
        for name, rows in groups.items():
            if rows.any():
                out[rows] = score(self.parts[name], x[rows])
        return out


def is_known(x: np.ndarray) -> np.ndarray:
    """Rows whose user has behaviour with the item, bool ``[r]``."""
    return np.asarray(x[:, FEATURES.index("pair_log_events")] > 0)


def threads() -> int:
    """Threads for LightGBM: OMP_NUM_THREADS or all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or (os.cpu_count() or 1)


def _prior_score(x: np.ndarray) -> np.ndarray:
    """Order where nothing could be learned: lately popular, near the front of the user's own lists."""
    at = {name: i for i, name in enumerate(FEATURES)}
    score = 0.3 * np.nan_to_num(x[:, at["item_log_trend_medium"]].astype(np.float64))
    for name in ("covisitation", "item_item", "matrix_factorization", "semantic"):
        known = np.nan_to_num(x[:, at[f"score_{name}"]]) > 0
        score += np.where(known, 1.0 / (5.0 + x[:, at[f"rank_{name}"]].astype(np.float64)), 0.0)
    return score - 2.0


def linear_inputs(x: np.ndarray) -> np.ndarray:
    """Inputs of the logistic score: logs as they are, ranks as 1 / (5 + rank), logs of shares; 0 where unknown."""
    logs = [x[:, FEATURES.index(name)].astype(np.float64) for name in LINEAR_LOGS]
    ranks = [5.0 / (5.0 + x[:, FEATURES.index(name)].astype(np.float64)) for name in LINEAR_RANKS]
    shares = [np.log(np.maximum(x[:, FEATURES.index(name)].astype(np.float64), 0.0) + 0.01) for name in LINEAR_SHARES]
    return np.asarray(np.nan_to_num(np.column_stack([*logs, *ranks, *shares])))


def slot_inputs(slot: np.ndarray) -> np.ndarray:
    """Whether a row is an impression, and the log of its slot, float64 ``[r, 2]``: what being shown there did."""
    return np.column_stack([slot > 0, np.log(np.maximum(slot, 1))]).astype(np.float64)


def fit_linear(rows: Rows, *, ridge: float = 10.0) -> tuple[list[float], np.ndarray]:
    """Ridge-penalised logistic regression under the cross-entropy, by Newton steps.

    Returns:
        Intercept and weights of ``linear_inputs``, and the two weights of ``slot_inputs``: an impression is worth
        more than the average candidate of a window, and less the lower its slot. The latter are known while
        training and zero when serving, so the position of an item does not look like its quality.
    """
    x = np.column_stack([linear_inputs(rows.x), slot_inputs(rows.slot)])
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    z = np.column_stack([np.ones(len(x)), (x - mean) / spread])
    penalty = np.full(z.shape[1], ridge)
    penalty[0] = 1e-6
    w = np.zeros(z.shape[1])
    w[0] = float(logit(np.array([np.average(rows.y, weights=rows.weight)]))[0])
    for _ in range(30):
        p = sigmoid(z @ w)
        gradient = z.T @ (rows.weight * (p - rows.y)) + penalty * np.where(np.arange(len(w)) == 0, 0, w)
        curvature = rows.weight * np.maximum(p * (1 - p), 1e-6)
        step = np.linalg.solve((z * curvature[:, None]).T @ z + np.diag(penalty), gradient)
        w -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    weights = w[1:] / spread
    own = weights[:-2]
    return [float(w[0] - (weights * mean).sum()), *map(float, own)], weights[-2:]


def train(rows: Rows, later: Rows, *, seed: int) -> SatisfactionModel:
    """Fit on ``rows``; stop and calibrate on ``later``, a slice of time after them that holds no impressions."""
    known, known_later = is_known(rows.x), is_known(later.x)
    unseen, unseen_later = is_unseen(rows.x) & ~known, is_unseen(later.x) & ~known_later
    new = (rows.only(~known & ~unseen), later.only(~known_later & ~unseen_later))
    apart = (rows.only(known), later.only(known_later))
    if not _is_enough(*new):
        return SatisfactionModel(_train_part(rows, later, seed=seed))
    if _is_enough(*apart):
        model = SatisfactionModel(_train_part(*new, seed=seed), _train_part(*apart, seed=seed))
    else:
        model = SatisfactionModel(_train_part(rows.only(~unseen), later.only(~unseen_later), seed=seed))
    model.unseen = train_unseen([rows.only(unseen), later.only(unseen_later)], model.new.base_rate)
    return model


def _is_enough(rows: Rows, later: Rows) -> bool:
    return bool((rows.y > 0).sum() >= LEAST_POSITIVES and (later.y > 0).sum() >= LEAST_POSITIVES // 3)


def _train_part(rows: Rows, later: Rows, *, seed: int) -> Part:
    if not _is_enough(rows, later):
        seen = np.concatenate([rows.y, later.y])
        rate = float(seen.mean()) if len(seen) else 0.05
        return Part(base_rate=min(max(rate, 0.001), 0.999))
    import lightgbm

    parameters = {**PARAMETERS, "seed": seed, "num_threads": threads()}
    if len(rows.y) < SMALL_ROWS:
        parameters["num_leaves"] = 7
    parameters["min_data_in_leaf"] = int(np.clip(len(rows.y) // 400, 5, 50))
    linear, slots = fit_linear(rows)
    behaviour = rows.slot == 0
    base_rate = float(np.average(rows.y[behaviour], weights=rows.weight[behaviour]))
    model = Part(base_rate=base_rate, linear=linear)
    data = lightgbm.Dataset(
        rows.x,
        rows.y,
        weight=rows.weight,
        init_score=model.linear_parts(rows.x).sum(1) + slot_inputs(rows.slot) @ slots,
        feature_name=list(FEATURES),
        free_raw_data=True,
    )
    check = lightgbm.Dataset(
        later.x, later.y, weight=later.weight, init_score=model.linear_parts(later.x).sum(1), reference=data
    )
    history: dict[str, Any] = {}
    booster = lightgbm.train(
        parameters,
        data,
        num_boost_round=TREES,
        valid_sets=[check],
        valid_names=["later"],
        callbacks=[
            lightgbm.early_stopping(40, first_metric_only=True, verbose=False),
            lightgbm.record_evaluation(history),
        ],
    )
    model.curve = [float(v) for v in history["later"]["cross_entropy"]]
    model.text = booster.model_to_string(num_iteration=booster.best_iteration)
    model.slope, model.intercept = calibrate(model.raw(later.x), later.y, later.weight)
    return model
