"""Calibrated probability of an outcome (a click, a conversion) from a table of what was shown.

A ridge-penalised logistic score, then trees on top of it where they foresee more, the strength of both chosen on the
later part of the log and learned again with it. Clicks on advertisements are rare: where a log holds few of them, what
is learned falls back step by step towards the mean instead of towards noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from m6rec_udf.artefacts import content_hash
from m6rec_udf.errors import BACKUP, CorruptError, ParameterError, SchemaError, UnknownNameError
from m6rec_udf.logistic import calibrate, level, logit, ridge_regression, sigmoid
from m6rec_udf.satisfaction import threads

if TYPE_CHECKING:
    import polars as pl

LATER_SHARE = 0.25  # of the log, the latest rows: they choose
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e9)  # the last one: the mean alone
TREE_COUNTS = (0, 10, 20, 40, 80, 160)
LEAST_LEVEL = 20  # rows of a text to have a weight of its own
LEAST_GAIN = 1e-3  # of the cross-entropy, for which trees are kept
PARAMETERS: dict[str, Any] = {
    "objective": "cross_entropy",
    "learning_rate": 0.03,
    "num_leaves": 7,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 63,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
OUTCOME, MOMENT, SAYS = "outcome", "happened_at", "probability"


@dataclass
class Encoding:
    """Columns of a log as numbers: standardised where they are numbers, one column per frequent text."""

    mean: dict[str, tuple[float, float]] = field(default_factory=dict)
    levels: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, frame: pl.DataFrame, names: list[str]) -> Encoding:
        """Means and deviations of the numbers that are there, frequent texts of the others."""
        found = cls()
        for name in names:
            column = frame[name]
            if column.dtype.is_numeric() or column.dtype == bool:
                values = _numbers(column).drop_nulls().to_numpy()
                found.mean[name] = (float(values.mean()), float(values.std()) or 1.0) if len(values) else (0.0, 1.0)
            else:
                counted = column.cast(str).value_counts().sort(name)
                found.levels[name] = [text for text, n in counted.iter_rows() if n >= LEAST_LEVEL and text is not None]
        return found

    @property
    def names(self) -> list[str]:
        """The columns it reads."""
        return [*self.mean, *self.levels]

    def __call__(self, frame: pl.DataFrame) -> np.ndarray:
        """float64 ``[rows, columns]``."""
        columns = []
        for name, (mean, deviation) in self.mean.items():
            columns.append((_numbers(frame[name]).fill_null(mean).to_numpy() - mean) / deviation)
        for name, texts in self.levels.items():
            own = frame[name].cast(str).to_numpy()
            columns += [(own == text).astype(np.float64) for text in texts]
        return np.column_stack(columns) if columns else np.zeros((frame.height, 0))


def _numbers(column: pl.Series) -> pl.Series:
    """A column as numbers, NULL where it says none."""
    return column.cast(float).fill_nan(None)


@dataclass
class Probability:
    """What ``learned`` found.

    Attributes:
        ridge: penalty of the logistic score.
        trees: number of trees on top of it.
        slope, intercept: calibration of the log-odds.
    """

    encoding: Encoding
    weight: np.ndarray
    ridge: float
    trees: int
    booster: Any
    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, frame: pl.DataFrame) -> np.ndarray:
        """Probability of each row, float64 in (0, 1)."""
        x = self.encoding(frame)
        return sigmoid(self.slope * _raw(self.weight, self.booster, x) + self.intercept)

    def to_bytes(self) -> bytes:
        """As JSON; numbers to the last bit."""
        told = {
            "mean": self.encoding.mean,
            "levels": self.encoding.levels,
            "weight": self.weight.tolist(),
            "ridge": self.ridge,
            "trees": self.trees,
            "booster": None if self.booster is None else self.booster.model_to_string(),
            "slope": self.slope,
            "intercept": self.intercept,
        }
        return json.dumps(told).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Probability:
        """The model of ``to_bytes``."""
        told = json.loads(content)
        encoding = Encoding({name: (mean, spread) for name, (mean, spread) in told["mean"].items()}, told["levels"])
        booster = None
        if told["booster"] is not None:
            import lightgbm

            booster = lightgbm.Booster(model_str=told["booster"])
        weight = np.asarray(told["weight"], np.float64)
        return cls(encoding, weight, told["ridge"], told["trees"], booster, told["slope"], told["intercept"])


def _raw(weight: np.ndarray, booster: Any, x: np.ndarray) -> np.ndarray:
    raw = np.asarray(weight[0] + x @ weight[1:])
    return raw if booster is None else np.asarray(raw + booster.predict(x, raw_score=True, num_threads=threads()))


def _logistic(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Weights of a logistic score, the first one the intercept; the largest ridge leaves nothing else."""
    if ridge >= RIDGES[-1] or not x.shape[1]:
        rate = float(np.clip(y.mean(), 1e-6, 1 - 1e-6))
        return np.concatenate([logit(np.asarray([rate])), np.zeros(x.shape[1])])
    return ridge_regression(x, y, np.ones(len(y)), ridge)


