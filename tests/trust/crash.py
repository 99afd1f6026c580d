"""Kill a process that works on a file, at random moments, and check what it left.

    python tests/trust/crash.py --kills 200 --seed 0        (make crash)

Eight operations take turns: load, serve with logging, feedback, build, reweight, publish, rollback, and migration of a
file of the first release; some files are killed once more while they are opened. A worker tells what it begins and,
after the commit, that it is done. Every kill is SIGKILL. Then another process opens the file: acknowledged rows must be
there exactly once, a batch begun is there as a whole or not at all, versions and lists must be those of before the
operation or those it would have left (found by running it to the end on a copy), and the next operations must succeed.
"""

from __future__ import annotations

import argparse
import lzma
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RELEASED = HERE / "released"
OPERATIONS = ("load", "serve", "feedback", "build", "reweight", "publish", "rollback", "migration")
USUAL = {"build": 1.5, "reweight": 0.3, "publish": 0.2, "migration": 0.3, "reopening": 0.2}  # seconds, until measured
ONCE = ("build", "reweight", "migration", "reopening")  # a worker does it once; the others go on until killed
REOPENED = 4  # every so many kills one more while the file is opened


@dataclass
class Tally:
    """What became of the kills of one operation."""

    kills: int = 0
    outside: int = 0
    recovered: int = 0
    committed: int = 0
    acknowledged: int = 0
    found: int = 0
    into: list[float] = field(default_factory=list)


