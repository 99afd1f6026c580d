"""Is ``satisfaction`` what it says? Reliability of a build's promises on the test window.

python benchmarks/quality/calibration.py --data movielens
"""

from __future__ import annotations

import argparse
from datetime import datetime
from importlib import import_module

import common
import duckdb
import polars as pl

evaluation = import_module("m6rec_udf.evaluate")
judge = import_module("m6rec_udf.calibration")


def figures(con: duckdb.DuckDBPyConnection, given: argparse.Namespace, versions: dict[datetime, int]) -> pl.DataFrame:
    """Error per group, and the reliability tables of all candidates and of the lists; prints them."""
    as_of = evaluation.default_as_of(con)
    version = common.Built(versions, seed=given.seed).version(con, as_of)
    own = judge.own_window(con, as_of)
    short = judge.calibration(con, as_of=as_of, until=own, version=version, k=given.k).pl()
    errors = judge.calibration(con, as_of=as_of, version=version, k=given.k).pl()
    with pl.Config(**common.TABLE):
        print("\n## calibration of satisfaction (10 bins of equal count)")
        print("\nin a window as long as those the build learned from, groups of 1,000 rows")
        print(short)
        print("\nin the whole test window")
        print(errors)
        for name, table in (("all candidates", "eval_predictions"), ("shown", "eval_shown_predictions")):
            print(f"\nreliability, {name}")
            print(
                con.sql(
                    "select bin, n, predicted, observed, gap from m6.calibration(predictions := $table) "
                    "where group_kind = 'all'",
                    params={"table": table},
                ).pl(),
                flush=True,
            )
    return errors


def main() -> None:
    """Load, build as of the split, print."""
    given = common.arguments(__doc__ or "").parse_args()
    with common.database(given) as con:
        figures(con, given, {})


if __name__ == "__main__":
    main()