def _loss(raw: np.ndarray, y: np.ndarray) -> float:
    return float((np.logaddexp(0.0, raw) - y * raw).mean())


def _boosted(x: np.ndarray, y: np.ndarray, start: np.ndarray, trees: int, seed: int) -> Any:
    import lightgbm

    rows = lightgbm.Dataset(x, y, init_score=start, free_raw_data=False)
    return lightgbm.train({**PARAMETERS, "seed": seed, "num_threads": threads()}, rows, num_boost_round=trees)


def learned(frame: pl.DataFrame, *, seed: int = 0) -> Probability:
    """A model of ``outcome`` by every other column of a log in the order of time but ``happened_at``.

    Raises SchemaError: no outcome, or one outside [0, 1]. ParameterError: fewer than 100 rows, or one outcome only.
    """
    if OUTCOME not in frame.columns or MOMENT not in frame.columns:
        raise SchemaError(
            f"the log has the columns {', '.join(frame.columns)}, expected {OUTCOME} and {MOMENT} among them",
            f"select clicked as {OUTCOME}, shown_at as {MOMENT}, ... from ...",
        )
    y = frame[OUTCOME].cast(float).to_numpy()
    if not ((y >= 0) & (y <= 1)).all():
        raise SchemaError(f"{OUTCOME} is outside [0, 1] or NULL, expected 0 for no and 1 for yes")
    if len(y) < 100 or y.max() == y.min():
        raise ParameterError(
            f"the log has {len(y)} rows, {int((y > 0).sum())} with an outcome, expected 100 rows of both kinds",
            "wait for more clicks",
        )
    names = [name for name in frame.columns if name not in (OUTCOME, MOMENT)]
    order = np.argsort(frame[MOMENT].to_numpy(), kind="stable")
    frame, y = frame[order], y[order]
    cut = int(len(y) * (1 - LATER_SHARE))
    encoding = Encoding.of(frame[:cut], names)
    x = encoding(frame)
    best: tuple[float, float, np.ndarray] | None = None
    for ridge in RIDGES:
        weight = _logistic(x[:cut], y[:cut], ridge)
        loss = _loss(_raw(weight, None, x[cut:]), y[cut:])
        if best is None or loss <= best[0]:
            best = loss, ridge, weight
    assert best is not None
    loss, ridge, weight = best
    trees, raw = 0, _raw(weight, None, x)
    booster = _boosted(x[:cut], y[:cut], raw[:cut], TREE_COUNTS[-1], seed)
    judged = raw[cut:]
    for count in TREE_COUNTS[1:]:
        more = booster.predict(x[cut:], raw_score=True, num_iteration=count, num_threads=threads())
        if _loss(raw[cut:] + more, y[cut:]) < loss * (1 - LEAST_GAIN):
            loss, trees, judged = _loss(raw[cut:] + more, y[cut:]), count, raw[cut:] + more
    slope = min(1.0, calibrate(judged, y[cut:], np.ones(len(y) - cut))[0])
    encoding = Encoding.of(frame, names)
    x = encoding(frame)
    weight = _logistic(x, y, ridge)
    booster = _boosted(x, y, _raw(weight, None, x), trees, seed) if trees else None
    raw = _raw(weight, booster, x)
    return Probability(encoding, weight, ridge, trees, booster, slope, level(slope * raw, y, np.ones(len(y))))


