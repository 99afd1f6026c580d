"""What the processes of the crash test do: work on a file until killed, or look at what is left of it.

A worker tells over its pipe what it begins (``("in", time, what)``) and, once that is committed, that it is done
(``("ack", time, what)``). Times are of the machine's monotonic clock, the same in every process.
"""

from __future__ import annotations

import itertools
import random
import time
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import lightgbm  # noqa: F401  imported once, before the processes are forked
import polars as pl
import pyarrow.compute  # noqa: F401
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import arrays, builder, functions, load, publish  # noqa: F401
from m6rec_udf.doctor import findings
from m6rec_udf.registry import context_of

VERBS = (m6.connect, m6.load, m6.build, m6.reweight, m6.rollback, m6.publish)  # imported before any fork
LAST = datetime(2024, 7, 20)  # the shop's own behaviour ends here; what the crash test writes comes later
USERS = ("u00", "u17", "u42", "nobody")
NO_GATE = {"gate": False}


def prepare(path: Path) -> None:
    """A built file with two versions of the strategy weights, and published lists."""
    with world.fill(path, world.frames()) as con:
        con.execute("create table few as select user_id from audience limit 20")
        _answered(con, 0)
        m6.reweight(con, parameters=NO_GATE)
        m6.publish(con, k=5)
        m6.publish(con, to=path.with_name("lists.duckdb"), k=5)


def _answered(con: Any, period: int) -> None:
    """A period of lists shown and answered, to learn weights from; the same for the same number."""
    moment = LAST + timedelta(days=10 + period)
    con.execute("begin")
    con.execute(
        "insert into m6.impressions by name from m6.serve_many('few', k := 5, seed := $seed, "
        "request := $request, moment := $moment)",
        {"seed": period, "request": f"p{period}", "moment": moment},
    )
    con.execute(
        "insert into m6.feedback (feedback_id, impression_id, event_type, happened_at, ingested_at) "
        "select 'p-' || impression_id, impression_id, case when (hash(impression_id) + $n) % 3 = 0 then 'purchase' "
        "else 'click' end, shown_at + interval 1 minute, shown_at + interval 1 minute "
        "from m6.impressions where request_id like $like and supporters > 1",
        {"n": period, "like": f"p{period}-%"},
    )
    con.execute("commit")


