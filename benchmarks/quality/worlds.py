"""Logs unlike the data sets: tastes that stand still or move, news that die in a day, plays again and again, few items.

    python benchmarks/quality/worlds.py
    python benchmarks/quality/worlds.py --worlds news music --budget 30 --peers implicit_als ease

Each world is generated from users with tastes over topics and items with a topic, a popularity and sometimes a life;
``shuffled`` is MovieLens (extra ``demo``) with its times dealt out anew, so that nothing is learned from time. m6rec
builds with its defaults; the peers are tuned on the slice before the split (``peers.py``), all are tested on the last
tenth. What a recommender gains on the data sets by watching the clock it must not pay for here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import common
import numpy as np
import peers
import polars as pl
from degraded import shuffled_times

import m6rec_udf as m6

evaluation = import_module("m6rec_udf.evaluate")
START = datetime(2025, 1, 1)
DAYS = 60.0
BORN_BEFORE = 5.0  # days before the first event from which items appear: the first users find some alive
ACTIVITY_SHAPE = 0.7  # of the gamma distribution of activity: a few users do much
LATEST = 0.1  # chance that a repeat is of the very last item, of the one before if not, and so on
TOPIC_WORDS = 5  # that titles of a topic share
SYLLABLES = ("bar", "tel", "mon", "kir", "sol", "vad", "rup", "nef", "jal", "pim")
ENDINGS = ("ta", "ro", "ki", "lu", "se", "do", "na", "vi", "xo", "my")
WORDS = [a + b for a in SYLLABLES for b in ENDINGS]


@dataclass(frozen=True)
class World:
    """What a log is drawn from.

    Attributes:
        users, items, events, topics: how many.
        spread: tastes are drawn from a Dirichlet distribution with 1 / spread: the larger, the fewer topics a user has.
        zipf: popularity inside a topic falls with its rank to this power.
        life: days in which an item's popularity falls to 1/e after it appears; None: all were there before.
        again: share of the events that repeat one of the user's latest items.
        drift: share of the taste that has moved to another one at the end.
        event_type: what everybody does.
    """

    users: int = 2000
    items: int = 3000
    events: int = 60_000
    topics: int = 20
    spread: float = 5.0
    zipf: float = 0.6
    life: float | None = None
    again: float = 0.0
    drift: float = 0.0
    event_type: str = "like"


WORLDS = {
    "still": World(),
    "moving": World(zipf=0.8, drift=1.0),
    "few items": World(users=500, items=400, events=40_000, topics=10, zipf=0.5),
    "news": World(events=80_000, life=1.5, zipf=1.0),
    "music": World(users=800, events=100_000, again=0.6, zipf=1.0, event_type="play"),
    "views": World(event_type="view"),
}


def drawn(world: World, seed: int) -> dict[str, pl.DataFrame]:
    """Events and items of a world."""
    rng = np.random.default_rng(seed)
    tastes = rng.dirichlet(np.full(world.topics, 1 / world.spread), (2, world.users))
    topic = rng.integers(0, world.topics, world.items)
    born = np.full(world.items, -1.0) if world.life is None else np.sort(rng.uniform(-BORN_BEFORE, DAYS, world.items))
    popularity = rng.permutation(1 / np.arange(1, world.items + 1) ** world.zipf)
    activity = rng.gamma(ACTIVITY_SHAPE, 1, world.users)
    when = np.sort(rng.uniform(0, DAYS, world.events))
    who = rng.choice(world.users, world.events, p=activity / activity.sum())
    of_topic = [np.flatnonzero(topic == one) for one in range(world.topics)]
    done: list[list[int]] = [[] for _ in range(world.users)]
    for now, user in zip(when, who, strict=True):
        if done[user] and rng.random() < world.again:
            back = min(int(rng.geometric(LATEST)), len(done[user]))
            done[user].append(done[user][-back])
            continue
        moved = world.drift * now / DAYS
        taste = (1 - moved) * tastes[0, user] + moved * tastes[1, user]
        among = of_topic[rng.choice(world.topics, p=taste / taste.sum())]
        weight = _alive(world, popularity[among], now - born[among])
        if not weight.any():
            among = np.arange(world.items)
            weight = _alive(world, popularity, now - born)
        done[user].append(int(rng.choice(among, p=weight / weight.sum())))
    next_of = [iter(items) for items in done]
    events = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in who],
            "item_id": [f"i{next(next_of[user])}" for user in who],
            "event_type": world.event_type,
            "happened_at": [START + timedelta(days=float(now)) for now in when],
        }
    )
    shared = [WORDS[TOPIC_WORDS * one : TOPIC_WORDS * (one + 1)] for one in range(world.topics)]
    titles = [" ".join([*rng.choice(shared[one], 3), *rng.choice(WORDS, 2)]) for one in topic]
    items = pl.DataFrame(
        {
            "item_id": [f"i{one}" for one in range(world.items)],
            "title": titles,
            "category": [f"topic {one}" for one in topic],
        }
    )
    return {"events": events, "items": items}


def _alive(world: World, popularity: np.ndarray, age: np.ndarray) -> np.ndarray:
    if world.life is None:
        return popularity
    return np.where(age >= 0, popularity * np.exp(-np.maximum(age, 0) / world.life), 0.0)


def shuffled(seed: int) -> dict[str, pl.DataFrame]:
    """MovieLens with all times dealt out anew."""
    return shuffled_times(common.load_data("movielens", None), 1.0, np.random.default_rng(seed))


def figures(name: str, data: dict[str, pl.DataFrame], given: argparse.Namespace, folder: Path) -> pl.DataFrame:
    """NDCG of m6rec and the others on one log, all users."""
    con = m6.connect(folder / f"{name}.duckdb", encoder=given.encoder)
    try:
        print(f"\n## {name}: {m6.load(con, **data)}", flush=True)
        names = [] if given.no_peers else peers.chosen(given.peers)
        others = peers.tune(con, names, budget=given.budget, k=given.k)
        own = common.Built(seed=given.seed)
        found = evaluation.evaluate(con, k=given.k, peers=others, recommender=own, seed=given.seed).pl()
    finally:
        con.close()
    common.show(found, f"ndcg@{given.k}", [f"coverage@{given.k}"])
    return found.filter((pl.col("metric") == f"ndcg@{given.k}") & (pl.col("slice") == "all"))


def summary(name: str, found: pl.DataFrame) -> dict[str, object]:
    """One line: m6rec, the best other, their ratio and paired difference."""
    of = {row["method"]: row for row in found.iter_rows(named=True)}
    others = {method: row["value"] for method, row in of.items() if method != "m6rec" and " - " not in method}
    best = max(others, key=lambda method: others[method])
    own, less = of["m6rec"], of[f"m6rec - {best}"]
    return {
        "world": name,
        "users": own["n"],
        "m6rec": own["value"],
        "best other": best,
        "its": others[best],
        "ratio": own["value"] / others[best],
        "difference": less["value"],
        "low": less["low"],
        "high": less["high"],
    }


def main() -> None:
    """Draw, load, tune, evaluate, print; a line for each world at the end."""
    makers: dict[str, Callable[[int], dict[str, pl.DataFrame]]] = {
        name: lambda seed, world=world: drawn(world, seed) for name, world in WORLDS.items()
    }
    makers["shuffled"] = shuffled
    parser = common.arguments(__doc__ or "", data="movielens")
    parser.add_argument("--worlds", nargs="+", choices=list(makers), default=list(makers))
    parser.add_argument("--budget", type=float, default=10.0, help="processor seconds per peer")
    common.add_peers(parser)
    given = parser.parse_args()
    lines = []
    with TemporaryDirectory() as folder:
        for name in given.worlds:
            lines.append(summary(name, figures(name, makers[name](given.seed), given, Path(folder))))
    with pl.Config(**common.TABLE):
        print(f"\nNDCG@{given.k}, all users")
        print(pl.DataFrame(lines), flush=True)


if __name__ == "__main__":
    main()
