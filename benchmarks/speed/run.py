"""Speed on generated data (not real data), beside the floor and beside implicit's ALS, in one run.

    python benchmarks/speed/run.py --events 100000
    python benchmarks/speed/run.py --events 1000000 10000000 --loads --rebuild
    python benchmarks/speed/run.py --events 100000 --encoder minilm
    python benchmarks/speed/run.py --open shop.duckdb

Every part runs in a process of its own: single calls with one thread, builds and batches with all of them.
The encoder is the hash encoder (no language model) unless ``--encoder minilm``: the figures leave embedding out
(``embedding.py`` measures it). Single calls are held against the floor: one matrix-vector product with top-k, one
LightGBM prediction of 300 rows, one key lookup, measured in turn with what it is compared to, so that whatever else
runs on the machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import data
import duckdb
import floor
import loading
import numpy as np
import peers
from report import Call, in_turn, peak_gb, reset_peak, say, seconds_of

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
SAMPLE = "select user_id from m6.known_users order by hash(user_id), user_id limit "
NEW_SHARE = 0.01  # of the events, before a rebuild


def connected(given: argparse.Namespace) -> duckdb.DuckDBPyConnection:
    """The file of the run."""
    return m6.connect(given.file, encoder=None if given.encoder == "minilm" else HashEncoder(384))


def build(given: argparse.Namespace) -> dict[str, Any]:
    """Generate, load, build; what each took."""
    con = connected(given)
    took = _load(con, given)
    con.execute("checkpoint")
    reset_peak()
    found = _build(con, "build")
    con.close()
    return {"build": found[0], "build_cpu": found[1], "load": took}


def _load(con: duckdb.DuckDBPyConnection, given: argparse.Namespace) -> float:
    frames = data.make(given.events[0], seed=given.seed)
    counts = {name: len(frame) for name, frame in frames.items()}
    print(f"generated data: {counts['events']:,} events, {counts['users']:,} users, {counts['items']:,} items\n")
    if given.loads:
        with tempfile.TemporaryDirectory() as folder:
            loading.measure(frames, Path(folder))
    m6.load(con, items=frames["items"], users=frames["users"])
    took, _ = seconds_of(lambda: m6.load(con, events=frames["events"]))
    if not given.loads:
        say("load, Polars frame of strings", f"{counts['events'] / took:,.0f} /s")
    return took


def _build(con: duckdb.DuckDBPyConnection, name: str) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    before = time.process_time()
    took, report = seconds_of(lambda: m6.build(con))
    processor = time.process_time() - before
    notes = f"{processor:.1f} s of processor time, peak {peak_gb():.2f} GB, {report.rows:,} training rows"
    say(name, f"{took:.2f} s", notes)
    for step, part in report.seconds.items():
        say(f"  {step}", f"{part:.2f} s")
    return took, processor


def rebuild(given: argparse.Namespace) -> dict[str, Any]:
    """One in a hundred new events, the same people and items later, and another build."""
    con = connected(given)
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, value, happened_at) "
        "select user_id, item_id, event_type, value, happened_at + interval 3 day from m6.events "
        "where hash(user_id, item_id, happened_at) % 100000 < ? * 100000",
        [NEW_SHARE],
    )
    con.execute("checkpoint")
    reset_peak()
    found = _build(con, f"rebuild after {NEW_SHARE:.0%} new events")
    con.close()
    return {"rebuild": found[0], "rebuild_cpu": found[1]}


def als(given: argparse.Namespace) -> dict[str, Any]:
    """implicit's ALS on the same events."""
    con = connected(given)
    found = peers.als(con, given.many)
    con.close()
    if found is None:
        say("implicit ALS", "not installed", "pip install 'm6rec[bench-quality]'")
        return {}
    note = f"{peers.FACTORS} factors, {peers.ITERATIONS} iterations, {peers.THREADS} threads, peak"
    say("implicit ALS, fit", f"{found['fit']:.2f} s", f"{note} {found['peak_gb']:.2f} GB")
    say("implicit ALS, recommend-all", f"{found['users_per_second']:,.0f} users/s", "one stage, seen items left out")
    return found


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


