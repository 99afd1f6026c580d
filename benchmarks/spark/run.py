"""How the build grows on Spark: the models, the histories and the lists on generated data, in local mode.

    python benchmarks/spark/run.py --events 1000000 5000000 20000000 --cores 1 2
    python benchmarks/spark/run.py --events 1000000 --cores 2 --build          # the whole build, with the driver's part
    python benchmarks/spark/run.py --events 1000000 --cores 2 --skew 1000000   # one user and one item with so many more

Generated data (benchmarks/speed/data.py), hash encoder: embedding is left out. Every size runs in a process of its
own. Seconds of tasks, shuffles and their sizes are those of Spark's event log.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent / "speed")]
SHOWN = (
    "m6_events",
    "stg_users",
    "stg_items",
    "stg_events",
    "feat_user_item",
    "feat_item_activity",
    "feat_item_transitions",
    "feat_segment_item",
    "histories_by_number",
    "packed_histories",
)
# places of histories that co-visitation reads, and pairs of places up to eight apart: see feat_item_transitions
PLACES = """
with pairs as (
    select user_idx, count(*) as items from read_parquet('{}/*.parquet') where interest > 0 group by user_idx
),
read as (
    select least(items, floor(least(200, greatest(5, 2500000 / (select count(*) from pairs))))) as places from pairs
)
select
    count(*), sum(places), sum(list_sum(list_transform(range(1, 9), lambda distance: greatest(places - distance, 0))))
from read
"""


def foretold(events: float, places: float, steps: float) -> tuple[float, float]:
    """(processor seconds, MB shuffled) of staging, features of one moment and histories: the formula of docs/spark.md.

    All three in millions.
    """
    once, moment = 6.1 * events, 10.0 * events + 15.5 * places + 3.9 * steps
    return once + moment, 22 * events + 120 * events + 480 * places


def make(given: argparse.Namespace) -> None:
    """Write the frames; with ``--skew``, also one user and one item with so many events."""
    import data
    import numpy as np
    import polars as pl

    frames = data.make(given.events[0])
    if given.skew:
        rng = np.random.default_rng(1)
        rows = frames["events"].sample(given.skew, with_replacement=True, seed=1)
        later = pl.Series(rng.integers(0, 10**9, len(rows))).cast(pl.Duration("us"))
        rows = rows.with_columns(pl.col("happened_at") + later)
        of_one, of_all = rows.with_columns(user_id=pl.lit("u1")), rows.with_columns(item_id=pl.lit("i1"))
        frames["events"] = pl.concat([frames["events"], of_one, of_all])
    for name, frame in frames.items():
        frame.write_parquet(Path(given.folder) / f"{name}.parquet")


def session_of(cores: int, memory: int, folder: Path):
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    (folder / "log").mkdir()
    return (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.memory", f"{memory}g")
        .config("spark.sql.shuffle.partitions", "32")
        .config("spark.eventLog.enabled", "true")
        .config("spark.eventLog.compress", "false")
        .config("spark.eventLog.dir", (folder / "log").as_uri())
        .config("spark.local.dir", str(folder))
        .config("spark.sql.warehouse.dir", str(folder / "tables"))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )


def run_models(session, given: argparse.Namespace, folder: Path) -> None:
    """Staging, the features that a build reads, and the histories, as of the last behaviour."""
    import m6rec_udf as m6
    from m6rec_udf import models, moment
    from m6rec_udf.embed import HashEncoder
    from m6rec_udf.spark.engine import SparkEngine, isolated
    from m6rec_udf.spark.events import write_events
    from m6rec_udf.spark.histories import write_histories
    from m6rec_udf.spark.tables import Tables

    own = isolated(session)
    tables = Tables(own, folder)
    con = m6.connect(folder / "shop.duckdb", encoder=HashEncoder(64))
    m6.load(con, **{name: f"{given.folder}/{name}.parquet" for name in ("items", "users")})
    for name in ("items", "users", "relations", "event_types", "feedback", "impressions"):
        tables.take(con, f"m6_{name}", f"from m6.{name}")
    write_events(tables, own.read.parquet(f"{given.folder}/events.parquet"), {})
    engine = SparkEngine(own, tables)
    as_of = engine.ask(con, "select max(happened_at) from m6.events")[0]
    bound = moment.parameters(con, as_of, 0.75, ask=engine.ask)
    found = models.with_satisfaction(models.collect(), "graded")
    engine.run(con, found, bound, wanted=moment.READ_BY_SNAPSHOTS | {"stg_events", "stg_items", "stg_users"})
    write_histories(tables, engine.most_history)
    sizes = tables.sizes()
    print("bytes written: " + ", ".join(f"{name} {sizes[name] / 1e6:,.1f} MB" for name in SHOWN))
    events = engine.ask(con, "select count(*) from m6.events")[0]
    users, places, steps = con.execute(PLACES.format(tables.path("feat_user_item"))).fetchall()[0]
    seconds, shuffled = foretold(events / 1e6, places / 1e6, steps / 1e6)
    print(f"{users:,} users with interest, {places / 1e6:.2f} million places, {steps / 1e6:.2f} million steps")
    print(f"the formula of docs/spark.md: {seconds:,.0f} s of processors, {shuffled:,.0f} MB shuffled")


def run_build(session, given: argparse.Namespace, folder: Path) -> None:
    """The whole of m6.spark.build, learned from half of the events, with the lists of all users."""
    import m6rec_udf as m6
    from m6rec_udf.embed import HashEncoder

    report = m6.spark.build(
        session,
        **{name: f"{given.folder}/{name}.parquet" for name in ("events", "items", "users")},
        target=folder / "shop.duckdb",
        encoder=HashEncoder(64),
        with_events=False,
        learn_from=given.learn_from or given.events[0] // 2,
        recommendations=str(folder / "lists"),
        work=folder,
    )
    steps = ", ".join(f"{step} {seconds:,.0f} s" for step, seconds in report.build.seconds.items())
    size = (folder / "shop.duckdb").stat().st_size
    share = f"learned from {report.share:.2f} of the users"
    print(f"{report.lists:,} lines of lists, file of {size / 1e6:,.0f} MB, {share}; {steps}")


def measure(given: argparse.Namespace) -> None:
    import metrics

    warnings.simplefilter("ignore")
    cores = given.cores[0]
    with tempfile.TemporaryDirectory(dir=given.scratch) as name:
        folder = Path(name)
        start = time.perf_counter()
        session = session_of(cores, given.memory, folder)
        started = time.perf_counter() - start
        (run_build if given.build else run_models)(session, given, folder)
        seconds = time.perf_counter() - start - started
        peak, workers = _peak_of_java(), _seconds_of_workers()
        session.stop()
        found = metrics.read(folder / "log")
    own = resource.getrusage(resource.RUSAGE_SELF)
    tasks = sum(sum(table.tasks) for table in found.values())
    shuffled = sum(table.shuffled for table in found.values())
    what = f"{given.events[0]:,} events" + (f" and {given.skew:,} each of one user and one item" if given.skew else "")
    print(
        f"\n{what}, {cores} cores: {seconds:,.0f} s after {started:.0f} s to start; tasks {tasks:,.0f} s, "
        f"of processors {sum(t.cpu for t in found.values()):,.0f} s, of Python's workers {workers:,.0f} s, "
        f"of the driver's Python {own.ru_utime + own.ru_stime:,.0f} s; shuffled {shuffled / 1e6:,.0f} MB, "
        f"spilled {sum(t.spilled for t in found.values()) / 1e6:,.0f} MB; "
        f"peak memory {peak / 1e6:.1f} GB Java, {own.ru_maxrss / 1e6:.1f} GB Python"
    )
    print(f"{'table':<24}{'task s':>9}{'cpu s':>9}{'shuffled MB':>13}{'records':>13}{'longest s':>11}{'skew':>7}")
    names = sorted(found, key=lambda n: -sum(found[n].tasks))
    for name in names:
        t = found[name]
        if sum(t.tasks) > 0.005 * tasks:
            row = f"{sum(t.tasks):>9.1f}{t.cpu:>9.1f}{t.shuffled / 1e6:>13.1f}{t.records:>13,}"
            print(f"{name:<24}{row}{max(t.tasks):>11.1f}{t.skew:>7.1f}")
    sys.stdout.flush()


def _processes() -> dict[int, tuple[str, int, list[str]]]:
    """(name, parent, the fields of /proc/<pid>/stat from the state on) by process number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            name, _, rest = path.read_text().rpartition(")")
            fields = rest.split()
            found[int(path.parent.name)] = (name, int(fields[1]), fields)
    return found