def probabilities(
    con: duckdb.DuckDBPyConnection, log: str | None, rows: str, *, model: str | None = None, seed: int = 0
) -> duckdb.DuckDBPyRelation:
    """Probability of an outcome for the rows of a table, learned from a table of what was shown and what came of it.

    ``create table click_probability as from ...`` keeps them in the file; ``bid * probability`` in a view of
    ``(item_id, boost)`` ranks by it. The same log gives the same figures, whatever the order of its rows.

    Args:
        con: any connection; with ``model`` a dressed one.
        log: a table or view with ``outcome`` (0 or 1, or a share), ``happened_at`` and features, numbers or texts;
            None: nothing is learned, the stored ``model`` answers.
        rows: a table or view with the same features; further columns are passed on.
        model: a name under which what is learned is stored in the file (``m6.probability_models``), in place of what
            it held.
        seed: of the trees.

    Returns:
        The columns of ``rows`` and ``probability`` in (0, 1).

    Raises:
        SchemaError: a column is missing. ParameterError: too little to learn from, or neither log nor model is given.
        UnknownNameError: no model of that name. CorruptError: its bytes do not match their hash.
    """
    import polars as pl

    if log is None and model is None:
        raise ParameterError("got neither a log nor a model, expected one of them", "probabilities(con, 'ad_log', ...)")
    asked = con.sql("select * from query_table($rows)", params={"rows": rows}).pl()
    if log is None:
        found = _stored(con, str(model))
        _require(asked, found.encoding.names, rows, f"the model {model!r}")
    else:
        past = con.sql("select * from query_table($log) order by all", params={"log": log}).pl()
        _require(asked, [name for name in past.columns if name not in (OUTCOME, MOMENT)], rows, log)
        found = learned(past, seed=seed)
        if model is not None:
            content = found.to_bytes()
            con.execute(
                "insert or replace into m6.probability_models by name select ? as name, ? as content_hash, "
                "cast(? as blob) as content, ? as learned_from, ? as rows, ? as outcomes",
                [model, content_hash(content), content, log, past.height, float(past[OUTCOME].cast(float).sum())],
            )
    return con.from_arrow(asked.with_columns(pl.Series(SAYS, found(asked))).to_arrow())


def _require(asked: pl.DataFrame, names: list[str], rows: str, source: str) -> None:
    missing = [name for name in names if name not in asked.columns]
    if missing:
        raise SchemaError(
            f"{rows} has no column {', '.join(missing)}, expected the features of {source}",
            "leave out of the log what is not known before something is shown",
        )


def _stored(con: duckdb.DuckDBPyConnection, name: str) -> Probability:
    """The model of that name, its bytes checked."""
    rows = con.execute("select content, content_hash from m6.probability_models where name = ?", [name]).fetchall()
    if not rows:
        known = [own for (own,) in con.execute("select name from m6.probability_models order by 1").fetchall()]
        raise UnknownNameError(
            f"there is no probability model {name!r}, expected one of {', '.join(known) or 'none yet'}",
            f"learn it from a log: probabilities(con, 'ad_log', ..., model={name!r})",
        )
    content, digest = bytes(rows[0][0]), rows[0][1]
    if content_hash(content) != digest:
        raise CorruptError(
            f"the probability model {name!r} does not match its hash, expected {digest[:12]}...",
            f"{BACKUP}, or learn it again",
        )
    return Probability.from_bytes(content)
