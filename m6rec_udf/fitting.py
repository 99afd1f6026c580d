"""Fit the satisfaction model: what past moments taught, part by part; a later slice of time stops and calibrates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from m6rec_udf.errors import ParameterError
from m6rec_udf.logistic import calibrate, level, logit, ridge_regression, sigmoid
from m6rec_udf.ranking import FEATURES
from m6rec_udf.satisfaction import (
    LINEAR_FEATURES,
    LINEAR_TRENDS,
    Part,
    SatisfactionModel,
    has_history,
    is_known,
    is_new_domain,
    linear_inputs,
    part_names,
    threads,
)
from m6rec_udf.unseen import PRIOR_CANDIDATES, train_unseen

TREES = 100
PATIENCE = 20  # trees without a better order on the later slice, before training stops
SESSION_SHARES = (0.0, 0.1, 0.2, 0.35)  # of the session part between visits, to choose from
LEAST_POSITIVES = 30
TREND_RIDGE = 10.0
LEANS = (0.25, 0.5, 0.75)  # share of the trends alone in what is new to a user, to choose from beside none
LEAST_GAIN = 0.01  # of the cross-entropy, for which a part leans on the trends
SMALL_ROWS = 60_000
WHEN = ("user_session", "user_idle_share", "user_tenure_share", "user_log_events_short", "user_log_events_long")
LEAST_SPREAD = 0.1  # of an input where a domain is new: of a category shared with others hardly a row knows anything
TEACHERS = {"new": ("new", "stranger", "new_domain")}  # rows of which parts teach a part, where not only its own
PARAMETERS: dict[str, Any] = {
    "objective": "cross_entropy",
    "metric": ["auc", "cross_entropy"],  # stops on the order: a shift of the base rate is calibration's to mend
    "learning_rate": 0.1,
    "num_leaves": 15,  # 7 where there are few rows
    "extra_trees": True,  # one drawn threshold per feature: past windows' accidents are not worth finding
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


TUNABLE = (
    "learning_rate",
    "num_leaves",
    "min_data_in_leaf",
    "lambda_l2",
    "feature_fraction",
    "bagging_fraction",
    "max_bin",
    "extra_trees",
    "num_boost_round",
)


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the trees by name.

    Raises ParameterError: one that is not to be set from outside.
    """
    unknown = sorted(set(given) - set(TUNABLE))
    if unknown:
        raise ParameterError(
            f"lightgbm names {', '.join(unknown)}, expected some of {', '.join(TUNABLE)}",
            "seed is an argument of build; the objective is fixed, see docs/formulas.md",
        )
    return dict(given)


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
        window: float ``[r]``, seconds since 1970 of the moment the row's window begins at.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    slot: np.ndarray
    is_next: np.ndarray
    window: np.ndarray

    def only(self, keep: np.ndarray) -> Rows:
        """The rows of a mask."""
        return Rows(*(getattr(self, column.name)[keep] for column in fields(self)))

    @property
    def of_what_comes_next(self) -> Rows:
        """The same rows, with y only for what came first."""
        return replace(self, y=np.where(self.is_next, self.y, 0.0))


def no_rows() -> Rows:
    """Nothing to learn from."""
    x, nothing = np.zeros((0, len(FEATURES)), np.float32), np.zeros(0)
    return Rows(x, nothing, nothing, np.zeros(0, np.int64), np.zeros(0, bool), nothing)


def join(parts: list[Rows]) -> Rows:
    """Rows of several windows as one."""
    return Rows(*(np.concatenate([getattr(p, column.name) for p in parts]) for column in fields(Rows)))


def slot_inputs(slot: np.ndarray) -> np.ndarray:
    """Whether a row is an impression, and the log of its slot, float64 ``[r, 2]``: what being shown there did."""
    return np.column_stack([slot > 0, np.log(np.maximum(slot, 1))]).astype(np.float64)