def _peak_of_java() -> int:
    """Peak memory in kB of Spark's Java, a child of this process; 0 where it cannot be told."""
    for number, (name, parent, _) in _processes().items():
        if "java" in name and parent == os.getpid():
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def _seconds_of_workers() -> float:
    """Processor seconds of the Python workers: what Java's children and theirs took, those that ended as well."""
    found = _processes()
    java = {number for number, (name, parent, _) in found.items() if "java" in name and parent == os.getpid()}
    family, more = set[int](), java
    while more:
        more = {number for number, (_, parent, _) in found.items() if parent in more}
        family |= more
    ticks = sum(int(value) for number in family for value in found[number][2][11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--cores", type=int, nargs="+", default=[2])
    parser.add_argument("--skew", type=int, default=0)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--learn-from", type=int, default=0)
    parser.add_argument("--memory", type=int, default=4, help="GB of Spark's Java, driver and executor in one")
    parser.add_argument("--scratch", default=None, help="folder for data and shuffles; default: that of the system")
    parser.add_argument("--step", choices=("make", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        (make if given.step == "make" else measure)(given)
        return
    options = ["--skew", str(given.skew), *(["--build"] if given.build else []), "--learn-from", str(given.learn_from)]
    options += ["--memory", str(given.memory)]
    options += ["--scratch", given.scratch] if given.scratch else []
    for events in given.events:
        with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
            own = [sys.executable, __file__, "--events", str(events), "--folder", folder, *options]
            subprocess.run([*own, "--step", "make"], check=True)
            for cores in given.cores:
                subprocess.run([*own, "--cores", str(cores), "--step", "measure"], check=True)


if __name__ == "__main__":
    main()
