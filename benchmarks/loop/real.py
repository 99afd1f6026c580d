"""The real path: a DuckDB file, load, build, serve_many, inserts into impressions and feedback, reweight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
from world import (
    ARMS,
    CLICK_VALUE,
    ITEMS,
    PERIODS,
    SEGMENTS,
    SLOTS,
    START,
    STRATEGIES,
    USERS,
    Answers,
    Floats,
    Ints,
    World,
)

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder

STRATEGY = """-- one row per (user, item): the list that {name} keeps for the user's segment
select c.user_idx, i.item_idx, cast(l.raw_score as double) as raw_score
from candidate_users as c
inner join stg_users as u on c.user_idx = u.user_idx
inner join main.world_lists as l on u.segment = l.segment
inner join stg_items as i on l.item_id = i.item_id
where l.strategy = '{name}'
"""
SCORED = """
with people as (
    from m6.user_history((select list(user_id) from m6.users))
),
extra as (
    select user_id, list(struct_pack(item_id := item_id, bit := bit) order by bit, item_id) as proposals
    from m6.extra_candidates group by user_id
),
found as (
    select user_id, unnest(m6_scored(1, segment, history, proposals, null, null, null, null, $k, null)) as c
    from people left join extra using (user_id) order by user_id
)
select user_id, c.item_id as item_id, c.supporters as supporters, c.is_seen as is_seen, c.satisfaction as satisfaction
from found
"""


def user_id(number: int) -> str:
    """Key of a user."""
    return f"u{number:04d}"


def frames(world: World) -> dict[str, pl.DataFrame]:
    """items, users and 40 days of history that tell how appealing an item is, not which strategy is good."""
    rng = np.random.default_rng([world.seed, 23])
    share = world.appeal / world.appeal.sum()
    rows = []
    for user in range(USERS):
        for item in rng.choice(ITEMS, rng.integers(2, 6), p=share, replace=False):
            at = START - timedelta(minutes=int(rng.integers(60, 40 * 1440)))
            rows.append((user_id(user), f"i{item:03d}", "view", None, at))
            if rng.random() < 0.6 * world.appeal[item]:
                rows.append((user_id(user), f"i{item:03d}", "purchase", 20.0, at + timedelta(minutes=5)))
    names = {
        "user_id": pl.String,
        "item_id": pl.String,
        "event_type": pl.String,
        "value": pl.Float64,
        "happened_at": pl.Datetime("us"),
    }
    return {
        "events": pl.DataFrame(rows, schema=names, orient="row"),
        "items": pl.DataFrame(
            {
                "item_id": [f"i{i:03d}" for i in range(ITEMS)],
                "title": [f"thing {i} of kind {i % 12}" for i in range(ITEMS)],
                "category": [f"kind {i % 12}" for i in range(ITEMS)],
            }
        ),
        "users": pl.DataFrame(
            {
                "user_id": [user_id(u) for u in range(USERS)],
                "segment": [SEGMENTS[g] for g in world.segment],
            }
        ),
    }


def build(world: World, folder: Path) -> duckdb.DuckDBPyConnection:
    """Load and build a world in a file of its own: arms are ``blended`` and the six strategies of the project."""
    project = folder / "project"
    (project / "sql" / "strategies").mkdir(parents=True, exist_ok=True)
    for name in STRATEGIES:
        path = project / "sql" / "strategies" / f"cand_{name}.sql"
        path.write_text(STRATEGY.format(name=name), encoding="utf-8")
    con = m6.connect(str(folder / "loop.duckdb"), encoder=HashEncoder(32), project=project)
    con.execute("set threads = 1")
    con.execute("set enable_progress_bar = false")
    lists = pl.DataFrame(
        [
            (segment, name, f"i{item:03d}", 1.0 / (place + 1))
            for g, segment in enumerate(SEGMENTS)
            for s, name in enumerate(STRATEGIES)
            for place, item in enumerate(world.lists[g, s])
        ],
        schema=["segment", "strategy", "item_id", "raw_score"],
        orient="row",
    )
    con.register("given", lists)
    con.execute("create table main.world_lists as from given")
    con.unregister("given")
    m6.load(con, **frames(world))
    con.execute("update m6.event_types set satisfaction = ? where event_type = 'click'", [CLICK_VALUE])
    shipped = [p.stem.removeprefix("cand_") for p in (Path(m6.__file__).parents[1] / "sql/strategies").glob("*.sql")]
    rows = [("blended", True), *((name, False) for name in sorted(shipped)), *((name, True) for name in STRATEGIES)]
    for bit, (name, is_enabled) in enumerate(rows):
        con.execute(
            "insert into m6.strategies values (?, ?, ?, '') on conflict (strategy) do update set is_enabled = ?",
            [name, bit, is_enabled, is_enabled],
        )
    m6.build(con, as_of=START)
    return con


@dataclass
class Lists:
    """The heads of every user's lists as the real functions order them.

    Attributes:
        heads: [users, arms, slots] item numbers, in the order of ``ARMS``.
        bits: bit of each arm.
        candidates: per user: order, supporters, is_seen as ``m6rec_udf.slate.mix`` takes them, and item numbers.
    """

    heads: Ints
    bits: list[int]
    candidates: list[tuple[Any, Any, Any, Ints]]


def read_lists(con: duckdb.DuckDBPyConnection) -> Lists:
    """Every user's candidates in the real order, once."""
    from m6rec_udf.slate import ranking_order

    known = dict(con.execute("select strategy, bit from m6.strategies").fetchall())
    bits = [int(known[arm]) for arm in ARMS]
    rows = con.sql(SCORED, params={"k": SLOTS}).pl()
    heads = np.zeros((USERS, len(ARMS), SLOTS), np.int64)
    candidates = []
    for (key,), part in rows.group_by("user_id", maintain_order=True):
        item = part["item_id"].str.slice(1).cast(pl.Int64).to_numpy()
        supporters, is_seen = part["supporters"].to_numpy(), part["is_seen"].to_numpy()
        order = ranking_order(part["satisfaction"].to_numpy(), item)
        candidates.append((order, supporters, is_seen, item))
        fresh = order[~is_seen[order]]
        for a, bit in enumerate(bits):
            own = fresh if a == 0 else fresh[(supporters[fresh] >> np.uint64(bit)) & np.uint64(1) > 0]
            assert len(own) >= SLOTS, "a list of the world runs dry"
            heads[int(str(key)[1:]), a] = item[own[:SLOTS]]
    return Lists(heads, bits, candidates)


