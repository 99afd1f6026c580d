"""What a build loses that takes its factors from MLlib's ALS, as where the driver holds a share of the users only.

    python benchmarks/spark/als.py --data movielens
    python benchmarks/spark/als.py --data online-retail --path FOLDER

Two builds as of the beginning of the validation slice, equal but for the factors: the SVD in one process, and
``spark/factors.py`` over the same pairs. NDCG of the strategy alone (unseen items of the whole catalogue by its score)
and of the whole list, with paired intervals over users. The test slice is not touched.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent / "quality")]

import common
import numpy as np
import polars as pl
import pyarrow as pa
import run

from m6rec_udf import builder
from m6rec_udf.candidates import Scores
from m6rec_udf.engine import InDuckDB
from m6rec_udf.history import Profile
from m6rec_udf.intervals import bootstrap
from m6rec_udf.registry import context_of
from m6rec_udf.spark.factors import FactorsFromSpark

evaluation = import_module("m6rec_udf.evaluate")
STRATEGY = "matrix_factorization"


@dataclass
class FactorsOfPairs(FactorsFromSpark):
    """ALS over the pairs that the build holds in memory."""

    def factors(self, x: Any) -> Any:
        assert self.session is not None
        begin, pairs = time.process_time(), x.tocoo()
        rows = {"user_idx": pairs.row.astype(np.int32), "item_idx": pairs.col.astype(np.int32)}
        frame = pa.table(rows | {"interest": np.ones(x.nnz)})
        self.session.createDataFrame(frame).createOrReplaceTempView("feat_user_item")
        found = super().factors(x)
        print(f"ALS of {x.nnz:,} pairs; {time.process_time() - begin:.0f} s of this process", flush=True)
        return found


class WithAls(InDuckDB):
    """The models in DuckDB, the factors by Spark."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def item_models(self, chosen: Any, items: Any, text: Any, *, has_weights: bool = True) -> Any:
        return FactorsOfPairs(chosen, items, text, has_weights=has_weights, session=self.session)


class _Kept(builder._Build):
    """A build that keeps its snapshot and its log."""

    def _commit(self, snapshot: Any, extra: list[str], *, activate: bool) -> int:
        self.snapshot = snapshot
        return super()._commit(snapshot, extra, activate=activate)


class Kind:
    """One build and its two ways to answer, in the form evaluation takes."""

    def __init__(self, engine: Any, seed: int) -> None:
        self.engine, self.seed = engine, seed
        self.built: Any = None
        self.version = -1

    def fill(self, con: Any, as_of: datetime) -> None:
        if self.built is None:
            work = con.cursor()
            self.built = _Kept(work, context_of(con), self.seed, None, builder.Clock(None), self.engine)
            self.version = self.built.run(as_of, activate=False).model_version

    def whole(self, con: Any, as_of: datetime, users: Any, k: int) -> Any:
        """The list."""
        self.fill(con, as_of)
        return common.Built({as_of: self.version})(con, as_of, users, k)

    def alone(self, con: Any, as_of: datetime, users: Any, k: int) -> Any:
        """What the strategy says of everything that the user has not touched."""
        self.fill(con, as_of)
        snapshot = self.built.snapshot
        names = [str(user) for user in users["user_id"].to_pylist()]
        known = self.built.con.execute("select user_id from stg_users order by user_idx").fetchall()
        number = {user_id: at for at, (user_id,) in enumerate(known)}
        index = np.asarray([number.get(user, -1) for user in names])
        until = np.nextafter(np.full(len(names), snapshot.settings["as_of"]), np.inf)
        behaviour = self.built.log.before(index, until, snapshot.settings["segments"])
        parts = []
        for start in range(0, len(names), 256):
            profile = Profile(snapshot, behaviour.block(start, min(start + 256, len(names))))
            score = np.round(Scores(snapshot, profile).dense(STRATEGY).astype(np.float64), 9)
            score[:, ~snapshot.is_known] = -np.inf
            score[profile.row, profile.item] = -np.inf
            best = np.argsort(-score, axis=1, kind="stable")[:, :k]
            row, place = np.nonzero(np.take_along_axis(score, best, 1) > 0)
            parts.append((row + start, best[row, place], place + 1))
        row, item, rank = (np.concatenate(part) for part in zip(*parts, strict=True))
        item_ids = snapshot.item_ids
        return pa.table(
            {
                "user_id": pa.array([names[r] for r in row], pa.string()),
                "item_id": pa.array([item_ids[i] for i in item], pa.string()),
                "rank": pa.array(rank),
            }
        )


def figures(con: Any, given: argparse.Namespace, session: Any) -> None:
    """NDCG of either, and what ALS loses; prints the table."""
    svd, als = Kind(InDuckDB(), given.seed), Kind(WithAls(session), given.seed)
    methods = {
        "strategy alone, SVD": svd.alone,
        "strategy alone, ALS": als.alone,
        "whole list, SVD": svd.whole,
        "whole list, ALS": als.whole,
    }
    evaluation.validate(con, methods, k=given.k, seed=given.seed)
    users = con.sql("select user_id, slice from eval_users order by user_id").pl()
    found = con.sql("select method, user_id, ndcg from eval_user_metrics order by all").pl()
    wide = users.join(found.pivot("method", index="user_id", values="ndcg"), on="user_id", how="left")
    for label in ("all", "warm"):
        values = (wide if label == "all" else wide.filter(slice="warm")).select(list(methods)).fill_null(0.0).to_numpy()
        less = values[:, 1::2] - values[:, ::2]
        low, high = bootstrap(less, seed=given.seed)
        table = pl.DataFrame(
            {
                "what": ["strategy alone", "whole list"],
                "SVD": values[:, ::2].mean(0),
                "ALS": values[:, 1::2].mean(0),
                "ALS less SVD": less.mean(0),
                "low": low,
                "high": high,
            }
        )
        with pl.Config(**common.TABLE):
            print(f"\n## NDCG@{given.k}, validation slice, {label}: {len(values):,} users\n")
            print(table, flush=True)


def main() -> None:
    """Load, build twice as of the validation slice, print."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--memory", type=int, default=4, help="GB of Spark's Java")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, common.database(given) as con:
        session = run.session_of(given.cores, given.memory, Path(folder))
        try:
            figures(con, given, session)
        finally:
            session.stop()


if __name__ == "__main__":
    main()