class Worker:
    """One operation, again and again, told over the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def tell(self, kind: str, what: Any = None) -> None:
        self.pipe.send((kind, time.monotonic(), what))

    def load(self, con: Any, run: int) -> None:
        chance = random.Random(run)
        for n in itertools.count():
            ids = [f"k{run}-{n}-{at}" for at in range(chance.randrange(1, 400))]
            frame = pl.DataFrame(
                {
                    "event_id": ids,
                    "user_id": [chance.choice(world.USERS) for _ in ids],
                    "item_id": [chance.choice(world.ITEMS) for _ in ids],
                    "event_type": ["view"] * len(ids),
                    "happened_at": [LAST + timedelta(days=1, seconds=chance.randrange(10**6)) for _ in ids],
                }
            )
            self.tell("in", {"events": ids})
            m6.load(con, events=frame)
            self.tell("ack", {"events": ids})
            if n % 3 == 2:
                self.tell("in", {})
                con.execute("checkpoint")
                self.tell("ack", {})

    def serve(self, con: Any, run: int) -> None:
        for n in itertools.count():
            user, request = world.USERS[(7 * n + run) % 60], f"s{run}-{n}"
            ids = [f"{request}-{user}-{rank}" for rank in range(1, 11)]
            self.tell("in", {"impressions": ids})
            con.execute("insert into m6.impressions by name from m6.serve(?, k := 10, request := ?)", [user, request])
            self.tell("ack", {"impressions": ids})

    def feedback(self, con: Any, run: int) -> None:
        for n in itertools.count():
            ids = [f"f{run}-{n}"]
            given = [ids[0], world.USERS[(n + run) % 60], world.ITEMS[n % 80]]
            self.tell("in", {"feedback": ids})
            con.execute(
                "insert or ignore into m6.feedback (feedback_id, user_id, item_id, event_type) "
                "values (?, ?, ?, 'click')",
                given,
            )
            self.tell("ack", {"feedback": ids})

    def build(self, con: Any, run: int) -> None:
        con.execute(
            "insert into m6.events (event_id, user_id, item_id, event_type, happened_at) "
            "values ('b' || $1, 'u' || lpad(cast($1 % 60 as varchar), 2, '0'), 'i33', 'purchase', $2)",
            [run, LAST + timedelta(days=2, minutes=run)],
        )
        self.tell("in", {})
        m6.build(con, retrain=run % 2 == 0)
        self.tell("ack", {})

    def reweight(self, con: Any, run: int) -> None:
        _answered(con, run)
        self.tell("in", {})
        m6.reweight(con, parameters=NO_GATE)
        self.tell("ack", {})

    def publish(self, con: Any, run: int) -> None:
        path = Path(context_of(con).path)
        for n in itertools.count():
            self.tell("in", {})
            m6.publish(con, to=path.with_name("lists.duckdb") if (n + run) % 2 else None, k=5)
            self.tell("ack", {})

    def rollback(self, con: Any, run: int) -> None:
        for _ in itertools.count():
            [(now,)] = world.rows(con, "select policy_version from m6.active")
            self.tell("in", {})
            m6.rollback(con, to=1 if now != 1 else 2)
            self.tell("ack", {})


def work(pipe: Connection, operation: str, path: Path, run: int) -> None:
    """Work on the file; ``migration`` and ``reopening`` are the opening itself."""
    worker = Worker(pipe)
    if operation in ("migration", "reopening"):
        worker.tell("in", {})
        con = world.connect(path)
        worker.tell("ack", {})
    else:
        con = world.connect(path)
        worker.tell("ready")
        getattr(worker, operation)(con, run)
    con.close()
    pipe.close()


def in_force(con: Any, *others: int) -> dict[str, Any]:
    """The versions in force, weights and lists as asked before anything the crash test wrote; of other weights too."""
    model, policy = world.rows(con, "select model_version, policy_version from m6.active")[0]
    lists = "select user_id, item_id, strategy, round(satisfaction, 6) from m6.slates($users, "
    lists += f"policy := $policy, until := timestamp '{LAST}') order by user_id, rank"
    weights = "select strategy, round(weight, 9) from m6.strategy_weights where policy_version = ? order by all"
    return {
        "active": (model, policy),
        "answers": {
            (model, number): (
                world.rows(con, weights, [number]),
                world.rows(con, lists, {"users": list(USERS), "policy": number}),
            )
            for number in {policy, *others}
        },
    }


def look(pipe: Connection, path: Path, operation: str, run: int, go_on: bool) -> None:
    """Open the file, check what must hold, do the next thing; sends what was found."""
    con = world.connect(path)
    found: dict[str, Any] = {**in_force(con, *(() if go_on else (1, 2))), "wrong": [], "broken": []}
    for table, key, sequence in (
        ("events", "event_id", "event_seq"),
        ("impressions", "impression_id", None),
        ("feedback", "feedback_id", "feedback_seq"),
    ):
        ids = [key_ for (key_,) in world.rows(con, f"select {key} from m6.{table}")]
        found[table] = set(ids)
        if len(found[table]) < len(ids):
            found["broken"].append(f"{table}: {len(ids) - len(found[table])} rows twice")
        if sequence and world.rows(con, f"select 1 from m6.{table} group by {sequence} having count(*) > 1"):
            found["broken"].append(f"{table}: numbers twice")
    _whole(con, found)
    _answers(con, found)
    found |= in_force(con)
    published = [world.rows(con, "select count(*), count(distinct user_id) from m6.recommendations")]
    target = path.with_name("lists.duckdb")
    if target.exists():
        with duckdb.connect(str(target), read_only=True) as other:
            published.append(world.rows(other, "select count(*), count(distinct user_id) from m6.recommendations"))
    for [(rows, users)] in published:
        if not users or rows % users:
            found["broken"].append(f"published: {rows} rows of {users} users")
    if go_on:
        _next(con, operation, run)
        found["next"] = in_force(con, 1, 2)  # where rollback goes to
    con.close()
    pipe.send(found)
    pipe.close()


def _whole(con: Any, found: dict[str, Any]) -> None:
    """The version in force: artefacts against their hashes, tables against each other, loads against their account."""
    version, _ = found["active"]
    snapshot = arrays.load(con, version)
    for name, sql in {
        "an item without a vector": "select 1 from m6.stg_items anti join m6.item_vectors using (item_id)",
        "accounts": "select 1 from m6.load_batches where given <> loaded + rejected + already_there",
        "a load in halves": "select 1 from m6.load_batches as b where table_name = 'events' and loaded <> "
        "(select count(*) from m6.events as e where e.batch_id = b.batch_id)",
        "histories of another version": "select 1 from m6.history_marks, m6.active "
        "where history_marks.model_version <> active.model_version",
        "marks without histories": "select 1 from m6.history_marks where not exists (from m6.stored_histories)",
        "weights": "select 1 from m6.strategy_weights_active group by domain, segment "
        "having abs(sum(weight) - 1) > 1e-6",
        "migrations": "select 1 from m6.migrations group by name having count(*) > 1",
    }.items():
        if world.rows(con, sql + " limit 1"):
            found["broken"].append(name)
    if world.rows(con, "select count(*) from m6.stg_items") != [(snapshot.n,)]:
        found["broken"].append("items of the version")
    found["broken"] += [row.check for row in findings(con) if row.status == "fail"]


def _answers(con: Any, found: dict[str, Any]) -> None:
    """Lists and histories now, from what is stored with what came later, beside the plain tables and the batch."""
    users = list(USERS)
    read = world.rows(
        con,
        "select user_id, h.item_id, cast(round(h.happened_at) as bigint) from "
        "(select user_id, unnest(history) as h from m6.user_history($users)) order by all",
        {"users": users},
    )
    plain = world.rows(
        con,
        "select user_id, item_id, cast(round(epoch(happened_at)) as bigint) from m6.behaviour "
        "where list_contains($users, user_id) order by all",
        {"users": users},
    )
    many = world.rows(con, "select user_id, rank, item_id from m6.slates($users) order by all", {"users": users})
    for user in users:
        one = world.rows(con, "select user_id, rank, item_id from m6.one_list($1) order by all", [user])
        own = [[row for row in rows if row[0] == user] for rows in (read, plain, many)]
        if own[0] != own[1] or own[2] != one or len(one) != 10:
            found["wrong"].append(user)


def _next(con: Any, operation: str, run: int) -> None:
    """The next operation of each kind must succeed."""
    con.execute("insert into m6.impressions by name from m6.serve('u00', k := 3, request := 'next-' || ?)", [run])
    con.execute(
        "insert into m6.feedback by name select 'next-' || ? || '-u00-1' as impression_id, 'click' as event_type", [run]
    )
    m6.load(
        con,
        events=pl.DataFrame({"user_id": ["u01"], "item_id": ["i02"], "happened_at": [LAST + timedelta(days=3)]}),
    )
    if operation == "build":
        m6.build(con)
    elif operation == "reweight":
        m6.reweight(con, parameters=NO_GATE)
    elif operation == "publish":
        m6.publish(con, k=5)
        m6.publish(con, to=Path(context_of(con).path).with_name("lists.duckdb"), k=5)
    elif operation == "rollback":
        m6.rollback(con, to=1)
        m6.rollback(con, to=2)


def redo(pipe: Connection, path: Path, operation: str, run: int) -> None:
    """The operation once, to the end, on a copy of what the killed process was given: what it would have left."""
    silent = Worker(pipe)
    silent.tell = lambda *_: None  # type: ignore[method-assign]
    with world.connect(path) as con:
        getattr(silent, operation)(con, run)
        found = in_force(con)
    pipe.send(found)
    pipe.close()


def start(pipe: Connection, path: Path) -> None:
    """Prepare the file in a process of its own."""
    prepare(path)
    pipe.send("prepared")
    pipe.close()
