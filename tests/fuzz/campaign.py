"""Hostile input at every entrance: ``python tests/fuzz/campaign.py --cases 100000 --seed 0`` prints what became of it.

A case is one call with generated arguments. It must end in an answer that holds its promises, in an error that says
what was expected, or, for types and names that SQL itself checks, in the database's own error. Anything else is
printed and makes the exit code 1. The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from entrances import ENTRANCES  # noqa: E402
from world import ANSWERED, ENGINE, REFUSED, UNHANDLED, WRONG, Counts, World, attempt  # noqa: E402

ENDS = (ANSWERED, REFUSED, ENGINE, UNHANDLED, WRONG)


def run(
    cases: int,
    seed: int,
    folder: Path,
    *,
    only: str | None = None,
    seconds: float | None = None,
    notify: Callable[[str], None] | None = None,
) -> Counts:
    """Try cases; every case has a generator of its own, so that one of them can be tried alone."""
    world = World(folder, seed)
    names = [only] if only else list(ENTRANCES)
    weights = [ENTRANCES[name][0] for name in names]
    choose = random.Random(f"{seed} entrances")
    started = time.monotonic()
    spent = dict.fromkeys(names, 0.0)
    try:
        for number in range(cases):
            if seconds is not None and time.monotonic() - started > seconds:
                break
            (name,) = choose.choices(names, weights)
            before = time.process_time()
            end, words = attempt(lambda n=name, c=number: ENTRANCES[n][1](world, random.Random(f"{seed} {n} {c}")))
            spent[name] += time.process_time() - before
            world.counts.ends[name, end] += 1
            if end in (UNHANDLED, WRONG):
                world.counts.failures.append(f"{name}, case {number}: {end}: {words}")
            if notify is not None and (end in (UNHANDLED, WRONG) or number % 5000 == 4999):
                notify(world.counts.failures[-1] if end in (UNHANDLED, WRONG) else f"{number + 1:,} cases")
    except KeyboardInterrupt:  # what was counted so far is printed all the same
        world.counts.failures += [] if world.counts.ends else ["stopped before the first case"]
    finally:
        world.close()
    world.counts.seconds = spent
    return world.counts


def report(counts: Counts) -> str:
    """The counts as text."""
    lines = [f"{'entrance':<28}" + "".join(f"{end:>16}" for end in ENDS) + f"{'CPU ms a case':>15}"]
    for name in ENTRANCES:
        row = [counts.ends[name, end] for end in ENDS]
        if sum(row):
            lines.append(
                f"{name:<28}" + "".join(f"{n:>16,}" for n in row) + f"{1000 * counts.seconds[name] / sum(row):>15.1f}"
            )
    totals = [sum(n for (_, end), n in counts.ends.items() if end == of) for of in ENDS]
    lines.append(f"{'all ' + format(sum(totals), ','):<28}" + "".join(f"{n:>16,}" for n in totals))
    lines.append("rows: " + ", ".join(f"{name} {n:,}" for name, n in counts.rows.items()))
    lines += [f"{n:>10,} rejected: {reason}" for reason, n in counts.reasons.most_common()]
    return "\n".join(lines)


def _say(words: str) -> None:
    print(words[:1500], file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(ENTRANCES))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="m6rec-fuzz-"))
    try:
        counts = run(arguments.cases, arguments.seed, folder, only=arguments.only, notify=_say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(report(counts))
    print(f"unhandled exceptions and wrong answers: {len(counts.failures)}")
    return 1 if counts.failures else 0


if __name__ == "__main__":
    sys.exit(main())
