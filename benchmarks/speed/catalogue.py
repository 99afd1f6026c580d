"""How the time of one query grows with the catalogue, on generated data (not real data).

    python benchmarks/speed/catalogue.py --items 10000 100000 1000000 --events 1000000

The events stay as many, the items grow. Each size is loaded, built (hash encoder, no language model) and asked in a
process of its own, one thread for single calls; the floor (``floor.py``) is measured in turn with ``recommend``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import data
import floor
import numpy as np
from report import in_turn, peak_gb, say, seconds_of

import m6rec_udf as m6
from m6rec_udf.arrays import of_version
from m6rec_udf.embed import HashEncoder
from m6rec_udf.registry import context_of


def build(file: str, items: int, events: int) -> None:
    """Generate, load and build one size."""
    con = m6.connect(file, encoder=HashEncoder(384))
    frames = data.make(events, items=items)
    m6.load(con, items=frames["items"], users=frames["users"])
    m6.load(con, events=frames["events"])
    del frames
    took, _ = seconds_of(lambda: m6.build(con))
    say(f"build, {items:,} items", f"{took:.1f} s", f"peak {peak_gb():.2f} GB")
    con.execute("checkpoint")
    con.close()


def ask(file: str, calls: int) -> dict[str, float]:
    """p50 in seconds of single calls, ``recommend`` beside the floor."""
    con = m6.connect(file, encoder=HashEncoder(384))
    version = con.execute("select model_version from m6.active").fetchall()[0][0]
    snapshot = of_version(context_of(con), version)
    sample = f"select user_id from m6.known_users order by hash(user_id), user_id limit {calls + 10}"
    users = [row[0] for row in con.execute(sample).fetchall()]
    items = [snapshot.item_ids[i] for i in np.random.default_rng(0).integers(0, snapshot.n, calls)]
    least = floor.one_call(con, snapshot)
    found = {}
    for name, keys in (("recommend", users), ("similar_items", items)):
        query = f"from m6.{name}(?)"
        lowest, taken = in_turn(least, lambda key, query=query: con.execute(query, [key]).fetchall(), keys)
        found[name], found["floor"] = float(np.median(taken)), float(np.median(lowest))
        say(f"{name} p50", f"{1000 * found[name]:.2f} ms", f"floor {1000 * found['floor']:.2f} ms")
    con.close()
    return found


def main() -> None:
    """Parse the arguments, run, print the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--part", choices=("build", "ask"), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--found", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "build":
        build(given.file, given.items[0], given.events)
        return
    if given.part == "ask":
        Path(given.found).write_text(json.dumps(ask(given.file, given.calls)))
        return
    found = []
    for items in given.items:
        with tempfile.TemporaryDirectory() as folder:
            options = [f"--items={items}", f"--events={given.events}", f"--calls={given.calls}"]
            options += [f"--file={folder}/catalogue.duckdb", f"--found={folder}/found.json"]
            for part, threads in (("build", {}), ("ask", {"OMP_NUM_THREADS": "1"})):
                command = [sys.executable, __file__, f"--part={part}", *options]
                subprocess.run(command, check=True, env={**os.environ, **threads})
            found.append(json.loads(Path(folder, "found.json").read_text()))
    for name in ("recommend", "similar_items", "floor"):
        growth = found[-1][name] / found[0][name]
        say(f"{name}, {given.items[-1]:,} over {given.items[0]:,} items", f"{growth:.2f} x")


if __name__ == "__main__":
    main()