def fit_linear(rows: Rows, *, ridge: float = 10.0) -> tuple[list[float], np.ndarray]:
    """``ridge_regression`` of satisfaction.

    Returns:
        Intercept and weights of ``linear_inputs``, and the two weights of ``slot_inputs``: an impression is worth
        more than the average candidate of a window, and less the lower its slot. The latter are known while
        training and zero when serving, so the position of an item does not look like its quality.
    """
    x = np.column_stack([linear_inputs(rows.x), slot_inputs(rows.slot)])
    least = LEAST_SPREAD if is_new_domain(rows.x).all() else 1e-6
    mean, spread = x.mean(0), np.maximum(x.std(0), least)
    w = ridge_regression((x - mean) / spread, rows.y, rows.weight, ridge)
    weights = w[1:] / spread
    own = weights[:-2]
    return [float(w[0] - (weights * mean).sum()), *map(float, own)], weights[-2:]


@dataclass
class Examples:
    """What past moments taught: training windows and, later than they, the slice that stops and calibrates.

    Attributes:
        rows, later: questions at the start of a window; impressions among ``rows``.
        visits, later_visits: questions in the middle of a visit.
        hidden, later_hidden: questions about a domain that is hidden from the user's history.
    """

    rows: Rows
    later: Rows
    visits: Rows = field(default_factory=no_rows)
    later_visits: Rows = field(default_factory=no_rows)
    hidden: Rows = field(default_factory=no_rows)
    later_hidden: Rows = field(default_factory=no_rows)

    @property
    def count(self) -> int:
        """Rows that teach."""
        return len(self.rows.y) + len(self.visits.y) + len(self.hidden.y)


def train(examples: Examples, *, seed: int, lightgbm: Mapping[str, Any] | None = None) -> SatisfactionModel:
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
    if _is_enough(*strangers) and _is_enough(*guests):
        among.add("stranger")
    both = examples.hidden, examples.later_hidden
    hidden = [r.only(part_names(r.x, {*among, "new_domain"}) == "new_domain") for r in both]
    if _is_enough(*hidden):
        among.add("new_domain")
    mine, mine_later = part_names(rows.x, among), part_names(later.x, among)
    if not _is_enough(rows.only(mine == "new"), later.only(mine_later == "new")):
        return SatisfactionModel(train_part(rows, later, seed=seed, lightgbm=lightgbm))
    taught = {
        name: (rows.only(teaches(name, mine)), later.only(teaches(name, mine_later)))
        for name in sorted(among - {"unseen", "stranger"})
    }
    if "new_domain" in taught:
        natural, natural_later = taught["new_domain"]
        taught["new_domain"] = _whenever(join([natural, hidden[0]])), _whenever(join([natural_later, hidden[1]]))
    parts = {name: hold_out(*both, seed=seed, lightgbm=lightgbm) for name, both in taught.items()}
    lean_on_trends(parts["new"], taught["new"][0], later.only(mine_later == "new"))
    if "stranger" in among:
        parts["stranger"] = train_stranger(*strangers)
    model = SatisfactionModel(parts["new"], parts.get("known"), stranger=parts.get("stranger"))
    model.new_domain = parts.get("new_domain")
    unseen = [rows.only(mine == "unseen"), later.only(mine_later == "unseen")]
    model.unseen = train_unseen(unseen, model.new.base_rate)
    visits, judges = (
        r.only((part_names(r.x, among) == "new") & has_history(r.x)) for r in (examples.visits, examples.later_visits)
    )
    following = visits.of_what_comes_next, judges.of_what_comes_next
    is_mixed, guests_later = False, later.only((mine_later == "new") & has_history(later.x))
    if _is_enough(*following):
        model.session = hold_out(*following, seed=seed, lightgbm=lightgbm)
        model.session.slope, model.session.intercept = calibrate(model.session.raw(judges.x), judges.y, judges.weight)
        is_mixed = _mix_and_calibrate(model, guests_later)
        model.session = learn_again(model.session, *following, judges, seed=seed, lightgbm=lightgbm)
    for name, both in taught.items():
        setattr(model, name, learn_again(parts[name], *both, seed=seed, lightgbm=lightgbm))
    if model.new_domain is not None:
        natural = join([rows.only(mine == "new_domain"), later.only(mine_later == "new_domain")])
        _level_of_new_domains(model.new_domain, natural, model.new.base_rate)
    if model.session is not None and is_mixed:
        model.new.slope = parts["new"].slope  # of the mixture
        _level_again(model.new, _mixed(model, guests_later.x), guests_later)
    return model


