"""How often repeated looks cry wolf, and how soon a real loss is noticed: Monte Carlo through the product's own SQL.

    python benchmarks/loop/alarms.py
    python benchmarks/loop/alarms.py --replicates 100 --losses 20      # a quick look

False alarms: the weights in force are no better and no worse than the champion (their differences per list come from
the closed-loop world, centred, and are resampled), and ``sql/feedback/fb_evidence.sql`` looks after each of 30 periods
of 800 lists. An alarm is one look, any of the 30, whose confidence sequence excludes zero. The plain z-test
looks at the same sums.

Loss: weights that are truly 5 % worse than the champion are served 800 lists a period, with real feedback; the full
log goes through the same SQL, and the first period whose upper bound (all groups together) is below zero counts.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import real
from world import ARMS, SEGMENTS, SLOTS, THETA, USERS, Floats, Ints, Kind, World, draw, oracle_weights

from m6rec_udf import connection, resources
from m6rec_udf.models import parameter_names
from m6rec_udf.policy_versions import FLOOR

LOOKS, LISTS, LEVEL = 30, 800, 0.05
BATCH = 50  # replicates per query
COUNT = len(ARMS)


@dataclass
class Scene:
    """A world, its lists and the champion's weights [segments, arms]."""

    world: World
    lists: real.Lists
    champion: Floats

    def value(self, weights: Floats) -> float:
        """True expected satisfaction per list of weights [segments, arms]."""
        users = np.tile(np.arange(USERS), 4)
        luck = np.random.default_rng(7).random((len(users), SLOTS))
        items = draw(self.lists.heads[users], weights[self.world.segment[users]], luck)[0]
        return self.world.value(0, users, items)

    def served(self, weights: Floats, period: int, seed: int) -> dict[str, Floats | Ints]:
        """A period under ``weights``: segment [lists], masks, propensity, reward [lists, slots]."""
        own = World(self.world.seed * 100_000 + 100 + seed, self.world.kind)  # luck of its own
        users = own.visitors(period)
        segment = self.world.segment[users]
        luck = own.uniforms(period, 2, (len(users), SLOTS))
        items, _, supporters, propensity = draw(self.lists.heads[users], weights[segment], luck)
        own.click, own.buy, own.dismiss = self.world.click, self.world.buy, self.world.dismiss
        own.speed, own.mean_stars = self.world.speed, self.world.mean_stars
        reward = own.answers(period, users, items).reward(10**6)
        masks = (supporters.astype(np.int64) << np.arange(supporters.shape[2])).sum(axis=2)
        return {"segment": segment, "supporters": masks, "propensity": propensity, "reward": reward}


def scene() -> Scene:
    """Champion: the best weights with a little of everything, as a settled loop has them."""
    world = World(0, Kind(drift=None))
    with tempfile.TemporaryDirectory() as folder:
        con = real.build(world, Path(folder))
        lists = real.read_lists(con)
        con.close()
    best = oracle_weights(world, lists.heads, 0)
    return Scene(world, lists, 0.9 * best + 0.1 / best.shape[1])


def worse(scene: Scene, loss: float, target: Floats) -> Floats:
    """Champion moved towards ``target`` until its true value is ``loss`` lower."""
    aim = (1 - loss) * scene.value(scene.champion)
    low, high = 0.0, 1.0
    for _ in range(25):
        middle = (low + high) / 2
        is_worse = scene.value(scene.champion + middle * (target - scene.champion)) < aim
        low, high = (low, middle) if is_worse else (middle, high)
    return scene.champion + low * (target - scene.champion)


def evidence(con: duckdb.DuckDBPyConnection, **changed: float) -> list[tuple[str, str, float, float, float]]:
    """(domain, segment, delta, low, high) of the product's fb_evidence on the fb_log and fb_policies given."""
    defaults = importlib.import_module("m6rec_udf.reweight").DEFAULTS
    text = resources.read_sql("feedback", "fb_evidence")
    values = {**defaults, "current_version": 1, "last_period": 0, "alpha": LEVEL, **changed}
    given = {name: values[name] for name in parameter_names(text)}
    return con.execute(f"select domain, segment, delta, low, high from ({text})", given).fetchall()