def single(given: argparse.Namespace) -> dict[str, Any]:
    """One user, one item, one text at a time, beside the floor; threads; reweighting."""
    con = connected(given)
    version = con.execute("select model_version from m6.active").fetchall()[0][0]
    snapshot = of_version(context_of(con), version)
    users = [row[0] for row in con.execute(SAMPLE + str(int(given.calls) + 10)).fetchall()]
    items = [snapshot.item_ids[i] for i in np.random.default_rng(0).integers(0, snapshot.n, 60)]
    titles = [row[0] for row in con.execute("select title from m6.items order by hash(item_id) limit 60").fetchall()]
    for name, part in floor.one_user(con, snapshot).items():
        say(f"floor: {name}", f"{1000 * part:.2f} ms")
    least = floor.one_call(con, snapshot)
    found: dict[str, Any] = {}

    def against(call: Call, keys: list[str], name: str, other: Call = least, base: str = "floor") -> None:
        lowest, taken = in_turn(other, call, keys)
        (p50, p99), (l50, l99) = np.percentile(taken, [50, 99]), np.percentile(lowest, [50, 99])
        say(f"{name} p50", f"{1000 * p50:.2f} ms", f"{p50 / l50:.2f} x {base} ({1000 * l50:.2f} ms)")
        say(f"{name} p99", f"{1000 * p99:.2f} ms", f"{p99 / l99:.2f} x {base} ({1000 * l99:.2f} ms)")
        found[name] = float(p50)

    recommend = asking(con, "from m6.recommend(?)")
    against(recommend, users, "recommend, k = 10")
    logged = asking(con, "insert into m6.impressions by name from m6.serve(?)")
    against(logged, users, "serve into m6.impressions", recommend, "recommend")
    against(asking(con, "from m6.similar_items(?)"), items, "similar_items")
    against(asking(con, "from m6.search_items(?)"), titles, "search_items, text embedded each time")
    rates = {threads: throughput(con, users, threads) for threads in (1, 8)}
    say("recommend, 1 thread", f"{rates[1]:,.0f} users/s")
    say("recommend, 8 threads", f"{rates[8]:,.0f} users/s", f"{rates[8] / rates[1]:.2f} x one thread")
    con.execute(
        "insert into m6.feedback (impression_id, event_type, happened_at) "
        "select impression_id, 'purchase', shown_at + interval 1 minute from m6.impressions "
        "where hash(impression_id) % 10 = 0"
    )
    took, _ = seconds_of(lambda: m6.reweight(con))
    shown = con.execute("select count(*) from m6.impressions").fetchall()[0][0]
    say("reweight", f"{took:.2f} s", f"{shown:,} impressions, peak of the whole part {peak_gb():.2f} GB")
    con.execute("checkpoint")
    con.close()
    return found


def many(given: argparse.Namespace) -> dict[str, Any]:
    """Lists of a sample of users, set-wise."""
    con = connected(given)
    con.execute(f"create or replace table speed_users as {SAMPLE}{int(given.many)}")
    con.execute("from m6.recommend_many('speed_users') limit 1").fetchall()  # the version is in memory
    reset_peak()
    took, table = seconds_of(lambda: con.sql("from m6.recommend_many('speed_users')").to_arrow_table())
    served = len(table["user_id"].unique())
    version = con.execute("select model_version from m6.active").fetchall()[0][0]
    batch = floor.many_users(of_version(context_of(con), version))
    say("recommend_many", f"{served / took:,.0f} users/s", f"{took / served / batch:.1f} x floor, {peak_gb():.2f} GB")
    say("floor: a batch", f"{1 / batch:,.0f} users/s")
    con.execute("drop table speed_users")
    con.close()
    return {"many": served / took}


