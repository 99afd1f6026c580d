"""Satisfaction with items nobody has touched yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.logistic import calibrate, logit
from m6rec_udf.ranking import FEATURES, PLACE

if TYPE_CHECKING:
    from m6rec_udf.fitting import Rows
    from m6rec_udf.satisfaction import Columns

LEAST_SUCCESSES = 10  # fewer teach the level only
PRIOR_CANDIDATES = 10.0  # the prior of the base rate counts as so many
LEAST_FLOOR = 1e-12
COSINE_WEIGHT = 0.01  # parts items of equal score, never overrules one
USUAL_SLOPE = 0.25  # of the log of the score, where there are fewer; shops with enough of them learned about as much


@dataclass
class UnseenPart:
    """The model of items nobody has touched yet: the score that their text earns them, calibrated.

    Few successes ever come from such items while a build looks back, and none of their own behaviour tells them apart:
    trees fitted to all items put them in an order of chance. Their item-item weights, made from text, are worth more
    alone; two numbers learn what the score promises.

    Attributes:
        floor: item-item scores below it, and items without one, count as it.
        slope, intercept: sigmoid(slope * raw + intercept).
        base_rate: mean y of such items, shrunk to a tenth of that of all new items as if PRIOR_CANDIDATES had shown it.
    """

    floor: float = 1e-6
    slope: float = 1.0
    intercept: float = 0.0
    base_rate: float = 0.005
    trees = 0
    text = ""

    def booster(self) -> None:
        """None: there are no trees."""

    def raw(self, x: np.ndarray) -> np.ndarray:
        """Log of the item-item score; cosines of text part what is equal, float64 ``[r]``."""
        return np.asarray(self.contributions(x).sum(1))

    def start(self, columns: Columns) -> np.ndarray:
        """The same of named columns."""
        return np.asarray(sum(self._shares(columns["score_item_item"], columns["score_semantic"])))

    def contributions(self, x: np.ndarray) -> np.ndarray:
        """What the raw score is the sum of: the floor, ``score_item_item``, ``score_semantic``, float64 ``[r, 3]``."""
        return np.column_stack(self._shares(x[:, PLACE["score_item_item"]], x[:, PLACE["score_semantic"]]))

    def _shares(self, score: np.ndarray, cosine: np.ndarray) -> list[np.ndarray]:
        lowest = np.full(len(score), np.log(self.floor))
        of_items = np.log(np.maximum(np.nan_to_num(score.astype(np.float64)), self.floor)) - lowest
        return [lowest, of_items, COSINE_WEIGHT * np.nan_to_num(cosine.astype(np.float64))]


def train_unseen(parts: list[Rows], base_rate: float) -> UnseenPart:
    """Level and slope from what behaviour of past windows says about items that had none when they began."""
    x = np.concatenate([part.x[part.slot == 0] for part in parts])
    y = np.concatenate([part.y[part.slot == 0] for part in parts])
    weight = np.concatenate([part.weight[part.slot == 0] for part in parts])
    rate = (float((weight * y).sum()) + base_rate) / (float(weight.sum()) + PRIOR_CANDIDATES)
    score = x[:, FEATURES.index("score_item_item")]
    floor = float(np.quantile(score[score > 0], 0.01)) if (score > 0).any() else 1e-6
    model = UnseenPart(floor=max(floor, LEAST_FLOOR), base_rate=rate)
    raw = model.raw(x)
    level, mean = float(logit(np.array([rate]))[0]), float(np.average(raw, weights=weight)) if len(raw) else 0.0
    model.slope, model.intercept = USUAL_SLOPE, level - USUAL_SLOPE * mean
    if (y > 0).sum() >= LEAST_SUCCESSES:
        model.slope, model.intercept = calibrate(raw, y, weight, usual=USUAL_SLOPE)
    return model