def database(groups: list[str], current: Floats, champion: Floats) -> duckdb.DuckDBPyConnection:
    """An empty fb_log, and the two policies [groups, arms] as the product writes them."""
    con = duckdb.connect()
    connection.migrate(con)
    con.execute(
        "create temp table fb_log (domain varchar, segment varchar, request_id bigint, period bigint, "
        "policy_version bigint, supporters ubigint, eligible ubigint, propensity double, reward double, "
        "advantage double)"
    )
    rows = [
        ("*", group, 0, step, bit, float(w))
        for step, policy in ((0.0, current), (-1.0, champion))
        for group, weights in zip(groups, policy, strict=True)
        for bit, w in enumerate(weights)
    ]
    con.execute(
        "create temp table fb_policies as select unnest(?::varchar[]) as domain, unnest(?::varchar[]) as segment, "
        "unnest(?::integer[]) as fold, unnest(?::double[]) as step, unnest(?::integer[]) as bit, "
        "unnest(?::double[]) as weight",
        [list(column) for column in zip(*rows, strict=True)],
    )
    return con


def append(con: duckdb.DuckDBPyConnection, columns: dict[str, object]) -> None:
    """Insert rows of one period into fb_log."""
    import polars as pl

    con.register("more", pl.DataFrame(columns))
    con.execute("insert into fb_log by name from more")
    con.unregister("more")


def differences(scene: Scene, current: Floats, periods: int = 20) -> Floats:
    """Difference per list (15) of weights and champion, centred: a world where nothing is better."""
    parts = [scene.served(current, p, 0) for p in range(periods)]
    segment = np.concatenate([p["segment"] for p in parts])
    reward = np.concatenate([p["reward"] for p in parts])
    masks, propensity = (np.concatenate([p[k] for p in parts]) for k in ("supporters", "propensity"))
    backing = (masks[:, :, None] >> np.arange(current.shape[1])) & 1
    change = ((current - scene.champion)[segment][:, None, :] * backing).sum(axis=2) / propensity
    advantage = reward.copy()
    for g in range(len(SEGMENTS)):
        advantage[segment == g] -= reward[segment == g].mean(axis=0)
    found: Floats = (change * advantage).sum(axis=1)
    return found - found.mean()


def false_alarms(pool: Floats, replicates: int) -> dict[str, float]:
    """Share of replicates with an alarm at any of the looks: lower side, upper side, z-test."""
    rng = np.random.default_rng(3)
    hits = {"rollback (upper bound < 0)": 0, "promotion (lower bound > 0)": 0, "repeated z-test, lower side": 0}
    for start in range(0, replicates, BATCH):
        size = min(BATCH, replicates - start)
        names = [f"r{n:03d}" for n in range(size)]
        con = database(names, np.tile([1.0, 0.0], (size, 1)), np.tile([0.0, 1.0], (size, 1)))
        total, squares = np.zeros(size), np.zeros(size)
        lost, won, crossed = (np.zeros(size, bool) for _ in range(3))
        for look in range(1, LOOKS + 1):
            sample = rng.choice(pool, (size, LISTS))
            append(  # one row per list: supported by the first policy alone, so its advantage is the difference
                con,
                {
                    "domain": ["*"] * sample.size,
                    "segment": np.repeat(names, LISTS),
                    "request_id": np.arange(sample.size) + look * sample.size,
                    "period": np.full(sample.size, look),
                    "policy_version": np.ones(sample.size, np.int64),
                    "supporters": np.ones(sample.size, np.uint64),
                    "eligible": np.full(sample.size, 3, np.uint64),
                    "propensity": np.ones(sample.size),
                    "reward": sample.ravel(),
                    "advantage": sample.ravel(),
                },
            )
            for domain, segment, _, low, high in evidence(con):
                if domain:
                    lost[int(segment[1:])] |= high < 0
                    won[int(segment[1:])] |= low > 0
            total, squares, n = total + sample.sum(axis=1), squares + (sample**2).sum(axis=1), look * LISTS
            error = np.sqrt((squares / n - (total / n) ** 2) / n)
            crossed |= total / n < -1.645 * error
        con.close()
        for name, found in zip(hits, (lost, won, crossed), strict=True):
            hits[name] += int(found.sum())
    return {name: count / replicates for name, count in hits.items()}