def start(given: argparse.Namespace) -> dict[str, Any]:
    """A new process: import, open, first answer."""
    con = connected(given)
    user = con.execute(SAMPLE + "1").fetchall()[0][0]
    con.close()
    say("file", f"{Path(given.file).stat().st_size / 1e6:,.0f} MB")
    light = [sys.executable, "-c", "import m6rec_udf"]
    bare = [sys.executable, "-c", "pass"]
    importing = [seconds_of(lambda c=c: subprocess.run(c, check=True))[0] for c in (bare, light) for _ in range(3)]
    say("import m6rec_udf", f"{np.median(importing[3:]) - np.median(importing[:3]):.2f} s", "the interpreter left out")
    command = [sys.executable, "-c", COLD, given.file, given.encoder, user]
    cold = [seconds_of(lambda: subprocess.run(command, check=True, capture_output=True))[0] for _ in range(3)]
    say("cold start: new process, open, first answer", f"{np.median(cold):.2f} s", "median of 3, interpreter included")
    return {"cold": float(np.median(cold))}


PARTS = {"build": build, "als": als, "single": single, "many": many, "start": start, "rebuild": rebuild}


def part(name: str, given: argparse.Namespace, events: int, file: str) -> dict[str, Any]:
    """Run one part in a process of its own; what it found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if name == "single" else dict(os.environ)
    with tempfile.NamedTemporaryFile(suffix=".json") as found:
        options = [f"--{key}={getattr(given, key)}" for key in ("calls", "many", "encoder", "seed")]
        options += ["--loads"] if given.loads else []
        command = [sys.executable, __file__, "--part", name, "--file", file, "--found", found.name, *options]
        subprocess.run([*command, "--events", str(events)], check=True, env=environment)
        return dict(json.loads(Path(found.name).read_text()))


def load() -> str:
    """The machine's load over 1, 5 and 15 minutes."""
    return ", ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def one_size(given: argparse.Namespace, events: int) -> dict[str, Any]:
    """Every part on one file; ratios to ALS where it is there."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = given.existing or f"{folder}/speed.duckdb"
        names = ["als", "many", "single", "start"]
        names = (names if given.existing else ["build", *names]) + (["rebuild"] if given.rebuild else [])
        for name in names:
            found |= part(name, given, events, file)
    if "fit" in found:
        if "build" in found:
            say("build over ALS's fit", f"{found['build'] / found['fit']:.1f} x")
        say("recommend_many over ALS's rate", f"{found['many'] / found['users_per_second']:.2f} x")
    if "rebuild" in found and "build" in found:
        processor = f"{found['rebuild_cpu'] / found['build_cpu']:.2f} x by processor time"
        say("rebuild over build", f"{found['rebuild'] / found['build']:.2f} x", processor)
    print(f"load {load()}\n")
    return found


def exponents(sizes: list[int], found: list[dict[str, Any]]) -> None:
    """Slope of log cost over log events, between all sizes."""
    for name in ("load", "build", "rebuild", "recommend, k = 10", "cold"):
        if all(name in own for own in found):
            slope = np.polyfit(np.log(sizes), np.log([own[name] for own in found]), 1)[0]
            say(f"{name}: exponent in events", f"{slope:.2f}")


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000], help="one size or several, one by one")
    parser.add_argument("--calls", type=int, default=200, help="single calls to time")
    parser.add_argument("--many", type=int, default=20_000, help="users of recommend_many and of ALS's recommend-all")
    parser.add_argument("--encoder", choices=("hash", "minilm"), default="hash")
    parser.add_argument("--open", dest="existing", help="serve from an existing built file instead (writes to it)")
    parser.add_argument("--loads", action="store_true", help="load every kind of input")
    parser.add_argument("--rebuild", action="store_true", help="build once more after 1 %% new events")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--found", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        Path(given.found).write_text(json.dumps(PARTS[given.part](given)))
        return
    print(f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, {os.cpu_count()} cores, load {load()}")
    print(
        "encoder: "
        + ("all-MiniLM-L6-v2" if given.encoder == "minilm" else "hash encoder of 384 dimensions, no language model")
    )
    found = [one_size(given, events) for events in given.events]
    if len(found) > 1:
        exponents(given.events, found)


if __name__ == "__main__":
    main()
