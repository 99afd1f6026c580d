"""The closed loop against the usual bandits: share of a clairvoyant oracle's satisfaction, and periods to recover.

    python benchmarks/loop/run.py
    python benchmarks/loop/run.py --worlds base late --seeds 3 --policies m6 thompson uniform
    python benchmarks/loop/run.py --tune                      # the settings of the baselines, on development seeds
    python benchmarks/loop/run.py --worlds held_early_drift held_late_small --first-seed 100

``m6`` goes through the product: a DuckDB file, ``m6.serve_many``, inserts into ``m6.impressions`` and ``m6.feedback``,
``m6.reweight``. The others see the same lists, the same luck and the same delays through arrays; the run checks that
the arrays give the lists the product gives. Needs ``pip install 'm6rec[bench-loop]'`` for MABWiser and Vowpal Wabbit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import baselines
import duckdb
import numpy as np
import real
from world import ARMS, PERIODS, SEGMENTS, SLOTS, THETA, WORLDS, Floats, Ints, World, draw, oracle_weights

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder

WORLD_NAMES = [name for name in WORLDS if not name.startswith("held")]
PRODUCT = {"m6": None, "m6_ungated": {"gate": False}}
POLICIES = [*PRODUCT, "uniform", "best_fixed", *baselines.BASELINES]
CHECKED = 3  # periods of the check of the fast path

Values = dict[str, list[float]]


def reverse_learner() -> None:
    """Sabotage: from now on the learner gives its best strategy the smallest weight, and so on."""
    module = importlib.import_module("m6rec_udf.reweight")
    good = module.candidate_weights

    def reverse(*args: Any, **kwargs: Any) -> Any:
        return [{group: _reversed(w) for group, w in weights.items()} for weights in good(*args, **kwargs)]

    reverse.honest = good  # type: ignore[attr-defined]
    module.candidate_weights = reverse


def _reversed(weights: Floats) -> Floats:
    return np.sort(weights)[::-1][np.argsort(np.argsort(weights, kind="stable"), kind="stable")]


def restore_learner() -> None:
    """End of the sabotage."""
    module = importlib.import_module("m6rec_udf.reweight")
    module.candidate_weights = getattr(module.candidate_weights, "honest", module.candidate_weights)


def product(
    folder: Path, world: World, parameters: dict[str, Any] | None, *, periods: int = PERIODS, uniform: bool = False
) -> list[float]:
    """The real path on a copy of the built file."""
    path = folder / "copy.duckdb"
    shutil.copy(folder / "loop.duckdb", path)
    con = m6.connect(str(path), encoder=HashEncoder(32), project=folder / "project")
    con.execute("set threads = 1")
    con.execute("set enable_progress_bar = false")
    try:
        if uniform:
            real.set_weights(con, np.full(len(ARMS), 1 / len(ARMS)))
        return real.play(
            con, world, periods=periods, parameters=parameters, learns=not uniform, sabotage=reverse_learner
        )
    finally:
        restore_learner()
        con.close()
        path.unlink()


def best_fixed(world: World, lists: Ints) -> Floats:
    """The one strategy per segment that is best over all periods, as weights: known to nobody in advance."""
    found = np.zeros((len(SEGMENTS), len(ARMS)))
    before = PERIODS if world.kind.drift is None else world.kind.drift
    share = (before / PERIODS, 1 - before / PERIODS)
    for g in range(len(SEGMENTS)):
        own = lists[world.segment == g]
        worth = sum(share[p] * (world.satisfaction[p][g][own] * THETA).sum(axis=2).mean(axis=0) for p in (0, 1))
        found[g, int(np.argmax(worth))] = 1.0
    return found


def check_lists(con: duckdb.DuckDBPyConnection, world: World, lists: real.Lists) -> int:
    """Lists of the product, of ``slate.mix`` and of the fast path from the same luck are the same; returns how many."""
    from m6rec_udf.slate import mix, seed_of

    weights = np.full(len(ARMS), 1 / len(ARMS))
    shown = real.serve(con, world, 0)
    stored = dict(
        con.execute(
            "select s.bit, w.weight from m6.strategy_weights as w inner join m6.strategies as s using (strategy)"
        ).fetchall()
    )
    weights = np.array([stored[bit] for bit in lists.bits])
    for user, items in zip(shown.users[:200], shown.items, strict=False):
        seed = seed_of(world.seed * 1000, real.user_id(int(user)))
        order, supporters, is_seen, names = lists.candidates[user]
        slots = mix(order, supporters, is_seen, stored, SLOTS, generator=np.random.default_rng(seed))
        luck = np.random.default_rng(seed).random((1, SLOTS))
        fast = draw(lists.heads[user][None], weights[None], luck)
        assert np.array_equal(items, names[[s.candidate for s in slots]]), "mix differs from the product"
        assert np.array_equal(items, fast[0][0]), "the fast path differs from the product"
        assert np.allclose([s.propensity for s in slots], fast[3][0])
    return min(200, len(shown.users))


def prepared(world: World, folder: Path) -> real.Lists:
    """Build the file of a seed, read its lists, check them."""
    con = real.build(world, folder)
    lists = real.read_lists(con)
    con.execute("checkpoint")
    con.close()
    shutil.copy(folder / "loop.duckdb", folder / "check.duckdb")
    con = m6.connect(str(folder / "check.duckdb"), encoder=HashEncoder(32), project=folder / "project")
    check_lists(con, world, lists)
    con.close()
    (folder / "check.duckdb").unlink()
    return lists


def play_seed(job: tuple[int, list[str], list[str]]) -> tuple[int, dict[str, Values], float]:
    """Every policy in every world of one seed: values per period."""
    seed, worlds, policies = job
    start, found = time.perf_counter(), {}
    best: dict[bool, list[Floats]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lists = prepared(World(seed), folder)
        for world_name in worlds:
            world = World(seed, WORLDS[world_name])
            if world.kind.null not in best:
                best[world.kind.null] = [oracle_weights(world, lists.heads, p) for p in (0, 1)]
            weights = best[world.kind.null]
            found[world_name] = {"oracle": fixed(world, lists.heads, lambda t, w=world, o=weights: o[w.phase(t)])}
            for policy in played(policies, world_name):
                values = play_policy(policy, folder, world, lists.heads)
                if values is not None:
                    found[world_name][policy] = values
            if world_name == "base" and "uniform" in policies:
                found[world_name]["uniform, real path"] = product(folder, world, None, periods=CHECKED, uniform=True)
    return seed, found, time.perf_counter() - start


def played(policies: list[str], world_name: str) -> list[str]:
    """Policies of a world: only the product's learner is sabotaged, and without its gate it plays where that tells."""
    if WORLDS[world_name].sabotage is not None:
        return [p for p in policies if p in PRODUCT]
    return [p for p in policies if p != "m6_ungated" or world_name == "base"]


