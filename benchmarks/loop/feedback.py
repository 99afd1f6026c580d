"""What feedback adds: to the satisfaction model, to the mix of strategies, to both (generated data, not real).

    python benchmarks/loop/feedback.py
    python benchmarks/loop/feedback.py --seeds 2 --days 8

A shop with 60 days of behaviour that was shaped by what the shop used to push: popular there does not mean liked.
Then m6rec serves: every day some users get a list through ``m6.serve_many``, look at it from the top, click and like
what suits them, and the answers go into ``m6.feedback``. Every ``--rebuild`` days all arms build anew; all arms see
clicks and likes as behaviour. They differ in two switches only:

    model   the build also learns from impressions (shown and ignored is a negative, weighted by 1 / propensity)
    mix     m6.reweight moves the strategy weights once a day

Figures: true probability of a like of the items served (mean over slots) in the last quarter of the days, and of the
lists ``m6.recommend_many`` gives everybody in the end. Ratio to the arm with neither; paired over seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

import m6rec_udf as m6
from m6rec_udf import training
from m6rec_udf.embed import HashEncoder

START = datetime(2024, 1, 1)
HISTORY_DAYS = 60
USERS, ITEMS, KINDS, SLOTS = 800, 400, 8, 8
ARMS = {"neither": (False, False), "model": (True, False), "mix": (False, True), "both": (True, True)}


class World:
    """Who likes what, what was pushed, and how far down people look."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.kind = rng.integers(0, KINDS, ITEMS)
        self.quality = rng.normal(0, 1.0, ITEMS)
        self.pushed = rng.lognormal(0, 1.5, ITEMS)  # independent of quality
        self.taste = rng.dirichlet(np.full(KINDS, 0.4), USERS)
        logit = -2.2 + self.quality[None, :] + 2.5 * np.log(0.15 + self.taste[:, self.kind] * 2)
        self.like = 1 / (1 + np.exp(-logit))
        self.examine = 1 / np.arange(1, SLOTS + 1) ** 0.6

    def frames(self) -> dict[str, pl.DataFrame]:
        """items, users and 60 days of events."""
        rows = []
        share = self.pushed / self.pushed.sum()
        for user in range(USERS):
            for item in self.rng.choice(ITEMS, self.rng.integers(5, 40), p=share):
                if self.rng.random() > 0.2 + 0.8 * self.like[user, item]:
                    continue
                at = START + timedelta(minutes=int(self.rng.integers(0, HISTORY_DAYS * 1440)))
                rows.append((f"u{user:03d}", f"i{item:03d}", "view", at))
                if self.rng.random() < self.like[user, item]:
                    rows.append((f"u{user:03d}", f"i{item:03d}", "like", at + timedelta(minutes=1)))
        names = {"user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "happened_at": pl.Datetime("us")}
        return {
            "events": pl.DataFrame(rows, schema=names, orient="row"),
            "items": pl.DataFrame(
                {
                    "item_id": [f"i{i:03d}" for i in range(ITEMS)],
                    "title": [f"thing of kind{self.kind[i]} number {i}" for i in range(ITEMS)],
                    "category": [f"kind {self.kind[i] // 2}" for i in range(ITEMS)],
                }
            ),
            "users": pl.DataFrame(
                {
                    "user_id": [f"u{u:03d}" for u in range(USERS)],
                    "segment": [f"s{int(self.taste[u].argmax()) // 4}" for u in range(USERS)],
                }
            ),
        }

    def answers(self, shown: pl.DataFrame, day: int) -> tuple[pl.DataFrame, float]:
        """Feedback to a day's impressions, and the mean true probability of a like over the slots."""
        rng = np.random.default_rng([day, 7])
        user = shown["user_id"].str.slice(1).cast(pl.Int64).to_numpy()
        item = shown["item_id"].str.slice(1).cast(pl.Int64).to_numpy()
        like = self.like[user, item]
        clicked = rng.random(len(like)) < self.examine[shown["rank"].to_numpy() - 1] * (0.1 + 0.9 * like)
        liked = clicked & (rng.random(len(like)) < like)
        parts = []
        for kind, happened, minutes in (("click", clicked, 1), ("like", liked, 2)):
            parts.append(
                shown.filter(pl.Series(happened)).select(
                    (pl.lit(kind) + "-" + pl.col("impression_id")).alias("feedback_id"),
                    "impression_id",
                    pl.lit(kind).alias("event_type"),
                    (pl.col("shown_at") + timedelta(minutes=minutes)).alias("happened_at"),
                )
            )
        return pl.concat(parts), float(like.mean())


def serve_day(con: duckdb.DuckDBPyConnection, world: World, day: int, requests: int) -> float:
    """One day through the real tables; returns the mean true probability of a like of what was shown."""
    at = START + timedelta(days=HISTORY_DAYS + day, hours=9)
    who = np.random.default_rng([day, 3]).choice(USERS, requests, replace=False)
    con.execute("create or replace temp table asked (user_id varchar)")
    con.executemany("insert into asked values (?)", [[f"u{u:03d}"] for u in who])
    con.execute(
        "insert into m6.impressions by name "
        "from m6.serve_many('asked', k := $k, seed := $seed, request := $request, moment := $at)",
        {"k": SLOTS, "seed": day, "request": f"day{day}", "at": at},
    )
    shown = con.sql("from m6.impressions where shown_at = $at order by impression_id", params={"at": at}).pl()
    feedback, value = world.answers(shown, day)
    con.register("answers", feedback)
    con.execute("insert into m6.feedback by name select *, happened_at as ingested_at from answers")
    con.unregister("answers")
    return value


def play(arm: str, seed: int, *, days: int, requests: int, rebuild: int, folder: Path) -> tuple[float, float]:
    """(true like probability of the last quarter's served slots, and of everybody's final recommendations)."""
    learns, reweights = ARMS[arm]
    training.LEAST_ANSWERS = 100 if learns else 10**9
    world = World(seed)
    con = m6.connect(str(folder / f"{arm}-{seed}.duckdb"), encoder=HashEncoder(64))
    m6.load(con, **world.frames())
    m6.build(con)
    values = []
    for day in range(days):
        if day and day % rebuild == 0:
            m6.build(con, retrain=True)
        values.append(serve_day(con, world, day, requests))
        if reweights:
            m6.reweight(con, period="1d", as_of=START + timedelta(days=HISTORY_DAYS + day, hours=23))
    m6.build(con, retrain=True)
    con.execute("create or replace temp table everybody as select user_id from m6.users")
    lists = con.sql(f"select user_id, item_id from m6.recommend_many('everybody', k := {SLOTS})").pl()
    user, item = (lists[name].str.slice(1).cast(pl.Int64).to_numpy() for name in ("user_id", "item_id"))
    con.close()
    return float(np.mean(values[-max(1, days // 4) :])), float(world.like[user, item].mean())


def main() -> None:
    """Run every arm on every seed and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--days", type=int, default=16)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rebuild", type=int, default=4)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for arm in ARMS:
                found[arm].append(
                    play(
                        arm,
                        seed,
                        days=given.days,
                        requests=given.requests,
                        rebuild=given.rebuild,
                        folder=Path(folder),
                    )
                )
                print(f"seed {seed} {arm:8s} served {found[arm][-1][0]:.4f} recommended {found[arm][-1][1]:.4f}")
    base = np.asarray(found["neither"])
    print(f"\n{'arm':10s} {'served':>8s} {'ratio':>16s} {'recommended':>12s} {'ratio':>16s}")
    for arm, rows in found.items():
        own = np.asarray(rows)
        ratio = own / base
        half = 1.96 * ratio.std(axis=0, ddof=1) / np.sqrt(len(ratio)) if len(ratio) > 1 else np.zeros(2)
        print(
            f"{arm:10s} {own[:, 0].mean():8.4f} {ratio[:, 0].mean():8.3f} ± {half[0]:.3f} "
            f"{own[:, 1].mean():12.4f} {ratio[:, 1].mean():8.3f} ± {half[1]:.3f}"
        )


if __name__ == "__main__":
    main()
