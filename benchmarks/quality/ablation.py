"""What each part of the stack adds: the same candidates, ordered by less and less, on the slice before the split.

    python benchmarks/quality/ablation.py --data movielens

One build as of the beginning of the validation slice. Its candidates for the users of the slice are put in order by the
satisfaction model, by models trained on the same rows without a group of features or without a part, by fusions of
the single strategies at the level of scores (reciprocal ranks, a logistic stack), and by each single strategy; and
by the full model among the candidates that stay without one of the strategies. The test split is not touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from typing import Any

import common
import duckdb
import numpy as np
import polars as pl

from m6rec_udf import builder, fitting
from m6rec_udf.arrays import Snapshot
from m6rec_udf.cells import Cells
from m6rec_udf.engine import InDuckDB
from m6rec_udf.event_log import Log
from m6rec_udf.fitting import Examples
from m6rec_udf.functions import candidates_of
from m6rec_udf.intervals import bootstrap
from m6rec_udf.ranking import FEATURES
from m6rec_udf.registry import context_of
from m6rec_udf.satisfaction import Part, SatisfactionModel

evaluation = import_module("m6rec_udf.evaluate")
GROUPS = {
    "trends": ("item_log_trend", "item_trend", "item_log_success", "item_idle", "rank_trending", "rank_success"),
    "item-item": ("score_item_item", "share_item_item", "rank_item_item"),
    "factors": ("score_matrix", "share_matrix", "rank_matrix"),
    "co-visitation": ("score_covis", "share_covis", "rank_covis"),
    "text": ("score_semantic", "share_semantic", "rank_semantic"),
    "users": ("user_",),
    "pairs (category, brand, price, repeats)": ("pair_", "score_buy_again"),
}
KEPT_OF_USERS = ("user_log_events", "user_session")  # they say which part answers
SINGLES = ("item_item", "matrix_factorization", "covisitation", "semantic")
FUSION = 10.0  # added to the rank, from 0


class _Kept(builder._Build):
    """A build that keeps its examples, its snapshot and its log."""

    examples: Examples
    snapshot: Snapshot
    log: Log

    def _past_rows(self, cells: Cells | None) -> Examples:
        self.examples = super()._past_rows(cells)
        return self.examples

    def _commit(self, snapshot: Snapshot, extra: list[str], *, activate: bool) -> int:
        self.snapshot = snapshot
        return super()._commit(snapshot, extra, activate=activate)


@dataclass
class Questions:
    """Candidates of the users of the validation slice, built once."""

    seed: int
    built: _Kept | None = None
    row: Any = None
    item: Any = None
    supporters: Any = None
    x: Any = None

    def fill(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: list[str]) -> None:
        """Build as of the moment and propose to the users."""
        if self.built is not None:
            return
        work = con.cursor()
        built = _Kept(work, context_of(con), self.seed, None, builder.Clock(None), InDuckDB())
        built.run(as_of, activate=False)
        ids = work.execute("select user_id from stg_users order by user_idx").fetchall()
        number = {user_id: at for at, (user_id,) in enumerate(ids)}
        index = np.asarray([number.get(user, -1) for user in users])
        until = np.nextafter(np.full(len(users), built.snapshot.settings["as_of"]), np.inf)
        behaviour = built.log.before(index, until, built.snapshot.settings["segments"])
        found, x = candidates_of(built.snapshot, behaviour, allowed=None, exclude_seen=True, at_least=10)
        keep = ~found.is_seen
        self.row, self.item, self.supporters = found.row[keep], found.item[keep], found.supporters[keep]
        self.x = x[keep]
        self.built = built
        work.close()


class Ordered:
    """Lists of the same candidates, in the order of a score; the form evaluation takes."""

    def __init__(self, questions: Questions, score: Callable[[Questions], np.ndarray]) -> None:
        self.questions, self.score = questions, score

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        import pyarrow as pa

        names = [str(user) for user in users["user_id"].to_pylist()]
        q = self.questions
        q.fill(con, as_of, names)
        assert q.built is not None
        place = _ranks(q, self.score(q))
        best = np.flatnonzero(place < k)
        ids = q.built.snapshot.item_ids
        return pa.table(
            {
                "user_id": pa.array([names[r] for r in q.row[best]]),
                "item_id": pa.array([ids[i] for i in q.item[best]]),
                "rank": pa.array(place[best] + 1),
            }
        )


def _ranks(q: Questions, score: np.ndarray) -> np.ndarray:
    """Rank from 0 inside the user's candidates; -inf comes last."""
    order = np.lexsort((q.item, -np.round(score, 9), q.row))
    row = q.row[order]
    out = np.empty(len(row), np.int64)
    out[order] = np.arange(len(row)) - np.searchsorted(row, row)
    out[np.isneginf(score)] = len(row)
    return out


def _column(q: Questions, name: str) -> np.ndarray:
    return np.nan_to_num(q.x[:, FEATURES.index(name)].astype(np.float64))


def _model(q: Questions) -> SatisfactionModel:
    assert q.built is not None
    assert q.built.snapshot.model is not None
    return q.built.snapshot.model


def _examples(q: Questions) -> Examples:
    assert q.built is not None
    return q.built.examples