def fixed(world: World, lists: Ints, weights: Any) -> list[float]:
    """Values of weights that are given per period."""
    return baselines.play(baselines.Policy(0), world, lists, fixed=weights)


def play_policy(name: str, folder: Path, world: World, lists: Ints) -> list[float] | None:
    """Values per period of one policy; None where it needs a package that is not installed."""
    if name in PRODUCT:
        return product(folder, world, PRODUCT[name])
    if name == "uniform":
        return fixed(world, lists, lambda t: np.full((len(SEGMENTS), len(ARMS)), 1 / len(ARMS)))
    if name == "best_fixed":
        chosen = best_fixed(world, lists)
        return fixed(world, lists, lambda t: chosen)
    entry = baselines.BASELINES[name]
    try:
        return baselines.play(entry.make(world.seed, **entry.settings), world, lists)
    except ImportError:
        return None


def ratio(values: list[float], oracle: list[float]) -> float:
    """Share of the oracle's satisfaction over all periods."""
    return sum(values) / sum(oracle[: len(values)])


def recovery(values: list[float], oracle: list[float], drift: int) -> int:
    """Periods after the drift until the ratio is back at 95 % of its mean over the five periods before it."""
    shares = np.array(values) / np.array(oracle)
    level = 0.95 * shares[drift - 5 : drift].mean()
    back = np.flatnonzero(shares[drift:] >= level)
    return int(back[0]) if len(back) else len(shares) - drift


def half_width(x: Floats) -> float:
    """Half of a 95 % interval of the mean (Student)."""
    from scipy import stats

    return float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")