@dataclass
class Shown:
    """A period's impressions as the real path logged them, lists in the order of users."""

    users: Ints
    items: Ints
    requests: list[str]


def serve(con: duckdb.DuckDBPyConnection, world: World, period: int) -> Shown:
    """Serve a period's visitors and log the impressions.

    The log names the visit, not the user: feedback would otherwise enter the user's history and move the lists,
    and no baseline or oracle could be compared on the same lists.
    """
    visitors = world.visitors(period)
    con.register("visitors_frame", pl.DataFrame({"user_id": [user_id(u) for u in visitors]}))
    con.execute("create or replace temp table visitors as from visitors_frame")
    con.unregister("visitors_frame")
    con.execute(
        "insert into m6.impressions by name select * replace (request_id as user_id) "
        "from m6.serve_many('visitors', k := $k, seed := $seed, request := $request, moment := $moment)",
        {"k": SLOTS, "seed": world.seed * 1000 + period, "request": f"p{period:02d}", "moment": moment(period, 9)},
    )
    rows = con.execute(
        "select request_id, cast(item_id[2:] as integer) as item from m6.impressions where shown_at = ? "
        "order by request_id, rank",
        [moment(period, 9)],
    ).fetchnumpy()
    items = rows["item"].astype(np.int64).reshape(-1, SLOTS)
    requests = rows["request_id"].reshape(-1, SLOTS)[:, 0].tolist()
    users = np.array([int(r.rsplit("u", 1)[1]) for r in requests])
    assert np.array_equal(users, visitors), "a visitor got no list"
    return Shown(users, items, requests)