def noticed(scene: Scene, current: Floats, losses: int, looks: int = 8) -> list[int]:
    """Periods until the loss is seen over all groups, per replicate; ``looks`` + 1 where it is not."""
    found = []
    for replicate in range(1, losses + 1):
        con = database(list(SEGMENTS), current, scene.champion)
        at, seen = [], looks + 1
        for look in range(1, looks + 1):
            at.append(scene.served(current, look, replicate))
            segment = np.concatenate([p["segment"] for p in at])
            reward = np.concatenate([p["reward"] for p in at])
            masks, propensity = (np.concatenate([p[k] for p in at]) for k in ("supporters", "propensity"))
            advantage = reward.copy()
            for g in range(len(SEGMENTS)):
                advantage[segment == g] -= reward[segment == g].mean(axis=0)
            con.execute("delete from fb_log")
            row = np.repeat(np.arange(len(segment)), SLOTS)
            append(
                con,
                {
                    "domain": ["*"] * len(row),
                    "segment": np.array(SEGMENTS)[segment][row],
                    "request_id": row,
                    "period": np.zeros(len(row), np.int64),
                    "policy_version": np.ones(len(row), np.int64),
                    "supporters": masks.ravel().astype(np.uint64),
                    "eligible": np.full(len(row), 2 ** current.shape[1] - 1, np.uint64),
                    "propensity": propensity.ravel(),
                    "reward": reward.ravel(),
                    "advantage": advantage.ravel(),
                },
            )
            together = [high for domain, _, _, _, high in evidence(con) if not domain]
            if together[0] < 0:
                seen = look
                break
        con.close()
        found.append(seen)
    return found


def main() -> None:
    """Both experiments, printed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--losses", type=int, default=60)
    given = parser.parse_args()
    found = scene()
    uniform = np.full_like(found.champion, 1 / found.champion.shape[1])
    nulls = {
        "weights that still explore": 0.9 * found.champion + 0.1 * uniform,
        "weights at the floor (large ratios)": (found.champion - 0.1 / COUNT) / 0.9 * (1 - COUNT * FLOOR) + FLOOR,
    }
    print(f"false alarms in {LOOKS} looks of {LISTS} lists, nominal {LEVEL:.0%}, {given.replicates} replicates")
    for null, weights in nulls.items():
        print(f"  {null}")
        for name, share in false_alarms(differences(found, weights), given.replicates).items():
            half = 1.96 * np.sqrt(max(share * (1 - share), 1e-9) / given.replicates)
            print(f"    {name:32s} {share:6.1%} ± {half:.1%}", flush=True)
    worst = np.eye(uniform.shape[1])[_worst(found)]
    print(f"a loss of 5 % at {LISTS} lists a period, {given.losses} replicates: periods until it is noticed")
    for name, target in (("towards uniform weights", uniform), ("towards the worst strategy", worst)):
        current = worse(found, 0.05, target)
        seen = noticed(found, current, given.losses)
        loss = 1 - found.value(current) / found.value(found.champion)
        print(
            f"  {name:32s} true loss {loss:.1%}: mean {np.mean(seen):.1f}, median {np.median(seen):.0f}, "
            f"within 3 periods {np.mean(np.array(seen) <= 3):.0%}",
            flush=True,
        )


def _worst(found: Scene) -> Ints:
    """The arm of least value per segment."""
    worth = np.zeros_like(found.champion)
    for g in range(len(SEGMENTS)):
        users = np.flatnonzero(found.world.segment == g)
        worth[g] = (found.world.satisfaction[0][g][found.lists.heads[users]] * THETA).sum(axis=2).mean(axis=0)
    return worth.argmin(axis=1)


if __name__ == "__main__":
    main()