class Harness:
    """One file, killed again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        paths = [str(HERE), str(HERE.parent), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        sys.path[:0] = [p for p in paths[:2] if p not in sys.path]
        import crash_child

        self.child = crash_child
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["crash_child"])
        self.folder, self.chance = folder, random.Random(seed)
        self.released = lzma.decompress(min(RELEASED.glob("*.duckdb.xz")).read_bytes())
        self.path = folder / "shop.duckdb"
        self.tallies = {name: Tally() for name in (*OPERATIONS, "reopening")}
        self.durations: dict[str, list[float]] = {}
        self.acknowledged: dict[str, set[str]] = {"events": set(), "impressions": set(), "feedback": set()}
        self.expected: dict[tuple[int, int], Any] = {}  # (build, strategy weights): weights and lists
        self.failures: list[str] = []
        self.runs = 0
        self.wrong = 0
        self.answers = 0

    # processes

    def ask(self, target: Any, *arguments: Any) -> Any:
        """What a process of its own finds; None where it failed."""
        own, other = self.context.Pipe(duplex=False)
        process = self.context.Process(target=target, args=(other, *arguments))
        process.start()
        other.close()
        try:
            return own.recv()
        except EOFError:
            return None
        finally:
            own.close()
            process.join()

    def kill(self, operation: str, path: Path) -> tuple[list[tuple[str, float, Any]], float]:
        """Start a worker and kill it at a random moment; what it had told, and when it was killed."""
        own, other = self.context.Pipe(duplex=False)
        process = self.context.Process(target=self.child.work, args=(other, operation, path, self.runs))
        process.start()
        other.close()
        told: list[tuple[str, float, Any]] = []
        try:
            while not told or (operation in ONCE and told[-1][0] != "in"):
                told.append(own.recv())
        except EOFError:
            process.join()
            own.close()
            self.failures.append(f"{operation} (run {self.runs}): the worker failed before it began")
            return told, time.monotonic()
        if operation in ONCE:
            wait = self.chance.uniform(0, 1.05 * self.usual(operation))
        else:
            wait = self.chance.uniform(0.0, 0.6)
        until = told[-1][1] + wait
        while time.monotonic() < until and process.is_alive():
            time.sleep(0.0005)
        at = time.monotonic()
        process.kill()
        process.join()
        try:
            while True:
                told.append(own.recv())
        except (EOFError, OSError):  # the last message may be cut off
            pass
        own.close()
        if process.exitcode not in (-signal.SIGKILL, 0):
            self.failures.append(f"{operation}: the worker ended with {process.exitcode}")
        return told, at

    def usual(self, operation: str) -> float:
        known = self.durations.get(operation)
        return statistics.median(known) if known else USUAL.get(operation, 0.02)

    # the run

    def prepare(self) -> None:
        if self.ask(self.child.start, self.path) is None:
            raise SystemExit("the file could not be prepared")
        self._remember(self.ask(self.child.look, self.path, "", 0, False))
        old = self.folder / "old.duckdb"
        old.write_bytes(self.released)
        self.migrated = self.ask(self.child.look, old, "", 0, False)

    def _remember(self, found: dict[str, Any]) -> None:
        """What the versions in force answer, as an undisturbed process has left them."""
        self.expected |= found["answers"]

    def run(self, kills: int) -> None:
        """So many kills that land inside an operation, evenly over the operations."""
        self.prepare()
        turns = [OPERATIONS[at % len(OPERATIONS)] for at in range(kills)]
        self.chance.shuffle(turns)
        for operation in turns:
            for _ in range(6):
                if self.one(operation):
                    break
            else:
                self.failures.append(f"{operation}: six kills in a row came too late")

    def one(self, operation: str) -> bool:
        """One kill and what follows; whether it landed inside the operation."""
        self.runs += 1
        path = self.path
        if operation == "migration":
            path = self.folder / "old.duckdb"
            for stale in (path, Path(f"{path}.wal")):
                stale.unlink(missing_ok=True)
            path.write_bytes(self.released)
        before = self.folder / "before.duckdb"
        if operation in ("build", "reweight"):
            self._copy(path, before)
        told, at = self.kill(operation, path)
        is_inside = self._count(operation, told, at)
        if operation != "migration" and self.runs % REOPENED == 0:
            self._count("reopening", *self.kill("reopening", path))
            self.tallies["reopening"].recovered += 1
        self._check(operation, path, before)
        return is_inside

    @staticmethod
    def _copy(path: Path, to: Path) -> None:
        for end in ("", ".wal"):
            Path(f"{to}{end}").unlink(missing_ok=True)
            if Path(f"{path}{end}").exists():
                shutil.copy(f"{path}{end}", f"{to}{end}")

    def _count(self, operation: str, told: list[tuple[str, float, Any]], at: float) -> bool:
        """Acknowledged rows, time inside; whether the last thing told is a beginning."""
        tally, began = self.tallies[operation], None
        self.in_flight: dict[str, set[str]] = {}
        for kind, moment, what in told:
            if kind == "in":
                began, self.in_flight = moment, {table: set(ids) for table, ids in what.items()}
            elif kind == "ack":
                if what or operation in ONCE or operation in ("publish", "rollback"):
                    self.durations.setdefault(operation, []).append(moment - began)
                for table, ids in what.items():
                    self.acknowledged[table] |= set(ids)
                    tally.acknowledged += len(ids)
                began, self.in_flight = None, {}
        if began is None:
            tally.outside += 1
            return False
        tally.kills += 1
        tally.into.append((at - began) / self.usual(operation))
        return True

    def _check(self, operation: str, path: Path, before: Path) -> None:
        tally, problems = self.tallies[operation], []
        found = self.ask(self.child.look, path, operation, self.runs, True)
        if found is None:
            self.failures.append(f"{operation} (run {self.runs}): the file did not open, or the next operation failed")
            return
        if operation != "migration":
            for table, ids in self.acknowledged.items():
                if lost := ids - found[table]:
                    problems.append(f"{len(lost)} acknowledged rows of {table} are gone, such as {min(lost)}")
            for table, ids in self.in_flight.items():
                there = ids & found[table]
                if there and there != ids:
                    problems.append(f"{table}: {len(there)} of {len(ids)} rows of one transaction")
                tally.committed += bool(there)
        self.answers += 3 * len(self.child.USERS)
        active, expected = found["active"], self.migrated["answers"] if operation == "migration" else self.expected
        if active not in expected and operation in ("build", "reweight"):
            self._remember(self.ask(self.child.redo, before, operation, self.runs))
            tally.committed += 1
        wrong = 0
        if active not in expected:
            problems.append(f"the versions {active} are neither those of before nor what the operation leaves")
        elif found["answers"][active] != expected[active]:
            wrong = 1
        if operation != "migration":
            self._remember(found["next"])
        self.wrong += len(found["wrong"]) + wrong
        problems += found["broken"]
        if found["wrong"] or wrong:
            problems.append(f"wrong answers or weights of {active}: {found['wrong']}")
        left = list(self.folder.glob(".*.tmp"))
        if left:
            problems.append(f"{len(left)} unfinished files lie about")
        tally.recovered += not problems
        self.failures += [f"{operation} (run {self.runs}): {text}" for text in problems]

    def after(self) -> None:
        """The last look: every acknowledged row, and the versions the next operations have left."""
        found = self.ask(self.child.look, self.path, "", 0, False)
        if found is None:
            self.failures.append("the file does not open at the end")
            return
        for operation, table in {"load": "events", "serve": "impressions", "feedback": "feedback"}.items():
            self.tallies[operation].found = len(self.acknowledged[table] & found[table])

    def report(self, seconds: float) -> str:
        lines = [
            f"{'operation':<11}{'kills':>6}{'too late':>9}{'into it, % of its usual time':>32}"
            f"{'committed':>11}{'recovered':>11}{'rows acknowledged':>19}{'found':>9}"
        ]
        for name, tally in self.tallies.items():
            into = sorted(min(x, 9.99) for x in tally.into) or [0.0]
            quarter = [into[int(q * (len(into) - 1))] for q in (0, 0.25, 0.5, 0.75, 1)]
            spread = " ".join(f"{100 * x:.0f}" for x in quarter)
            lines.append(
                f"{name:<11}{tally.kills:>6}{tally.outside:>9}{spread:>32}{tally.committed:>11}"
                f"{tally.recovered:>11}{tally.acknowledged:>19}{tally.found:>9}"
            )
        kills = sum(t.kills for t in self.tallies.values())
        rows = sum(t.acknowledged for t in self.tallies.values())
        lines.append(
            f"{kills} kills inside an operation, {sum(t.outside for t in self.tallies.values())} between two, "
            f"{rows} rows acknowledged, {self.answers} lists compared, wrong answers {self.wrong}, "
            f"failures {len(self.failures)}, {seconds:.0f} s"
        )
        return "\n".join(lines + [f"FAILED {text}" for text in self.failures])


def run(kills: int, seed: int, folder: Path | None = None) -> Harness:
    """A whole run in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        harness = Harness(Path(own), seed)
        began = time.monotonic()
        harness.run(kills)
        harness.after()
        print(harness.report(time.monotonic() - began), flush=True)
    return harness


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return bool(run(arguments.kills, arguments.seed).failures)


if __name__ == "__main__":
    sys.exit(main())
