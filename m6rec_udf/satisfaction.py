"""The satisfaction model: LightGBM with objective cross_entropy, calibrated on a later slice of time.

y in [0, 1] is what the satisfaction function says of the user's later behaviour, z the predicted
satisfaction; the loss is -[y log z + (1 - y) log(1 - z)] (docs/formulas.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from dataclasses import dataclass, field, fields, replace
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
PARTS = ("new", "known", "unseen", "stranger", "session")
SESSION_SHARES = (0.0, 0.1, 0.2, 0.35)  # of the session part between visits, to choose from
LEAST_POSITIVES = 30
SPLIT_POSITIVES = 300  # of strangers and of others, before each gets a part of its own
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
        is_next: bool ``[r]``, part of what the user did first after the question.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    slot: np.ndarray
    is_next: np.ndarray

    def only(self, keep: np.ndarray) -> Rows:
        """The rows of a mask."""
        return Rows(*(getattr(self, column.name)[keep] for column in fields(self)))

    @property
    def of_what_comes_next(self) -> Rows:
        """The same rows, with y only for what came first."""
        return replace(self, y=np.where(self.is_next, self.y, 0.0))


def no_rows() -> Rows:
    """Nothing to learn from."""
    return Rows(
        np.zeros((0, len(FEATURES)), np.float32), np.zeros(0), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool)
    )


def join(parts: list[Rows]) -> Rows:
    """Rows of several windows as one."""
    return Rows(*(np.concatenate([getattr(p, column.name) for p in parts]) for column in fields(Rows)))


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
    """Predicts calibrated satisfaction, in parts that ask different questions of the same features.

    Coming back to an item is far more likely than finding a new one and follows other signs; who has no history is
    served by what is going on; in the middle of a visit the last few items say what comes next. In one model the most
    frequent of these cases would take the trees of the others.

    Attributes:
        new: items new to the user, over the window that follows.
        known: items with behaviour of the user; None: scored like new ones.
        unseen: items without behaviour of anybody; None: scored like new ones.
        stranger: users without behaviour; None: scored like the others.
        session: items new to the user, what comes next in a visit; None: ``new`` alone.
        session_share: of the session part between visits.
    """

    new: Part = field(default_factory=Part)
    known: Part | None = None
    unseen: UnseenPart | None = None
    stranger: Part | None = None
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
            Part: ("text", "slope", "intercept", "base_rate", "linear", "curve"),
        }
        parts = {name: {key: getattr(part, key) for key in keys[type(part)]} for name, part in self.parts.items()}
        return json.dumps({**parts, "session_share": self.session_share, "features": list(self.features)})

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
        unseen, share = stored.pop("unseen", None), float(stored.pop("session_share", 0.0))
        return cls(
            **{name: Part(**part) for name, part in stored.items()},
            session_share=share,
            unseen=None if unseen is None else UnseenPart(**unseen),
            features=features,
        )

    def mixture(self, x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Coefficient of each part's raw score and the offset: log-odds = offset + sum of coefficient * raw score.

        Between visits the parts ``new`` and ``session`` are mixed as (1 - c) and c = ``session_share`` and calibrated
        together (the calibration stands in ``new``); inside one, the share of that mixture falls to 0 as
        ``user_session`` rises to 1, and ``session`` answers alone with its own calibration.
        """
        own = part_names(x, self.parts)
        coefficient = {name: np.where(own == name, part.slope, 0.0) for name, part in self.parts.items()}
        offset = np.zeros(len(x))
        for name, part in self.parts.items():
            offset[own == name] = part.intercept
        if self.session is not None:
            guest = (own == "new") & has_history(x)
            inside = x[guest, FEATURES.index("user_session")].astype(np.float64)
            between = (1.0 - inside) * self.new.slope
            coefficient["new"][guest] = between * (1.0 - self.session_share)
            coefficient["session"][guest] = between * self.session_share + inside * self.session.slope
            offset[guest] = (1.0 - inside) * self.new.intercept + inside * self.session.intercept
        return coefficient, offset

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """Logit of the calibrated satisfaction, float64 ``[r]``."""
        coefficient, out = self.mixture(x)
        for name, weight in coefficient.items():
            own = np.flatnonzero(weight)
            if len(own):
                rows = x if len(own) == len(x) else x[own]
                out[own] += weight[own] * self.parts[name].raw(rows)
        return out

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Calibrated satisfaction in (0, 1), float64 ``[r]``."""
        return sigmoid(self.log_odds(x))


def part_names(x: np.ndarray, among: Container[str]) -> np.ndarray:
    """Name of the part each row belongs to, ``new`` where its own is not among those there are."""
    names = np.full(len(x), "new", dtype="<U8")
    if "stranger" in among:
        names[~has_history(x)] = "stranger"
    if "unseen" in among:
        names[is_unseen(x)] = "unseen"
    if "known" in among:
        names[is_known(x)] = "known"
    return names


def has_history(x: np.ndarray) -> np.ndarray:
    """Rows whose user has behaviour, bool ``[r]``."""
    return np.asarray(x[:, FEATURES.index("user_log_events")] > 0)


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


@dataclass
class Examples:
    """What past moments taught: training windows and, later than they, the slice that stops and calibrates.

    Attributes:
        rows, later: questions at the start of a window; impressions among ``rows``.
        visits, later_visits: questions in the middle of a visit.
    """

    rows: Rows
    later: Rows
    visits: Rows = field(default_factory=no_rows)
    later_visits: Rows = field(default_factory=no_rows)

    @property
    def count(self) -> int:
        """Rows that teach."""
        return len(self.rows.y) + len(self.visits.y)


def train(examples: Examples, *, seed: int) -> SatisfactionModel:
    """Fit every part there is enough to learn from; the others' rows go to ``new``, and those of strangers too.

    What strangers like is popular with newcomers as well, and in a small log they are half of what there is.
    """
    rows, later = examples.rows, examples.later
    among = {"new", "unseen"}
    if _is_enough(*(r.only(is_known(r.x)) for r in (rows, later))):
        among.add("known")
    strangers, guests = (
        [r.only(part_names(r.x, {*among, "stranger"}) == name) for r in (rows, later)] for name in ("stranger", "new")
    )
    if _is_enough(*strangers, least=SPLIT_POSITIVES) and _is_enough(*guests, least=SPLIT_POSITIVES):
        among.add("stranger")
    mine, mine_later = part_names(rows.x, among), part_names(later.x, among)
    if not _is_enough(rows.only(mine == "new"), later.only(mine_later == "new")):
        return SatisfactionModel(_train_part(rows, later, seed=seed))
    teaches = {name: [name] for name in sorted(among - {"unseen"})} | {"new": ["new", "stranger"]}
    parts = {
        name: _train_part(rows.only(np.isin(mine, own)), later.only(np.isin(mine_later, own)), seed=seed)
        for name, own in teaches.items()
    }
    model = SatisfactionModel(parts["new"], parts.get("known"), stranger=parts.get("stranger"))
    unseen = [rows.only(mine == "unseen"), later.only(mine_later == "unseen")]
    model.unseen = train_unseen(unseen, model.new.base_rate)
    visits, judges = (
        r.only((part_names(r.x, among) == "new") & has_history(r.x)) for r in (examples.visits, examples.later_visits)
    )
    if _is_enough(visits.of_what_comes_next, judges.of_what_comes_next):
        model.session = _train_part(visits.of_what_comes_next, judges.of_what_comes_next, seed=seed)
        model.session.slope, model.session.intercept = calibrate(model.session.raw(judges.x), judges.y, judges.weight)
        _mix_and_calibrate(model, later.only((mine_later == "new") & has_history(later.x)))
    return model


def _mix_and_calibrate(model: SatisfactionModel, later: Rows) -> None:
    """Choose the share of ``session`` between visits by the cross-entropy on the later slice; calibrate the mixture.

    Both stay as they were where the slice has too little of it.
    """
    assert model.session is not None
    if (later.y > 0).sum() < LEAST_POSITIVES // 3:
        return
    new, session = model.new.raw(later.x), model.session.raw(later.x)
    found = {}
    for share in SESSION_SHARES:
        raw = (1 - share) * new + share * session
        slope, intercept = calibrate(raw, later.y, later.weight)
        z = slope * raw + intercept
        loss = float((later.weight * (np.logaddexp(0.0, z) - later.y * z)).sum())
        found[share] = (round(loss / float(later.weight.sum()), 9), slope, intercept)
    model.session_share = min(found, key=lambda share: found[share][0])
    _, model.new.slope, model.new.intercept = found[model.session_share]


def _is_enough(rows: Rows, later: Rows, *, least: int = LEAST_POSITIVES) -> bool:
    return bool((rows.y > 0).sum() >= least and (later.y > 0).sum() >= least // 3)


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
