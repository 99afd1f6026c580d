"""Speed on generated data (not real data), beside the floor measured in the same run.

    python benchmarks/speed/run.py --events 100000
    python benchmarks/speed/run.py --events 1000000 10000000
    python benchmarks/speed/run.py --events 100000 --encoder minilm
    python benchmarks/speed/run.py --open shop.duckdb

The encoder is the hash encoder (no language model) unless ``--encoder minilm``: the figures leave embedding out.
Ratios are against the floor: one matrix-vector product with top-k, one LightGBM prediction of 300 rows, one key lookup,
measured in turn with what it is compared to, so that whatever else runs on the machine slows both.
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
from concurrent.futures import ThreadPoolExecutor
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
con = m6.connect(sys.argv[1], encoder=None if sys.argv[2] == "minilm" else HashEncoder(384))
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


Call = Callable[[str], Any]


def in_turn(first: Call, second: Call, keys: list[str], *, warm: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of two calls for each key, one after the other, after a warm-up."""
    for key in keys[:warm]:
        first(key)
        second(key)
    pairs = [
        (seconds_of(lambda key=key: first(key))[0], seconds_of(lambda key=key: second(key))[0]) for key in keys[warm:]
    ]
    return tuple(np.asarray(pairs).T)  # type: ignore[return-value]


def asking(con: duckdb.DuckDBPyConnection, query: str) -> Call:
    """A call that runs the query for a key and reads its rows."""
    return lambda key: con.execute(query, [key]).fetchall()


def throughput(con: duckdb.DuckDBPyConnection, users: list[str], threads: int) -> float:
    """Lists per second of so many threads, each with a cursor of its own."""
    cursors = [con.cursor() for _ in range(threads)]
    parts = [users[at::threads] for at in range(threads)]

    def work(cursor: duckdb.DuckDBPyConnection, own: list[str]) -> None:
        for user in own:
            cursor.execute("from m6.recommend(?)", [user]).fetchall()

    with ThreadPoolExecutor(threads) as pool:
        took, _ = seconds_of(lambda: list(pool.map(work, cursors, parts)))
    for cursor in cursors:
        cursor.close()
    return len(users) / took


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
    titles = [row[0] for row in con.execute("select title from m6.items order by hash(item_id) limit 60").fetchall()]

    for name, part in floor.one_user(con, snapshot).items():
        say(f"floor: {name}", f"{1000 * part:.2f} ms")
    print()
    least = floor.one_call(con, snapshot)

    def against(call: Call, keys: list[str], name: str, other: Call = least, base: str = "floor") -> None:
        lowest, taken = in_turn(other, call, keys)
        (p50, p99), (l50, l99) = np.percentile(taken, [50, 99]), np.percentile(lowest, [50, 99])
        say(f"{name} p50", f"{1000 * p50:.2f} ms", f"{p50 / l50:.2f} x {base} ({1000 * l50:.2f} ms)")
        say(f"{name} p99", f"{1000 * p99:.2f} ms", f"{p99 / l99:.2f} x {base} ({1000 * l99:.2f} ms)")

    recommend = asking(con, "from m6.recommend(?)")
    against(recommend, users, "recommend, k = 10")
    logged = asking(con, "insert into m6.impressions by name from m6.serve(?)")
    against(logged, users, "serve into m6.impressions", recommend, "recommend")
    against(asking(con, "from m6.similar_items(?)"), items, "similar_items")
    against(asking(con, "from m6.search_items(?)"), titles, "search_items, text embedded each time")
    rates = {threads: throughput(con, users, threads) for threads in (1, 8)}
    say("recommend, 1 thread", f"{rates[1]:,.0f} users/s")
    say("recommend, 8 threads", f"{rates[8]:,.0f} users/s", f"{rates[8] / rates[1]:.2f} x one thread")

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
    light = [sys.executable, "-c", "import m6rec_udf"]
    bare = [sys.executable, "-c", "pass"]
    importing = [seconds_of(lambda c=c: subprocess.run(c, check=True))[0] for c in (bare, light) for _ in range(3)]
    say("import m6rec_udf", f"{np.median(importing[3:]) - np.median(importing[:3]):.2f} s", "the interpreter left out")
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
    parser.add_argument("--events", type=int, nargs="+", default=[100_000], help="one size or several, one by one")
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
        + ("all-MiniLM-L6-v2" if given.encoder == "minilm" else "hash encoder of 384 dimensions, no language model")
    )
    encoder = None if given.encoder == "minilm" else HashEncoder(384)
    for events in given.events:
        with tempfile.TemporaryDirectory() as folder:
            path = given.existing or f"{folder}/speed.duckdb"
            con = m6.connect(path, encoder=encoder)
            if not given.existing:
                fill(con, events, given.seed)
            measure(con, path, given.encoder, given.calls, given.many)
        print()
    print(f"load at the end {load()}")


if __name__ == "__main__":
    main()