def print_table(found: dict[int, dict[str, Values]], worlds: list[str], policies: list[str]) -> None:
    """Ratio, interval, recovery, and the paired difference to m6."""
    for world in worlds:
        drift = WORLDS[world].drift
        print(f"\n{world}: {WORLDS[world]}")
        print(f"{'policy':20s} {'ratio':>15s} {'minus m6':>16s} {'recovery':>9s} {'last 10':>8s}")
        reference = [ratio(v[world]["m6"], v[world]["oracle"]) for v in found.values() if "m6" in v[world]]
        for policy in [*policies, "uniform, real path"]:
            rows = [v[world] for v in found.values() if policy in v[world]]
            if not rows:
                if policy in played(policies, world):
                    print(f"{policy:20s} not installed")
                continue
            shares = np.array([ratio(v[policy], v["oracle"]) for v in rows])
            line = f"{policy:20s} {shares.mean():7.3f} ± {half_width(shares):.3f}"
            if len(rows[0][policy]) == PERIODS:
                paired = shares - reference if len(reference) == len(shares) else np.array([np.nan])
                line += f" {paired.mean():+8.3f} ± {half_width(paired):.3f}"
                back = [recovery(v[policy], v["oracle"], drift) for v in rows] if drift is not None else []
                line += f" {np.mean(back):9.1f}" if back else f" {'':9s}"
                line += f" {np.mean([ratio(v[policy][-10:], v['oracle'][-10:]) for v in rows]):8.3f}"
            else:
                rows_fast = [ratio(v["uniform"][:CHECKED], v["oracle"]) for v in rows]
                paired = shares - rows_fast
                line += f"   minus fast path {paired.mean():+.4f} ± {half_width(paired):.4f} ({CHECKED} periods)"
            print(line)


def tune(seeds: list[int], policies: list[str]) -> None:
    """Every combination of each baseline's grid on development seeds, base and late; prints all and the best."""
    worlds = ["base", "late"]
    heads, best = {}, {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            heads[seed] = prepared(World(seed), Path(name)).heads
        best[seed] = [oracle_weights(World(seed), heads[seed], p) for p in (0, 1)]
    for policy in policies:
        if policy not in baselines.BASELINES:
            continue
        entry, scores = baselines.BASELINES[policy], []
        for settings in baselines.settings_of(entry.grid):
            shares = []
            for seed in seeds:
                for world_name in worlds:
                    world = World(seed, WORLDS[world_name])
                    oracle = fixed(world, heads[seed], lambda t, w=world, o=best[seed]: o[w.phase(t)])
                    values = baselines.play(entry.make(seed, **settings), world, heads[seed])
                    shares.append(ratio(values, oracle))
            scores.append((float(np.mean(shares)), settings))
        scores.sort(key=lambda pair: -pair[0])
        print(f"{policy}: {len(scores)} settings x {len(seeds)} seeds x {len(worlds)} worlds", flush=True)
        for score, settings in scores[:3] + scores[-1:]:
            print(f"    {score:.3f} {settings}", flush=True)


def results(jobs: list[tuple[int, list[str], list[str]]], processes: int) -> Iterator[Any]:
    """Seeds as they finish."""
    if processes == 1:
        yield from map(play_seed, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(play_seed, jobs)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", nargs="+", default=WORLD_NAMES, choices=list(WORLDS))
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="try the settings of the baselines on development seeds")
    parser.add_argument("--out", type=Path, help="also write values per period as JSON")
    given = parser.parse_args()
    seeds = list(range(given.first_seed, given.first_seed + given.seeds))
    if given.tune:
        tune(seeds, given.policies)
        return
    found: dict[int, dict[str, Values]] = {}
    for seed, values, seconds in results([(s, given.worlds, given.policies) for s in seeds], given.processes):
        found[seed] = values
        shares = {w: f"{ratio(v['m6'], v['oracle']):.3f}" for w, v in values.items() if "m6" in v}
        print(f"seed {seed}: {seconds:.0f} s, m6 {shares}", flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(found), encoding="utf-8")
    print_table(dict(sorted(found.items())), given.worlds, given.policies)


if __name__ == "__main__":
    main()
