"""What the quality benchmarks share: data sets, m6rec's lists from one build, printed tables."""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # spinning BLAS threads measure each other

import duckdb
import polars as pl

import m6rec_udf as m6
from m6rec_udf import datasets

DATA = ("movielens", "ml-100k", "online-retail", "grocery")
TABLE = {
    "tbl_rows": -1,
    "tbl_cols": -1,
    "tbl_hide_dataframe_shape": True,
    "tbl_hide_column_data_types": True,
    "float_precision": 4,
    "tbl_width_chars": 200,
    "fmt_str_lengths": 60,
    "tbl_formatting": "ASCII_MARKDOWN",
}


def arguments(about: str, data: str | None = None) -> argparse.ArgumentParser:
    """The options every benchmark takes; ``data`` is the data set of those that run on one only."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data is None:
        parser.add_argument("--data", required=True, choices=DATA)
    else:
        parser.set_defaults(data=data)
    parser.add_argument("--path", help="folder of ml-100k or online-retail")
    parser.add_argument("--loaded", help="a DuckDB file that holds the data (and text vectors) already; it is copied")
    parser.add_argument("--encoder", help="text encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def add_peers(parser: argparse.ArgumentParser) -> None:
    """The options that say which other libraries run beside m6rec."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--peers", nargs="+", metavar="NAME", help="only these of the others (default: all here)")
    which.add_argument("--no-peers", action="store_true", help="m6rec and the baselines only")


def load_data(name: str, path: str | None) -> dict[str, pl.DataFrame]:
    """Frames of one data set."""
    if name == "movielens":
        return datasets.movielens()
    if name == "grocery":
        return datasets.grocery()
    if path is None:
        raise SystemExit(f"--data {name} needs --path FOLDER, see benchmarks/quality/README.md")
    return datasets.movielens_100k(path) if name == "ml-100k" else datasets.online_retail(path)


@contextmanager
def database(given: argparse.Namespace) -> Iterator[duckdb.DuckDBPyConnection]:
    """A scratch file with the data in it; thrown away at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.duckdb"
        if given.loaded:
            shutil.copy(given.loaded, path)
        con = m6.connect(path, encoder=given.encoder)
        try:
            if not given.loaded:
                begin = time.perf_counter()
                print(m6.load(con, **load_data(given.data, given.path)))
                print(f"loaded in {time.perf_counter() - begin:.1f} s")
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
            yield con
        finally:
            con.close()


class Built:
    """m6rec's lists, in the form evaluation takes; builds once per moment and keeps the version for further questions.

    Attributes:
        versions: model_version by moment, shared by those who ask about the same database.
        options: arguments of ``m6.slates``: k, diversity, among, exclude_seen.
    """

    def __init__(self, versions: dict[datetime, int] | None = None, *, seed: int = 0, **options: Any) -> None:
        self.versions = {} if versions is None else versions
        self.seed, self.options = seed, options

    def version(self, con: duckdb.DuckDBPyConnection, as_of: datetime) -> int:
        """The build as of a moment."""
        if as_of not in self.versions:
            begin = time.perf_counter()
            report = m6.build(con, as_of=as_of, seed=self.seed, activate=False)
            self.versions[as_of] = report.model_version
            print(f"built as of {as_of} in {time.perf_counter() - begin:.0f} s", flush=True)
        return self.versions[as_of]

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        options = {"exclude_seen": True, "until": as_of, "version": self.version(con, as_of)} | self.options
        named = ", ".join(f"{name} := ${name}" for name in options)
        return con.sql(
            f"select user_id, item_id, rank from m6.slates($users, k := $k, {named})",
            params={"users": [str(u) for u in users["user_id"].to_pylist()], "k": k, **options},
        ).to_arrow_table()


def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of an evaluation as a frame."""
    return pl.DataFrame(rows, schema=["method", "slice", "metric", "value", "low", "high", "n"], orient="row")


def show(figures: pl.DataFrame, metric: str, others: list[str], labels: tuple[str, ...] = ("all",)) -> None:
    """Print per slice one metric with its interval and the means of others, then m6rec's paired differences."""
    with pl.Config(**TABLE):
        for label in labels:
            part = figures.filter(pl.col("slice") == label)
            if part.is_empty():
                continue
            print(f"\n{label}: {part['n'].max():,} users")
            main = part.filter(pl.col("metric") == metric)
            table = main.select("method", pl.col("value").alias(metric), "low", "high")
            wide = part.filter(pl.col("metric").is_in(others))
            if wide.height:
                table = table.join(wide.pivot("metric", index="method", values="value"), on="method", how="left")
            is_difference = pl.col("method").str.contains(" - ", literal=True)
            print(table.filter(~is_difference).sort(metric, "method", descending=[True, False]))
            differences = table.filter(is_difference).select("method", metric, "low", "high")
            if differences.height:
                print(f"\npaired differences of {metric} (same users)")
                print(differences, flush=True)
