"""One writer and many reader threads on one file, for minutes.

    python tests/trust/soak.py --seconds 600        (make soak, make soak SECONDS=60)

The writer adds events and feedback, shows lists and logs them, loads, builds, reweights, rolls back, publishes and
makes copies, one after the other. The readers ask for lists over cursors of their own. Every answer must be of one
build and one version of the strategy weights; after each change of version the readers stop for a moment, the same
questions are asked by one thread alone, and every answer to them, from before or after, must be that one. Resident
size is taken while all wait; it is the median of the first and of the last fifth after the warm-up (a quarter of the
time).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import polars as pl  # noqa: E402
import shop_world as world  # noqa: E402

import m6rec_udf as m6  # noqa: E402

LAST = datetime(2024, 7, 20)  # questions with an answer that new behaviour does not change are asked as of then
ASKED = world.USERS[::5]
RARE = ("trim", "build", "reweight", "build", "rollback", "publish", "snapshot")  # one of them every so many operations
RARELY = 20
KEPT = 1000  # rows that the writer leaves in each log, so that the file does not grow
MOST_GROWTH = 0.05
LISTS = {
    "recommend": "from m6.recommend($user, k := 10)",
    "in_domain": "from m6.recommend($user, k := 10, in_domain := 'books', diversity := 0.3)",
    "among": "from m6.recommend($user, k := 10, among := 'picked', boosts := 'margin')",
    "serve": "from m6.serve($user, k := 10)",
    "recommend_many": "from m6.recommend_many('few', k := 10)",
    "similar_items": "from m6.similar_items('i09', k := 5)",
    "search_items": "from m6.search_items('drama about topic3', k := 5)",
    "history": "from m6.history($user)",
}
SAME = "select item_id, round(score, 6), model_version, policy_version "
SAME += f"from m6.recommend($user, until := timestamp '{LAST}')"


class Soak:
    """The file, its threads, and what they have seen."""

    def __init__(self, path: Path, seconds: float, readers: int, seed: int) -> None:
        self.path, self.seconds, self.seed, self.readers = path, seconds, seed, readers
        self.stop = threading.Event()
        self.gate = threading.Condition()
        self.pausing = threading.Lock()
        self.is_paused, self.busy = False, 0
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.answers: dict[tuple[Any, ...], Any] = {}
        self.compared = 0
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self.sizes: list[tuple[float, int]] = []
        self.versions: set[tuple[int, int]] = set()

    # readers

    def read(self, number: int) -> None:
        chance = random.Random(self.seed + number)
        with self.con.cursor() as cursor:
            while not self.stop.is_set():
                with self._let_in():
                    if self.stop.is_set():
                        return
                    kind = chance.choice(["same", *LISTS])
                    user = chance.choice(ASKED if kind == "same" else [*world.USERS, *world.UNKNOWN])
                    try:
                        self._ask(cursor, kind, user)
                    except Exception as error:
                        self._note(self.errors, f"{kind}: {type(error).__name__}: {error}")

    def _ask(self, cursor: Any, kind: str, user: str) -> None:
        if kind == "same":
            self._compare(user, world.rows(cursor, SAME, {"user": user}))
        else:
            sql = LISTS[kind]
            result = cursor.execute(sql, {"user": user} if "$user" in sql else {})
            columns = [column[0] for column in result.description]
            rows = result.fetchall()
            found = dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {name: () for name in columns}
            versions = {"model_version", "policy_version"} & set(columns)
            if any(len(set(found[name])) != 1 for name in versions):
                self._note(self.wrong, f"{kind} for {user}: mixed versions")
            if kind == "recommend_many":
                if len(rows) != 50:
                    self._note(self.wrong, f"recommend_many: {len(rows)} rows")
            elif versions and sorted(found["rank"]) != list(range(1, 11)):
                self._note(self.wrong, f"{kind} for {user}: ranks {found['rank']}")
        with self.lock:
            self.asked[kind] += 1

    def _compare(self, user: str, rows: list[tuple[Any, ...]]) -> None:
        """All answers to one question under one pair of versions are one."""
        versions = {row[2:] for row in rows}
        if len(versions) != 1:
            self._note(self.wrong, f"{user}: mixed versions {versions}")
            return
        [pair] = versions
        listed = [row[:2] for row in rows]
        with self.lock:
            self.compared += 1
            self.versions.add(pair)
            if self.answers.setdefault((*pair, user), listed) != listed:
                self.wrong.append(f"{user}: two answers under {pair}")

    def _note(self, where: list[str], text: str) -> None:
        with self.lock:
            where.append(text)

    # one thread alone

    @contextmanager
    def _let_in(self) -> Any:
        with self.gate:
            self.gate.wait_for(lambda: not self.is_paused)
            self.busy += 1
        try:
            yield
        finally:
            with self.gate:
                self.busy -= 1
                self.gate.notify_all()

    def alone(self, do: Callable[[], None]) -> None:
        """Do something while all others wait, each after its operation."""
        with self.pausing:
            with self.gate:
                self.is_paused = True
                self.gate.wait_for(lambda: self.busy == 0)
            try:
                do()
            finally:
                with self.gate:
                    self.is_paused = False
                    self.gate.notify_all()

    def ask_alone(self) -> None:
        """The questions whose answer new behaviour does not change."""
        for user in ASKED:
            self._compare(user, world.rows(self.con, SAME, {"user": user}))

    # the writer

    def write(self) -> None:
        chance, turn = random.Random(self.seed), 0
        while not self.stop.is_set():
            turn += 1
            kind = chance.choice(["event", "feedback", "shown", "load"])
            if turn % RARELY == 0:
                kind = RARE[turn // RARELY % len(RARE)]
            try:
                with self._let_in():
                    getattr(self, f"_{kind}")(chance, turn)
                self.written[kind] += 1
                if kind in ("build", "reweight", "rollback"):
                    self.alone(self.ask_alone)
            except Exception as error:
                self._note(self.errors, f"writer, {kind}: {type(error).__name__}: {error}")
            time.sleep(0.02)

    def _event(self, chance: random.Random, turn: int) -> None:
        self.con.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) values (?, ?, 'view', ?)",
            [chance.choice(world.USERS), chance.choice(world.ITEMS), LAST + timedelta(days=1, seconds=turn)],
        )

    def _feedback(self, chance: random.Random, turn: int) -> None:
        self.con.execute(
            "insert or ignore into m6.feedback by name select impression_id || '-f' as feedback_id, impression_id, "
            "'purchase' as event_type from m6.impressions order by shown_at desc, impression_id limit 3"
        )

    def _shown(self, chance: random.Random, turn: int) -> None:
        self.con.execute(
            "insert into m6.impressions by name from m6.serve(?, k := 10, request := ?)",
            [chance.choice(world.USERS), f"t{turn}"],
        )

    def _load(self, chance: random.Random, turn: int) -> None:
        rows = {
            "user_id": [chance.choice(world.USERS) for _ in range(20)],
            "item_id": [chance.choice(world.ITEMS) for _ in range(20)],
            "event_type": ["purchase"] * 20,
            "happened_at": [LAST + timedelta(days=1, seconds=turn)] * 20,
        }
        m6.load(self.con, events=pl.DataFrame(rows))

    def _build(self, chance: random.Random, turn: int) -> None:
        m6.build(self.con)

    def _reweight(self, chance: random.Random, turn: int) -> None:
        m6.reweight(self.con, parameters={"gate": False})

    def _rollback(self, chance: random.Random, turn: int) -> None:
        [(last,)] = world.rows(
            self.con,
            "select (select max(policy_version) from m6.strategy_weights where policy_version <> "
            "(select policy_version from m6.active)) from m6.active",
        )
        if last is not None:
            m6.rollback(self.con, to=last)

    def _publish(self, chance: random.Random, turn: int) -> None:
        m6.publish(self.con, k=5)

    def _snapshot(self, chance: random.Random, turn: int) -> None:
        m6.snapshot(self.con, self.path.with_name("copy.duckdb"))

    def _trim(self, chance: random.Random, turn: int) -> None:
        """Old rows of the soak's own go, so that what grows is not the data."""
        for table, key, when in (
            ("events", "event_seq", "happened_at"),
            ("feedback", "feedback_seq", "happened_at"),
            ("impressions", "shown_at", "shown_at"),
        ):
            self.con.execute(
                f"delete from m6.{table} where {when} > $last and {key} < "
                f"(select min({key}) from (select {key} from m6.{table} order by {key} desc limit {KEPT}))",
                {"last": LAST},
            )

    # the run

    def run(self) -> None:
        self.con = world.fill(self.path, world.frames())
        self.con.execute("create table few as select user_id from audience limit 5")
        threads = [threading.Thread(target=self.read, args=(n + 1,)) for n in range(self.readers)]
        threads.append(threading.Thread(target=self.write))
        began = time.monotonic()
        for thread in threads:
            thread.start()
        while (now := time.monotonic() - began) < self.seconds:
            self.alone(lambda at=now: self.sizes.append((at, resident())))  # without the memory of running queries
            time.sleep(self.seconds / 60)
        self.stop.set()
        for thread in threads:
            thread.join()
        self.ask_alone()
        self.con.close()

    @property
    def resident(self) -> tuple[float, float, float]:
        """Megabytes in the first and the last fifth after the warm-up, and the growth."""
        warm = [size for at, size in self.sizes if at >= self.seconds / 4]
        fifth = max(len(warm) // 5, 1)
        first, last = statistics.median(warm[:fifth]), statistics.median(warm[-fifth:])
        return first / 1e6, last / 1e6, last / first - 1

    @property
    def failures(self) -> list[str]:
        return self.errors + self.wrong

    def report(self) -> str:
        first, last, growth = self.resident
        lines = [
            f"{self.seconds:.0f} s, {self.readers} readers, {sum(self.asked.values())} queries: "
            + ", ".join(f"{kind} {n}" for kind, n in sorted(self.asked.items())),
            f"writer: {sum(self.written.values())} operations: "
            + ", ".join(f"{kind} {n}" for kind, n in sorted(self.written.items())),
            f"{len(self.versions)} pairs of versions seen, {self.compared} answers compared with those of one thread "
            f"alone, wrong or mixed {len(self.wrong)}, errors {len(self.errors)}",
            f"resident size after the warm-up {first:.0f} MB, at the end {last:.0f} MB ({growth:+.1%})",
        ]
        return "\n".join(lines + [f"FAILED {text}" for text in self.failures[:20]])


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(seconds: float, *, readers: int = 4, seed: int = 0) -> Soak:
    """A whole run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder) / "shop.duckdb", seconds, readers, seed)
        soak.run()
    print(soak.report(), flush=True)
    return soak


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    soak = run(arguments.seconds, readers=arguments.readers, seed=arguments.seed)
    return bool(soak.failures or soak.resident[2] > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