def _whenever(rows: Rows) -> Rows:
    """The rows as they look at any moment: nothing in them tells how long ago the user was here or came first.

    With a domain hidden, that says whether a question stood at the start of the window or behind it.
    """
    x = rows.x.copy()
    x[:, [FEATURES.index(name) for name in WHEN]] = 0.0
    return replace(rows, x=x)


def _level_of_new_domains(part: Part, natural: Rows, base_rate: float) -> None:
    """Set the level by who was new to a domain by nature: many more domains are new to people than they enter.

    Questions with a hidden domain are asked of people who did something in it: they teach the order.
    """
    mean = (float((natural.weight * natural.y).sum()) + PRIOR_CANDIDATES * base_rate) / (
        float(natural.weight.sum()) + PRIOR_CANDIDATES
    )
    if len(natural.y):
        part.intercept = level(part.slope * part.raw(natural.x), np.full(len(natural.y), mean), natural.weight)


def teaches(name: str, names: np.ndarray) -> np.ndarray:
    """Rows, by the names of their parts, that teach a part; bool ``[r]``."""
    return np.isin(names, TEACHERS.get(name, (name,)))


def _mixed(model: SatisfactionModel, x: np.ndarray) -> np.ndarray:
    """Raw score between visits of items new to a user with a history."""
    assert model.session is not None
    return np.asarray((1 - model.session_share) * model.new.raw(x) + model.session_share * model.session.raw(x))


def _mix_and_calibrate(model: SatisfactionModel, later: Rows) -> bool:
    """Choose the share of ``session`` between visits by the cross-entropy on the later slice; calibrate the mixture.

    Both stay as they were where the slice has too little of it: False.
    """
    assert model.session is not None
    if (later.y > 0).sum() < LEAST_POSITIVES // 3:
        return False
    new, session = model.new.raw(later.x), model.session.raw(later.x)
    raws = {share: (1 - share) * new + share * session for share in SESSION_SHARES}
    model.session_share = min(raws, key=lambda share: _loss(raws[share], later))
    model.new.slope, model.new.intercept = calibrate(raws[model.session_share], later.y, later.weight)
    return True


