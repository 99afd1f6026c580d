"""The satisfaction model: LightGBM with objective cross_entropy, calibrated on a later slice of time.

y in [0, 1] is what the satisfaction function says of the user's later behaviour, z the predicted
satisfaction; the loss is -[y log z + (1 - y) log(1 - z)] (docs/formulas.md).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from m6rec_udf.ranking import FEATURES

TREES = 300
LEAST_POSITIVES = 30
PARAMETERS: dict[str, Any] = {
    "objective": "cross_entropy",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "lambda_l2": 5.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass
class Rows:
    """Training rows: features float32 ``[r, f]``, y float ``[r]`` in [0, 1], weight ``[r]``."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray


@dataclass
class SatisfactionModel:
    """Predicts calibrated satisfaction.

    Attributes:
        text: LightGBM's own text format; empty where there was too little to learn from, then a fixed
            score of trend and strategy ranks orders the items around the base rate.
        slope, intercept: calibration sigmoid(slope * logit(z) + intercept) (Platt 1999).
        base_rate: mean y of the training rows.
    """

    text: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    base_rate: float = 0.05
    features: tuple[str, ...] = FEATURES
    curve: list[float] = field(default_factory=list)
    _booster: Any = field(default=None, repr=False, compare=False)

    def to_json(self) -> str:
        """Everything as JSON text."""
        keys = ("text", "slope", "intercept", "base_rate", "curve")
        return json.dumps({**{key: getattr(self, key) for key in keys}, "features": list(self.features)})

    @classmethod
    def from_json(cls, text: str) -> SatisfactionModel:
        """The model back from its JSON text."""
        parts = json.loads(text)
        parts["features"] = tuple(parts["features"])
        return cls(**parts)

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
            return logit(np.full(len(x), self.base_rate)) + _prior_score(x)
        return np.asarray(booster.predict(x, raw_score=True, num_threads=threads() if len(x) > 4096 else 1), np.float64)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Calibrated satisfaction in (0, 1), float64 ``[r]``."""
        return sigmoid(self.slope * self.raw(x) + self.intercept)


def threads() -> int:
    """Threads for LightGBM: OMP_NUM_THREADS or all cores."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or (os.cpu_count() or 1)


def logit(p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), clipped away from 0 and 1."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -40, 40))))


def _prior_score(x: np.ndarray) -> np.ndarray:
    """Order where nothing could be learned: lately popular, near the front of the user's own lists."""
    at = {name: i for i, name in enumerate(FEATURES)}
    score = 0.3 * np.nan_to_num(x[:, at["item_log_trend_medium"]].astype(np.float64))
    for name in ("covisitation", "item_item", "matrix_factorization", "semantic"):
        known = np.nan_to_num(x[:, at[f"score_{name}"]]) > 0
        score += np.where(known, 1.0 / (5.0 + x[:, at[f"rank_{name}"]].astype(np.float64)), 0.0)
    return score - 2.0


def train(rows: Rows, later: Rows, *, seed: int) -> SatisfactionModel:
    """Fit on ``rows``; stop and calibrate on ``later``, a slice of time after them."""
    positives = int((rows.y > 0).sum())
    if positives < LEAST_POSITIVES or (later.y > 0).sum() < LEAST_POSITIVES // 3:
        seen = np.concatenate([rows.y, later.y])
        rate = float(seen.mean()) if len(seen) else 0.05
        return SatisfactionModel(base_rate=min(max(rate, 0.001), 0.999))
    import lightgbm

    parameters = {**PARAMETERS, "seed": seed, "num_threads": threads()}
    parameters["min_data_in_leaf"] = int(np.clip(len(rows.y) // 400, 5, 50))
    data = lightgbm.Dataset(rows.x, rows.y, weight=rows.weight, feature_name=list(FEATURES), free_raw_data=True)
    check = lightgbm.Dataset(later.x, later.y, weight=later.weight, reference=data)
    history: dict[str, Any] = {}
    booster = lightgbm.train(
        parameters,
        data,
        num_boost_round=TREES,
        valid_sets=[check],
        valid_names=["later"],
        callbacks=[lightgbm.early_stopping(30, verbose=False), lightgbm.record_evaluation(history)],
    )
    curve = [float(v) for v in history["later"]["cross_entropy"]]
    model = SatisfactionModel(
        text=booster.model_to_string(num_iteration=booster.best_iteration),
        base_rate=float(np.average(rows.y, weights=rows.weight)),
        curve=curve,
    )
    model.slope, model.intercept = calibrate(model.raw(later.x), later.y, later.weight)
    return model


def calibrate(raw: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and intercept that minimise the cross-entropy of sigmoid(slope * raw + intercept), by Newton steps."""
    slope, intercept = 1.0, 0.0
    ridge = 1e-3
    for _ in range(50):
        p = sigmoid(slope * raw + intercept)
        error = weight * (p - y)
        curvature = weight * np.maximum(p * (1 - p), 1e-9)
        gradient = np.array([(error * raw).sum() + ridge * (slope - 1), error.sum() + ridge * intercept])
        cross = (curvature * raw).sum()
        hessian = np.array([[(curvature * raw * raw).sum() + ridge, cross], [cross, curvature.sum() + ridge]])
        step = np.linalg.solve(hessian, gradient)
        slope, intercept = slope - step[0], intercept - step[1]
        if np.abs(step).max() < 1e-10:
            break
    if not np.isfinite([slope, intercept]).all() or slope <= 0.05:
        offset = float(logit(np.array([np.average(y, weights=weight)]))[0] - np.average(raw, weights=weight))
        return 1.0, offset
    return float(slope), float(intercept)
