"""Speed on generated data (not real data), beside the floor measured in the same run.

    python benchmarks/speed/run.py --events 100000
    python benchmarks/speed/run.py --events 1000000
    python benchmarks/speed/run.py --events 100000 --encoder minilm
    python benchmarks/speed/run.py --open shop.duckdb

The encoder is the hash encoder (no language model) unless ``--encoder minilm``: the figures leave embedding out.
Ratios are against the floor: one matrix-vector product with top-k, one LightGBM prediction of 300 rows, one key lookup.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import duckdb
import floor
import numpy as np

import m6rec_udf as m6
from m6rec_udf.arrays import of_version
from m6rec_udf.embed import HashEncoder
from m6rec_udf.registry import context_of

COLD = """
import sys, time
import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
con = m6.connect(sys.argv[1], encoder=None if sys.argv[2] == "minilm" else HashEncoder(64))
print(len(con.execute("from m6.recommend(?)", [sys.argv[3]]).fetchall()))
"""


def reset_peak() -> None:
    """Start a new peak of resident memory (Linux)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_gb() -> float:
    """Peak of resident memory since ``reset_peak``, GB; 0 where the system does not say."""
    path = Path("/proc/self/status")
    found = [line for line in path.read_text().splitlines() if line.startswith("VmHWM")] if path.exists() else []
    return int(found[0].split()[1]) / 1e6 if found else 0.0


def say(name: str, figure: str, note: str = "") -> None:
    """One line of the report."""
    print(f"{name:<44}{figure:>18}   {note}", flush=True)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def each(con: duckdb.DuckDBPyConnection, query: str, keys: list[str], *, warm: int = 10) -> np.ndarray:
    """Seconds of the query for each key, after a warm-up."""
    for key in keys[:warm]:
        con.execute(query, [key]).fetchall()
    return np.asarray([seconds_of(lambda key=key: con.execute(query, [key]).fetchall())[0] for key in keys[warm:]])


def fill(con: duckdb.DuckDBPyConnection, events: int, seed: int) -> None:
    """Generate, load, build; print what each took."""
    frames = data.make(events, seed=seed)
    users, items = (len(frames[name]) for name in ("users", "items"))
    print(f"generated data: {events:,} events, {users:,} users, {items:,} items\n")
    reset_peak()
    took, _ = seconds_of(lambda: m6.load(con, items=frames["items"], users=frames["users"]))
    say("load items and users", f"{took:.2f} s")
    took, _ = seconds_of(lambda: m6.load(con, events=frames["events"]))
    say("load events, Polars frame of strings", f"{len(frames['events']) / took:,.0f} /s", f"peak {peak_gb():.2f} GB")
    reset_peak()
    took, report = seconds_of(lambda: m6.build(con))
    say("build", f"{took:.2f} s", f"peak {peak_gb():.2f} GB, {report.rows:,} training rows")
    for step, part in report.seconds.items():
        say(f"  {step}", f"{part:.2f} s")


def measure(con: duckdb.DuckDBPyConnection, path: str, encoder: str, calls: int, many: int) -> None:
    """Serving beside the floor."""
    version = con.execute("select model_version from m6.active").fetchall()[0][0]
    snapshot = of_version(context_of(con), version)
    sample = "select user_id from m6.known_users order by hash(user_id), user_id limit "
    users = [row[0] for row in con.execute(sample + str(int(calls) + 10)).fetchall()]
    items = [snapshot.item_ids[i] for i in np.random.default_rng(0).integers(0, snapshot.n, 60)]

    parts = floor.one_user(con, snapshot)
    least = sum(parts.values())
    print()
    for name, part in parts.items():
        say(f"floor: {name}", f"{1000 * part:.2f} ms")
    say("floor: one user", f"{1000 * least:.2f} ms")

    def against(taken: np.ndarray, name: str) -> float:
        p50, p99 = np.percentile(taken, [50, 99])
        say(f"{name} p50", f"{1000 * p50:.2f} ms", f"{p50 / least:.1f} x floor")
        say(f"{name} p99", f"{1000 * p99:.2f} ms", f"{p99 / least:.1f} x floor")
        return float(p50)

    print()
    single = against(each(con, "from m6.recommend(?)", users), "recommend, k = 10")
    logged = "insert into m6.impressions by name from m6.serve(?)"
    p50 = against(each(con, logged, users), "serve into m6.impressions")
    say("serve with logging over recommend", f"{p50 / single:.2f} x")
    against(each(con, "from m6.similar_items(?)", items), "similar_items")

    con.execute(f"create or replace table speed_users as {sample}{int(many)}")
    reset_peak()
    took, rows = seconds_of(lambda: con.execute("from m6.recommend_many('speed_users')").fetchall())
    served = len({row[0] for row in rows})
    batch = floor.many_users(snapshot)
    say(
        "recommend_many",
        f"{served / took:,.0f} users/s",
        f"{took / served / batch:.1f} x floor, peak {peak_gb():.2f} GB",
    )
    say("floor: a batch", f"{1 / batch:,.0f} users/s")

    con.execute(
        "insert into m6.feedback (impression_id, event_type, happened_at) "
        "select impression_id, 'purchase', shown_at + interval 1 minute from m6.impressions "
        "where hash(impression_id) % 10 = 0"
    )
    took, _ = seconds_of(lambda: m6.reweight(con))
    shown = con.execute("select count(*) from m6.impressions").fetchall()[0][0]
    say("reweight", f"{took:.2f} s", f"{shown:,} impressions")

    con.execute("checkpoint")
    con.close()
    say("file", f"{Path(path).stat().st_size / 1e6:,.0f} MB")
    command = [sys.executable, "-c", COLD, path, encoder, users[0]]
    cold = [seconds_of(lambda: subprocess.run(command, check=True, capture_output=True))[0] for _ in range(3)]
    say(
        "cold start: new process, open, first answer",
        f"{np.median(cold):.2f} s",
        "median of 3, the interpreter included",
    )


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=200, help="single calls to time")
    parser.add_argument("--many", type=int, default=2_000, help="users of recommend_many")
    parser.add_argument("--encoder", choices=("hash", "minilm"), default="hash")
    parser.add_argument("--open", dest="existing", help="serve from an existing built file instead (writes to it)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    def load() -> str:
        return ", ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"

    print(f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, {os.cpu_count()} cores, load {load()}")
    print(
        "encoder: "
        + ("all-MiniLM-L6-v2" if given.encoder == "minilm" else "hash encoder of 64 dimensions, no language model")
    )
    encoder = None if given.encoder == "minilm" else HashEncoder(64)
    with tempfile.TemporaryDirectory() as folder:
        path = given.existing or f"{folder}/speed.duckdb"
        con = m6.connect(path, encoder=encoder)
        if not given.existing:
            fill(con, given.events, given.seed)
        measure(con, path, given.encoder, given.calls, given.many)
    print(f"load at the end {load()}")


if __name__ == "__main__":
    main()
