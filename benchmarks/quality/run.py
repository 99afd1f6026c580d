"""Ranking quality on a global temporal split: m6rec beside baselines and other libraries, in one run.

    python benchmarks/quality/run.py --data movielens
    python benchmarks/quality/run.py --data grocery --budget 300
    python benchmarks/quality/run.py --data ml-100k --path unpacked/recbole/dataset_example/ml-100k
    python benchmarks/quality/run.py --data online-retail --path online_retail_ii
    python benchmarks/quality/run.py --data grocery --also repeats cold-items calibration curve

Every setting of every method is chosen on the slice before the split; the test slice is scored once per figure.
``--also`` adds the other figures from the same build. Needs the extra ``demo`` for movielens and grocery, and
``bench-quality`` for implicit's models (without it EASE and the Markov chain still run).
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from importlib import import_module

import calibration
import cold_items
import common
import curve
import duckdb
import peers
import polars as pl

evaluation = import_module("m6rec_udf.evaluate")
LEAST_BUDGET = 60.0
OTHERS = ("recall", "hit_rate", "mrr", "coverage", "novelty", "gini")


def temporal(
    con: duckdb.DuckDBPyConnection, given: argparse.Namespace, versions: dict[datetime, int], *, repeats: bool = False
) -> pl.DataFrame:
    """Tune the peers, evaluate everybody, print the tables."""
    print(f"\n## {'next purchases, repeats allowed' if repeats else 'discoveries'}", flush=True)
    names = [] if given.no_peers else peers.chosen(given.peers)
    own = common.Built(versions, seed=given.seed, exclude_seen=not repeats)
    if given.budget is None:
        begin = time.perf_counter()
        own.version(con, evaluation.default_as_of(con))
        given.budget = max(LEAST_BUDGET, time.perf_counter() - begin)
    others = peers.tune(con, names, budget=given.budget, k=given.k, repeats=repeats)
    begin = time.perf_counter()
    figures = evaluation.evaluate(con, k=given.k, peers=others, recommender=own, repeats=repeats, seed=given.seed).pl()
    print(f"evaluated in {time.perf_counter() - begin:.1f} s")
    print(con.execute("select parameters from m6.runs where run_id = $1", [figures["run_id"][0]]).fetchall()[0][0])
    metrics = [f"{metric}@{given.k}" for metric in OTHERS]
    common.show(figures, f"ndcg@{given.k}", metrics, ("all", "warm", "cold"))
    return figures.with_columns(data=pl.lit(given.data), repeats=repeats)


def main() -> None:
    """Load, tune, evaluate, print."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument(
        "--budget", type=float, help="processor seconds per peer (default: as m6rec's build, at least 60)"
    )
    parser.add_argument("--repeats", action="store_true", help="next purchases: known items count and stay")
    common.add_peers(parser)
    parser.add_argument("--skip-main", action="store_true", help="only what --also names")
    parser.add_argument("--also", nargs="*", default=[], choices=["repeats", "cold-items", "calibration", "curve"])
    parser.add_argument("--out", help="CSV to write the figures to")
    given = parser.parse_args()
    versions: dict[datetime, int] = {}
    if given.skip_main and given.budget is None:
        given.budget = LEAST_BUDGET
    with common.database(given) as con:
        tables = []
        if not given.skip_main:
            tables.append(temporal(con, given, versions, repeats=given.repeats))
        if "repeats" in given.also:
            tables.append(temporal(con, given, versions, repeats=True))
        if "calibration" in given.also:
            calibration.figures(con, given, versions)
        if "curve" in given.also:
            curve.figures(con, given, versions)
        if "cold-items" in given.also:
            cold_items.figures(con, given, versions)
        if given.out and tables:
            pl.concat(tables).write_csv(given.out)


if __name__ == "__main__":
    main()
