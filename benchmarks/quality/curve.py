"""What diversity costs: accuracy beside coverage, novelty and concentration at several values of ``diversity``.

python benchmarks/quality/curve.py --data movielens
"""

from __future__ import annotations

import argparse
from datetime import datetime
from importlib import import_module

import common
import duckdb
import polars as pl

evaluation = import_module("m6rec_udf.evaluate")
DIVERSITY = (0.0, 0.1, 0.2, 0.3, 0.5)


def figures(con: duckdb.DuckDBPyConnection, given: argparse.Namespace, versions: dict[datetime, int]) -> pl.DataFrame:
    """One row per diversity, beside recently popular; prints the table."""
    methods = {
        f"diversity {value:g}": common.Built(versions, seed=given.seed, diversity=value) for value in DIVERSITY[1:]
    }
    own = common.Built(versions, seed=given.seed)
    found = evaluation.evaluate(
        con, k=given.k, recommender=own, peers=methods, methods=("recently_popular",), seed=given.seed
    ).pl()
    wanted = [f"{m}@{given.k}" for m in ("ndcg", "recall", "coverage", "novelty", "gini")]
    table = (
        found.filter(pl.col("slice") == "all", pl.col("metric").is_in(wanted), ~pl.col("method").str.contains(" - "))
        .pivot("metric", index="method", values="value")
        .select("method", *wanted)
        .with_columns(method=pl.col("method").replace("m6rec", "diversity 0"))
        .sort("method")
    )
    base = table.filter(pl.col("method") == "recently_popular")[f"coverage@{given.k}"][0]
    table = table.with_columns((pl.col(f"coverage@{given.k}") / base).alias("coverage / recently popular"))
    with pl.Config(**common.TABLE):
        print("\n## accuracy and coverage, all test users\n")
        print(table, flush=True)
    return table


def main() -> None:
    """Load, build as of the split, print."""
    given = common.arguments(__doc__ or "").parse_args()
    with common.database(given) as con:
        figures(con, given, {})


if __name__ == "__main__":
    main()