def _without(prefixes: tuple[str, ...]) -> Callable[[Questions], np.ndarray]:
    """A model that never saw the features of a group."""
    gone = [i for i, name in enumerate(FEATURES) if name.startswith(prefixes) and name not in KEPT_OF_USERS]

    def blank(rows: Any) -> Any:
        x = rows.x.copy()
        x[:, gone] = np.nan
        if "pair_log_events" in (FEATURES[i] for i in gone):  # says whether the item is known
            x[:, FEATURES.index("pair_log_events")] = rows.x[:, FEATURES.index("pair_log_events")]
        return replace(rows, x=x)

    def score(q: Questions) -> np.ndarray:
        e = _examples(q)
        parts = (e.rows, e.later, e.visits, e.later_visits, e.hidden, e.later_hidden)
        model = fitting.train(Examples(*map(blank, parts)), seed=q.seed)
        x = q.x.copy()
        x[:, gone] = np.nan
        x[:, FEATURES.index("pair_log_events")] = q.x[:, FEATURES.index("pair_log_events")]
        return model.log_odds(x)

    return score


def _one_part(q: Questions) -> np.ndarray:
    e = _examples(q)
    return fitting.train_part(e.rows, e.later, seed=q.seed).raw(q.x)


def _without_visits(q: Questions) -> np.ndarray:
    e = _examples(q)
    kept = Examples(e.rows, e.later, hidden=e.hidden, later_hidden=e.later_hidden)
    return fitting.train(kept, seed=q.seed).log_odds(q.x)


def _stacked(q: Questions) -> np.ndarray:
    """The logistic start alone: a linear stack of the singles' ranks, shares and the items' trends."""
    linear, _ = fitting.fit_linear(_examples(q).rows)
    return Part(linear=linear).linear_parts(q.x).sum(1)


def _fused(q: Questions) -> np.ndarray:
    """Reciprocal rank fusion (Cormack, Clarke, Buettcher 2009) of the singles and the trend."""
    scores = [_column(q, f"score_{name}") for name in SINGLES] + [-_column(q, "rank_trending")]
    return np.sum([1.0 / (FUSION + _ranks(q, score)) for score in scores], axis=0)


def _only_others(name: str) -> Callable[[Questions], np.ndarray]:
    """The full model among what the other strategies propose."""

    def score(q: Questions) -> np.ndarray:
        assert q.built is not None
        bit = np.uint64(1 << q.built.snapshot.settings["strategies"][name])
        return np.where(q.supporters & ~bit > 0, _model(q).log_odds(q.x), -np.inf)

    return score


def methods(seed: int) -> dict[str, Ordered]:
    """Every order by name."""
    q = Questions(seed)
    scores: dict[str, Callable[[Questions], np.ndarray]] = {"m6rec": lambda q: _model(q).log_odds(q.x)}
    scores["one model instead of parts"] = _one_part
    scores["no visits (what comes next)"] = _without_visits
    scores |= {f"no features: {name}": _without(prefixes) for name, prefixes in GROUPS.items()}
    scores["fusion: logistic stack"] = _stacked
    scores["fusion: reciprocal ranks"] = _fused
    scores |= {f"single: {name}": lambda q, name=name: _column(q, f"score_{name}") for name in SINGLES}
    scores["single: trending"] = lambda q: -_column(q, "rank_trending")
    scores["single: popular"] = lambda q: _column(q, "item_log_events")
    strategies = (*SINGLES, "popular", "trending", "fresh", "segment_popular")
    scores |= {f"no candidates of: {name}": _only_others(name) for name in strategies}
    return {name: Ordered(q, score) for name, score in scores.items()}


def figures(con: duckdb.DuckDBPyConnection, given: argparse.Namespace) -> pl.DataFrame:
    """NDCG of every order and its paired difference to m6rec; prints the table."""
    evaluation.validate(con, methods(given.seed), k=given.k, seed=given.seed)
    users = con.sql("select user_id, slice from eval_users order by user_id").pl()
    found = con.sql("select method, user_id, ndcg from eval_user_metrics order by all").pl()
    names = found["method"].unique(maintain_order=True).to_list()
    wide = users.join(found.pivot("method", index="user_id", values="ndcg"), on="user_id", how="left")
    values = wide.select(names).fill_null(0.0).to_numpy()
    own = values[:, names.index("m6rec")]
    low, high = bootstrap(values - own[:, None], seed=given.seed)
    warm = (wide["slice"] == "warm").to_numpy()
    table = pl.DataFrame(
        {
            "order": names,
            "all": values.mean(0),
            "warm": values[warm].mean(0),
            "cold": values[~warm].mean(0),
            "less m6rec": values.mean(0) - own.mean(),
            "low": low,
            "high": high,
        }
    )
    table = table.sort(pl.col("order").replace_strict({n: i for i, n in enumerate(methods(0))}))
    with pl.Config(**common.TABLE):
        print(f"\n## ablation, NDCG@{given.k}, validation slice: {len(values):,} users, {int(warm.sum()):,} warm\n")
        print(table, flush=True)
    return table


def main() -> None:
    """Load, build as of the validation slice, print."""
    given = common.arguments(__doc__ or "").parse_args()
    with common.database(given) as con:
        figures(con, given)


if __name__ == "__main__":
    main()