def moment(period: int, hour: int) -> datetime:
    """An hour of a period."""
    return START + timedelta(days=period, hours=hour)


def feedback_rows(shown: Shown, answers: Answers) -> pl.DataFrame:
    """Every reaction to a period's impressions, with the period in which it arrives."""
    parts = []
    for kind, happened, arrives in (
        ("click", answers.click, answers.click_at),
        ("purchase", answers.buy, answers.buy_at),
        ("rating", answers.rate, answers.rate_at),
        ("dismiss", answers.dismiss, None),
    ):
        row, slot = np.nonzero(happened)
        parts.append(
            pl.DataFrame(
                {
                    "impression_id": [f"{shown.requests[r]}-{k + 1}" for r, k in zip(row, slot, strict=True)],
                    "event_type": [kind] * len(row),
                    "value": answers.stars[row, slot].astype(float) if kind == "rating" else np.full(len(row), 20.0),
                    "arrives": arrives[row, slot] if arrives is not None else np.full(len(row), -1),
                },
                schema={
                    "impression_id": pl.String,
                    "event_type": pl.String,
                    "value": pl.Float64,
                    "arrives": pl.Int64,
                },
            )
        )
    return pl.concat(parts)


class Inbox:
    """Feedback on its way: rows are inserted in the period in which they arrive."""

    def __init__(self) -> None:
        self.waiting: list[pl.DataFrame] = []

    def put(self, period: int, rows: pl.DataFrame) -> None:
        """Keep the reactions to a period's impressions until they arrive."""
        self.waiting.append(rows.with_columns(pl.max_horizontal("arrives", pl.lit(period)).alias("arrives")))

    def deliver(self, con: duckdb.DuckDBPyConnection, period: int) -> None:
        """Insert what arrives in a period; clicks that are late happened when the list was shown."""
        if not self.waiting:
            return
        everything = pl.concat(self.waiting)
        self.waiting = [everything.filter(pl.col("arrives") > period)]
        con.register("arrived", everything.filter(pl.col("arrives") <= period))
        con.execute(
            """insert into m6.feedback by name
            select
                a.event_type || '-' || a.impression_id as feedback_id,
                a.impression_id,
                a.event_type,
                a.value,
                case when a.event_type in ('click', 'dismiss') then i.shown_at + interval 1 minute
                    else $arrived end as happened_at,
                greatest($arrived, i.shown_at + interval 1 minute) as ingested_at
            from arrived as a inner join m6.impressions as i on a.impression_id = i.impression_id""",
            {"arrived": moment(period, 20)},
        )
        con.unregister("arrived")


def play(
    con: duckdb.DuckDBPyConnection,
    world: World,
    *,
    periods: int = PERIODS,
    parameters: dict[str, Any] | None = None,
    learns: bool = True,
    sabotage: Callable[[], None] | None = None,
    watch: Callable[[int, dict[str, Any]], None] | None = None,
) -> list[float]:
    """Run the loop; returns the true expected satisfaction per list of every period."""
    inbox, values = Inbox(), []
    for period in range(periods):
        if sabotage is not None and period == world.kind.sabotage:
            sabotage()
        shown = serve(con, world, period)
        values.append(world.value(period, shown.users, shown.items))
        inbox.put(period, feedback_rows(shown, world.answers(period, shown.users, shown.items)))
        inbox.deliver(con, period)
        if learns:
            result = m6.reweight(con, period="1d", as_of=moment(period, 23), parameters=parameters)
            if watch is not None:
                watch(period, result)
    return values


def set_weights(con: duckdb.DuckDBPyConnection, weights: Floats) -> None:
    """Put the same weights [arms] in force for everybody, in the place of the default."""
    for arm, weight in zip(ARMS, weights, strict=True):
        con.execute("update m6.strategy_weights set weight = ? where strategy = ?", [float(weight), arm])