def _is_enough(rows: Rows, later: Rows) -> bool:
    return bool((rows.y > 0).sum() >= LEAST_POSITIVES and (later.y > 0).sum() >= LEAST_POSITIVES // 3)


def train_stranger(rows: Rows, later: Rows) -> Part:
    """What people without a history like: a score without trees, learned from all windows, calibrated on ``later``.

    The mean of two logistic scores: ``fit_linear`` and ``fit_trends``. All strangers of a window are asked about the
    same items: it is little more than one observation, and what is not held back learns its accidents.
    """
    taught = join([rows, later])
    behaviour = taught.slot == 0
    if behaviour.any():
        taught = taught.only(behaviour)
    rate = float(np.average(taught.y, weights=taught.weight))
    both = zip(fit_linear(taught)[0], fit_trends(taught), strict=True)
    part = Part(base_rate=rate, linear=[(a + b) / 2 for a, b in both])
    part.slope, part.intercept = calibrate(part.raw(later.x), later.y, later.weight)
    return part


def fit_trends(taught: Rows) -> list[float]:
    """Which blend of the trends has foreseen the windows: 0 and the weights of LINEAR_FEATURES, at least 0.

    Weights on the logs of behaviour and of successes at every half-life, and an intercept for each window, so that no
    window's level passes for a trend; the intercepts are left out of what is returned.
    """
    from scipy.optimize import minimize

    inputs = np.nan_to_num(taught.x[:, [FEATURES.index(name) for name in LINEAR_TRENDS]].astype(np.float64))
    z = (inputs - inputs.mean(0)) / np.maximum(inputs.std(0), 1e-6)
    windows, window = np.unique(taught.window, return_inverse=True)
    n = len(windows)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        raw = w[window] + z @ w[n:]
        error = taught.weight * (sigmoid(raw) - taught.y)
        value = float((taught.weight * (np.logaddexp(0.0, raw) - taught.y * raw)).sum())
        gradient = np.concatenate([np.bincount(window, error, n), z.T @ error + TREND_RIDGE * w[n:]])
        return value + 0.5 * TREND_RIDGE * float(w[n:] @ w[n:]), gradient

    rate = float(np.average(taught.y, weights=taught.weight))
    start = np.concatenate([np.full(n, logit(np.array([rate]))[0]), np.full(len(LINEAR_TRENDS), 0.1)])
    bounds = [(None, None)] * n + [(0.0, None)] * len(LINEAR_TRENDS)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = dict(zip(LINEAR_TRENDS, found[n:] / np.maximum(inputs.std(0), 1e-6), strict=True))
    return [0.0, *(float(weights.get(name, 0.0)) for name in LINEAR_FEATURES)]


def train_part(rows: Rows, later: Rows, *, seed: int, lightgbm: Mapping[str, Any] | None = None) -> Part:
    """One part, stopped and calibrated on ``later`` and then learned from both; a fixed score where there is little."""
    return learn_again(hold_out(rows, later, seed=seed, lightgbm=lightgbm), rows, later, seed=seed, lightgbm=lightgbm)


def hold_out(rows: Rows, later: Rows, *, seed: int, lightgbm: Mapping[str, Any] | None = None) -> Part:
    """One part learned from ``rows``, stopped and calibrated on ``later``; a fixed score where there is little."""
    if not _is_enough(rows, later):
        seen = np.concatenate([rows.y, later.y])
        rate = float(seen.mean()) if len(seen) else 0.05
        return Part(base_rate=min(max(rate, 0.001), 0.999))
    model = _fit(rows, seed=seed, trees=TREES, later=later, lightgbm=lightgbm)
    model.slope, model.intercept = calibrate(model.raw(later.x), later.y, later.weight)
    return model


def learn_again(
    part: Part,
    rows: Rows,
    later: Rows,
    judges: Rows | None = None,
    *,
    seed: int,
    lightgbm: Mapping[str, Any] | None = None,
) -> Part:
    """The same number of trees from all windows: the latest one is most like what comes.

    Where impressions teach, the latest window does so through them already, and whoever judges stays apart. The
    calibration is ``_level_again`` over ``judges`` (default: ``later``).
    """
    if not part.text or (rows.slot > 0).any():
        return part
    taught = join([rows, later])
    again = _fit(taught, seed=seed, trees=part.trees, lightgbm=lightgbm)
    if part.lean:
        _lean(again, _trends(taught), part.lean)
    again = replace(again, slope=part.slope, base_rate=part.base_rate, curve=part.curve)
    judges = later if judges is None else judges
    _level_again(again, again.raw(judges.x), judges)
    return again


def _level_again(part: Part, raw: np.ndarray, judges: Rows) -> None:
    """Calibrate a part that has seen its judges: the slope of the part held out, less where theirs is smaller.

    Those seen look more certain than what comes, so their slope is an upper bound. The intercept makes the mean over
    the judges theirs: of windows at different levels all windows together have another.
    """
    part.slope = min(part.slope, calibrate(raw, judges.y, judges.weight)[0])
    part.intercept = level(part.slope * raw, judges.y, judges.weight)


def lean_on_trends(part: Part, rows: Rows, later: Rows) -> None:
    """Lean a part held out on the trends alone where ``later`` is foreseen better so: where little was there to learn.

    The share with the smallest cross-entropy on ``later`` is taken if that is LEAST_GAIN below the part's own.
    """
    if not part.text or (later.y > 0).sum() < LEAST_POSITIVES // 3:
        return
    own, trends = part.raw(later.x), _trends(rows)
    alone = Part(linear=trends).raw(later.x)
    losses = {share: _loss((1 - share) * own + share * alone, later) for share in (0.0, *LEANS)}
    best = min(losses, key=lambda share: losses[share])
    if losses[best] < (1 - LEAST_GAIN) * losses[0.0]:
        _lean(part, trends, best)
        part.slope, part.intercept = calibrate(part.raw(later.x), later.y, later.weight)


def _trends(rows: Rows) -> list[float]:
    """``fit_trends`` on the scale of log-odds."""
    weights = fit_trends(rows)
    slope, _ = calibrate(Part(linear=weights).raw(rows.x), rows.y, rows.weight)
    return [slope * weight for weight in weights]


def _lean(part: Part, trends: list[float], share: float) -> None:
    """(1 - share) of the part and ``share`` of the trends; the calibration brings both to the scale."""
    part.lean = share
    part.linear = [a + share / (1 - share) * b for a, b in zip(part.linear, trends, strict=True)]


def _loss(raw: np.ndarray, rows: Rows) -> float:
    """Mean cross-entropy of a raw score after its calibration."""
    slope, intercept = calibrate(raw, rows.y, rows.weight)
    z = slope * raw + intercept
    return round(float((rows.weight * (np.logaddexp(0.0, z) - rows.y * z)).sum() / rows.weight.sum()), 9)


def _fit(
    rows: Rows, *, seed: int, trees: int, later: Rows | None = None, lightgbm: Mapping[str, Any] | None = None
) -> Part:
    """The logistic start and at most so many trees on it, fewer where ``later`` says so."""
    import lightgbm as library

    parameters = {**PARAMETERS, "seed": seed, "num_threads": threads()}
    if len(rows.y) < SMALL_ROWS:
        parameters["num_leaves"] = 7
    parameters["min_data_in_leaf"] = int(np.clip(len(rows.y) // 400, 5, 50))
    parameters |= checked_settings(lightgbm or {})
    most = int(parameters.pop("num_boost_round", trees))
    linear, slots = fit_linear(rows)
    behaviour = rows.slot == 0
    if not behaviour.any():
        behaviour = np.ones(len(rows.y), bool)
    base_rate = float(np.average(rows.y[behaviour], weights=rows.weight[behaviour]))
    model = Part(base_rate=base_rate, linear=linear)
    data = library.Dataset(
        rows.x,
        rows.y,
        weight=rows.weight,
        init_score=model.linear_parts(rows.x).sum(1) + slot_inputs(rows.slot) @ slots,
        feature_name=list(FEATURES),
        free_raw_data=True,
    )
    if later is None:
        model.text = library.train(parameters, data, num_boost_round=trees).model_to_string()
        return model
    check = library.Dataset(
        later.x, later.y, weight=later.weight, init_score=model.linear_parts(later.x).sum(1), reference=data
    )
    history: dict[str, Any] = {}
    booster = library.train(
        parameters,
        data,
        num_boost_round=most,
        valid_sets=[check],
        valid_names=["later"],
        callbacks=[
            library.early_stopping(PATIENCE, first_metric_only=True, verbose=False),
            library.record_evaluation(history),
        ],
    )
    model.curve = [float(v) for v in history["later"]["cross_entropy"]]
    model.text = booster.model_to_string(num_iteration=booster.best_iteration)
    return model
