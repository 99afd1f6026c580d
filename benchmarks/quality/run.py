"""Ranking quality on a global temporal split: m6rec beside popular, recently popular, item-item and implicit's models.

    python benchmarks/quality/run.py --data movielens
    python benchmarks/quality/run.py --data grocery --budget 300
    python benchmarks/quality/run.py --data ml-100k --path unpacked/recbole/dataset_example/ml-100k
    python benchmarks/quality/run.py --data online-retail --path online_retail_ii

Every setting is chosen on the slice before the split; the test slice is scored once. ALS and BM25 neighbours run when
the package ``implicit`` is installed. Needs the extra ``demo`` for movielens and grocery.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # spinning BLAS threads measure each other

import duckdb
import peers
import polars as pl

import m6rec_udf as m6
from m6rec_udf import datasets

evaluate = m6.evaluate


def load_data(name: str, path: str | None) -> dict[str, pl.DataFrame]:
    """Frames of one data set."""
    if name == "movielens":
        return datasets.movielens()
    if name == "grocery":
        return datasets.grocery()
    if path is None:
        raise SystemExit(f"--data {name} needs --path FOLDER, see benchmarks/quality/README.md")
    return datasets.movielens_100k(path) if name == "ml-100k" else datasets.online_retail(path)


def show(con: duckdb.DuckDBPyConnection, figures: pl.DataFrame, k: int) -> None:
    """Print NDCG with intervals per slice, then the other means, then the paired differences."""
    ndcg = figures.filter(pl.col("metric") == f"ndcg@{k}")
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        float_precision=4,
        tbl_width_chars=200,
    ):
        for label in ("all", "warm", "cold"):
            part = figures.filter(pl.col("slice") == label)
            if part.is_empty():
                continue
            print(f"\n{label}: {part['n'].max():,} users")
            interval = ndcg.filter(pl.col("slice") == label).select("method", ndcg="value", low="low", high="high")
            others = part.filter(
                pl.col("metric").is_in(
                    [f"{m}@{k}" for m in ("recall", "hit_rate", "mrr", "coverage", "novelty", "gini")]
                )
            ).pivot("metric", index="method", values="value")
            seconds = part.filter(pl.col("metric") == "seconds").select("method", seconds="value")
            table = interval.join(others, on="method", how="left")
            if seconds.height:
                table = table.join(seconds, on="method", how="left")
            is_difference = pl.col("method").str.contains(" - ", literal=True)
            print(table.filter(~is_difference).sort("ndcg", descending=True))
            if table.filter(is_difference).height:
                print("paired differences of NDCG (same users)")
                print(table.filter(is_difference).select("method", "ndcg", "low", "high"))


def main() -> None:
    """Load, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, choices=["movielens", "ml-100k", "online-retail", "grocery"])
    parser.add_argument("--protocol", default="temporal", choices=["temporal"])
    parser.add_argument("--path", help="folder of ml-100k or online-retail")
    parser.add_argument("--database", help="DuckDB file to work in (default: one that is thrown away)")
    parser.add_argument("--encoder", help="text encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--budget", type=float, default=120, help="seconds to tune each peer in")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", help="CSV to write the figures to")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(arguments.database or Path(folder) / "bench.duckdb", encoder=arguments.encoder)
        frames: dict[str, Any] = load_data(arguments.data, arguments.path)
        begin = time.perf_counter()
        print(m6.load(con, **frames))
        print(
            f"loaded in {time.perf_counter() - begin:.1f} s; {platform.processor() or platform.machine()}, "
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        others = {}
        if not arguments.no_peers and importlib.util.find_spec("implicit"):
            for name in peers.GRIDS:
                others[name] = peers.tune(con, name, budget=arguments.budget, k=arguments.k)
        begin = time.perf_counter()
        figures = evaluate(con, k=arguments.k, peers=others).pl()
        print(f"evaluated in {time.perf_counter() - begin:.1f} s")
        print(con.execute("select parameters from m6.runs where run_id = $1", [figures["run_id"][0]]).fetchall()[0][0])
        show(con, figures, arguments.k)
        if arguments.out:
            figures.with_columns(data=pl.lit(arguments.data)).write_csv(arguments.out)
        con.close()


if __name__ == "__main__":
    main()
