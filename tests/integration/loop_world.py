"""A small closed-loop world: lists per strategy, draws and propensities exactly as the loop defines them."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
import numpy as np

from m6rec_udf import connection, models

START = datetime(2024, 1, 1, 9)
IMPRESSION_COLUMNS = [
    "impression_id",
    "request_id",
    "user_id",
    "item_id",
    "rank",
    "bit",
    "supporters",
    "eligible",
    "propensity",
    "policy_version",
    "segment",
    "shown_at",
]


def database(strategies=("blended", "popular", "fresh", "semantic")):
    con = duckdb.connect()
    connection.migrate(con)
    live = models.live(models.with_satisfaction(models.collect(), "graded"))
    con.execute(f"create or replace view m6.behaviour as {live}")
    con.executemany("insert into m6.strategies values (?, ?, true, '')", [[s, n] for n, s in enumerate(strategies)])
    return con


def weights_of(con, version, segment="*"):
    rows = con.execute(
        "select s.bit, w.weight from m6.strategy_weights as w join m6.strategies as s using (strategy) "
        "where policy_version = ? and segment = ? order by s.bit",
        [version, segment],
    ).fetchall()
    return np.array([row[1] for row in rows])


def play(con, *, day, quality, requests=300, slots=4, seed=0, segments=("a", "b"), late_days=0, click_scale=1.0):
    """Serve one day under the weights in force and insert what users did; quality[strategy] is a click rate,
    or quality[segment][strategy]."""
    rng = np.random.default_rng(seed + 1000 * day)
    version = con.execute("select policy_version from m6.active").fetchall()[0][0]
    by_segment = quality if isinstance(quality, dict) else dict.fromkeys(segments, quality)
    count = len(by_segment[segments[0]])
    impressions, feedback = [], []
    in_force = {s: weights_of(con, version, s) for s in (*segments, "*")}
    for request in range(requests):
        segment = segments[request % len(segments)]
        weights = in_force[segment] if len(in_force[segment]) else in_force["*"]
        user = f"u{rng.integers(0, 200)}"
        lists = [list(rng.permutation(12)) for _ in range(count)]
        chosen: list[int] = []
        shown_at = START + timedelta(days=day, seconds=request)
        for rank in range(1, slots + 1):
            heads = [next((i for i in items if i not in chosen), None) for items in lists]
            eligible = [s for s in range(count) if heads[s] is not None]
            share = weights[eligible] / weights[eligible].sum()
            drawn = int(rng.choice(eligible, p=share))
            item = heads[drawn]
            support = [s for s in eligible if heads[s] == item]
            chosen.append(item)
            key = f"{day}-{request}-{rank}"
            impressions.append(
                (
                    key,
                    f"{day}-{request}",
                    user,
                    f"i{item}",
                    rank,
                    drawn,
                    sum(1 << s for s in support),
                    sum(1 << s for s in eligible),
                    float(weights[support].sum() / weights[eligible].sum()),
                    version,
                    segment,
                    shown_at,
                )
            )
            if rng.random() < by_segment[segment][drawn] * click_scale / rank**0.5:
                feedback.append((f"c{key}", key, "click", None, shown_at + timedelta(minutes=1)))
                if rng.random() < 0.3:
                    at = shown_at + timedelta(days=int(rng.integers(0, late_days + 1)), minutes=5)
                    feedback.append((f"p{key}", key, "purchase", 20.0, at))
    insert(con, impressions, feedback)


def insert(con, impressions, feedback):
    import pandas as pd

    i = pd.DataFrame(
        impressions,
        columns=IMPRESSION_COLUMNS,
    )
    f = pd.DataFrame(feedback, columns=["feedback_id", "impression_id", "event_type", "value", "happened_at"])
    con.register("new_impressions", i)
    con.register("new_feedback", f)
    con.execute(
        "insert into m6.impressions by name select n.* exclude (bit), s.strategy, '*' as domain "
        "from new_impressions as n join m6.strategies as s using (bit)"
    )
    con.execute(
        """insert into m6.feedback by name
        select feedback_id, impression_id, event_type, cast(value as double) as value,
            cast(happened_at as timestamp) as happened_at, cast(happened_at as timestamp) as ingested_at
        from new_feedback"""
    )
    con.unregister("new_impressions")
    con.unregister("new_feedback")
