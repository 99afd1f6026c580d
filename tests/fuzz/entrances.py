"""One function per entrance: makes one hostile call and checks what comes back."""

# ruff: noqa: E501 (statements and their values, one a line)
from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import polars as pl
import tables
from world import World, connect, m6, require

from m6rec_udf import models, project

_LISTED = (None, "null", 0, 1, 3, 10, 79, 500, -1, 2**31 - 1, 2**31, 10**9, 2.5, "x", "nan")
_NAMED = ("picked", "odd", "empty", "m6.available_items")


def load(world: World, rng: random.Random) -> None:
    """Any table in any form, twice: accounted for, and the second load changes nothing."""
    con = world.bare
    name = rng.choice(list(tables.COLUMNS))
    form = rng.choice(tables.FORMS)
    frame = tables.table(rng, name)
    if not tables.can_be(form, frame):
        form = rng.choice(["arrow", "reader", "polars"])
    options: dict[str, Any] = {}
    if rng.random() < 0.2:
        options["columns"] = {
            rng.choice([name, name, "nowhere"]): {
                rng.choice(frame.column_names): rng.choice(["user_id", "item_id", "x"])
            }
        }
    if rng.random() < 0.2:
        options["default_time"] = rng.choice([*hostile.TIMES, *hostile.TIME_TEXTS, 5, "x"])
    if rng.random() < 0.05:
        options["wide"] = {rng.choice([*frame.column_names, "no"]): rng.choice(["view", "rating", "nope"])}
    data = tables.in_form(rng, form, frame, world.folder, con)
    before = _sizes(world, name)
    report = m6.load(con, **{name: data}, **options)[name]
    after = _sizes(world, name)
    given = report.given
    require(given == report.loaded + report.rejected + report.already_there, f"{name}: {report} does not add up")
    require(min(report.loaded, report.rejected, report.already_there) >= 0, f"{name}: {report} is negative")
    require(sum(report.reasons.values()) == report.rejected, f"{name}: reasons of {report} do not add up")
    is_wide = "wide" in options or (name == "events" and set(frame.column_names) & set(tables.WIDE))
    is_sure = not isinstance(data, list) and not is_wide and not (form == "csv" and frame.num_columns == 1)
    require(not is_sure or given == frame.num_rows, f"{name} as {form}: given {given}, expected {frame.num_rows}")
    is_log = name in ("events", "feedback")
    require(not is_log or after[0] - before[0] == report.loaded, f"{name}: {report.loaded} loaded, {before} to {after}")
    require(after[1] - before[1] in (0, report.rejected), f"{name}: {report} but rejected_rows {before} to {after}")
    world.counts.reasons.update({_general(reason): count for reason, count in report.reasons.items()})
    for end in ("given", "loaded", "rejected", "already_there"):
        world.counts.rows[end] += getattr(report, end)
    if form in ("arrow", "polars", "parquet") and given and not is_wide:
        again = m6.load(con, **{name: data}, **options)[name]
        require(again.loaded == 0, f"{name} as {form}: a second load of the same rows loaded {again.loaded}")
        require(_sizes(world, name) == after, f"{name} as {form}: a second load changed the tables")
    if rng.random() < 0.05:
        for own in ("events", "feedback", "items", "users", "relations", "rejected_rows", "load_batches"):
            con.execute(f"delete from m6.{own}")


def _sizes(world: World, name: str) -> tuple[int, int]:
    row = world.bare.execute(f"select (select count(*) from m6.{name}), (select count(*) from m6.rejected_rows)")
    return row.fetchall()[0]


def _general(reason: str) -> str:
    return reason.partition(", expected")[0][:60]


def damaged_file(world: World, rng: random.Random) -> None:
    """A file that is not what its name says."""
    ending = rng.choice(["csv", "parquet", "json", "jsonl", "csv.gz", "txt", "xlsx", ""])
    path = world.folder / f"damaged.{ending}"
    source = rng.choice(
        [b"user_id,item_id,happened_at\nu1,i1,2024-01-01\n", b'{"user_id": "u1"}', b"PAR1", b"", rng.randbytes(200)]
    )
    path.write_bytes(hostile.damaged(rng, source))
    report = m6.load(world.bare, events=rng.choice([str(path), path, [str(path)], [path, str(path)]]))["events"]
    require(report.given == report.loaded + report.rejected + report.already_there, f"{report} does not add up")


def wrong_kind(world: World, rng: random.Random) -> None:
    """Something that is no table at all."""
    m6.load(
        world.bare,
        **{
            rng.choice(list(tables.COLUMNS)): rng.choice(
                [5, {}, [], object(), {"user_id": [1]}, "x", "*.csv", "", b"x", [1, 2], pl.Series([1])]
            )
        },
    )


def _listed(rng: random.Random, *names: str) -> tuple[str, list[Any]]:
    """Named arguments as SQL and their values."""
    pool: dict[str, Callable[[], Any]] = {
        "k": lambda: rng.choice(_LISTED),
        "in_domain": lambda: rng.choice(["movies", "books", "'; --", "🛒", "", None, hostile.text(rng), 5]),
        "among": lambda: rng.choice([*_NAMED, *hostile.SQL_NAMES]),
        "boosts": lambda: rng.choice(["margin", "odd", "empty", "m6.no_boosts", *hostile.SQL_NAMES]),
        "diversity": lambda: hostile.number(rng),
        "calibrated": lambda: hostile.number(rng),
        "exclude_seen": lambda: rng.choice([True, False, None, "x", 5]),
        "until": lambda: rng.choice([*hostile.TIMES, *hostile.TIME_TEXTS, None]),
        "version": lambda: rng.choice([1, 0, -1, 99, None, "x", 2**63 - 1]),
        "policy": lambda: rng.choice([1, 0, -1, 99, None, "x"]),
        "seed": lambda: rng.choice([*hostile.INTEGERS, None, "x", 0.5]),
        "request": lambda: rng.choice([hostile.text(rng), None, 5]),
        "moment": lambda: rng.choice([*hostile.TIMES, *hostile.TIME_TEXTS, None]),
        "share": lambda: hostile.number(rng),
        "latest": lambda: rng.choice(_LISTED),
        "since": lambda: rng.choice([*hostile.TIMES, *hostile.TIME_TEXTS, None]),
        "a": lambda: rng.choice(["version_1", "policy_1", "version_99", hostile.text(rng), None]),
        "b": lambda: rng.choice(["version_1", "policy_1", "version_99", hostile.text(rng), None]),
    }
    chosen = [name for name in names if rng.random() < 0.25]
    return "".join(f", {name} := ?" for name in chosen), [pool[name]() for name in chosen]


def _user(rng: random.Random) -> Any:
    return rng.choice(["u01", "u17", "nobody", None, 5]) if rng.random() < 0.5 else hostile.text(rng)


_FILTERS = ("k", "in_domain", "among", "boosts", "diversity", "calibrated", "exclude_seen")
_ITEM_MACROS: dict[str, tuple[Callable[[random.Random], Any], tuple[str, ...]]] = {
    "similar_items": (lambda rng: rng.choice(["i01", "i99", None, hostile.text(rng)]), ("k", "in_domain", "among")),
    "bought_together": (lambda rng: rng.choice(["i01", "i99", None, hostile.text(rng)]), ("k",)),
    "search_items": (lambda rng: hostile.text(rng, longest=3000), ("k", "in_domain", "among")),
    "recommend_for_text": (lambda rng: hostile.text(rng, longest=3000), ("k", "in_domain", "among")),
    "recommend_by_behavior_text": (_user, ("k",)),
    "recommend_by_profile": (_user, ("k",)),
}


def recommend(world: World, rng: random.Random) -> None:
    """One user's list: as long as asked for, ranks in order, figures finite, nothing outside the filters."""
    more, values = _listed(rng, *_FILTERS, "until", "version")
    user = _user(rng)
    rows = _rows(world, f"from m6.recommend(?{more})", [user, *values])
    _check_list(world, rows, dict(zip(more.replace(" := ?", "").split(", ")[1:], values, strict=True)))


def recommend_many(world: World, rng: random.Random) -> None:
    """Lists of the users of a table."""
    more, values = _listed(rng, *_FILTERS, "until", "version")
    rows = _rows(world, f"from m6.recommend_many(?{more})", [rng.choice(["audience", *hostile.SQL_NAMES]), *values])
    for row in rows:
        require(row["score"] is None or math.isfinite(row["score"]), f"score {row['score']}")


def serve(world: World, rng: random.Random) -> None:
    """A list to show: propensities in (0, 1] where there are any."""
    more, values = _listed(rng, *_FILTERS, "policy", "version", "seed", "request", "moment")
    verb, first = ("serve", _user(rng)) if rng.random() < 0.8 else ("serve_many", "odd")
    for row in _rows(world, f"from m6.{verb}(?{more})", [first, *values]):
        require(row["propensity"] is None or 0 < row["propensity"] <= 1 + 1e-9, f"propensity {row['propensity']}")
        require(row["score"] is None or math.isfinite(row["score"]), f"score {row['score']}")


def items(world: World, rng: random.Random) -> None:
    """The macros that list items for an item or a text."""
    name = rng.choice(list(_ITEM_MACROS))
    first, names = _ITEM_MACROS[name]
    more, values = _listed(rng, *names)
    rows = _rows(world, f"from m6.{name}(?{more})", [first(rng), *values])
    require([row["rank"] for row in rows] == list(range(1, len(rows) + 1)), f"{name}: ranks {rows}")


def people(world: World, rng: random.Random) -> None:
    """The macros about one user, and those about everybody."""
    verb = rng.choice(["explain", "history", "behavior_text", "trending", "m6_embed", "assign"])
    if verb == "explain":
        more, values = _listed(rng, "until", "version")
        _rows(
            world,
            f"from m6.explain(?, ?{more})",
            [_user(rng), rng.choice(["i01", "i99", None, hostile.text(rng)]), *values],
        )
    elif verb == "history":
        more, values = _listed(rng, "k")
        _rows(world, f"from m6.history(?{more})", [_user(rng), *values])
    elif verb == "behavior_text":
        more, values = _listed(rng, "k")
        ((row),) = _rows(world, f"select m6.behavior_text(?{more}) as said", [_user(rng), *values])
        require(row["said"] is not None, "behavior_text is NULL")
    elif verb == "trending":
        k = rng.choice(_LISTED)
        _rows(world, "from m6.trending(k := ?, in_domain := ?)", [k, rng.choice([None, "movies", hostile.text(rng)])])
    elif verb == "m6_embed":
        (row,) = _rows(world, "select m6_embed(?) as v", [rng.choice([None, hostile.text(rng, longest=3000)])])
        require(row["v"] is None or all(map(math.isfinite, row["v"])), "a vector is not finite")
    else:
        more, values = _listed(rng, "share")
        _rows(world, f"select m6.assign(?, ?{more})", [_user(rng), hostile.text(rng), *values])


def loop(world: World, rng: random.Random) -> None:
    """The macros of the feedback loop."""
    verb = rng.choice(
        [
            "policy_value",
            "decide",
            "what_if",
            "ab_report",
            "interleave",
            "shadow_lists",
            "policy_number",
            "ranker",
            "model_number",
            "calibration",
            "log_value",
            "interleave_report",
            "slate_value",
            "sign_test",
        ]
    )
    name = rng.choice(["candidate", "active", "champion", "policy_1", "policy_99", "1", 1, 99, None, hostile.text(rng)])
    if verb in ("policy_value", "decide"):
        _rows(world, f"from m6.{verb}(?)", [name])
    elif verb == "what_if":
        more, values = _listed(rng, "version", "policy", *_FILTERS[2:])
        _rows(world, f"from m6.what_if(?{more})", [rng.choice(["r1-u01", None, hostile.text(rng)]), *values])
    elif verb == "ab_report":
        more, values = _listed(rng, "share", "since", "until")
        _rows(world, f"from m6.ab_report(?{more})", [hostile.text(rng), *values])
    elif verb == "interleave":
        more, values = _listed(rng, "a", "b", *_FILTERS, "seed", "request", "moment")
        _rows(world, f"from m6.interleave(?{more})", [_user(rng), *values])
    elif verb == "shadow_lists":
        more, values = _listed(rng, "latest", *_FILTERS)
        _rows(world, f"from m6.shadow_lists(?{more})", [name, *values])
    elif verb in ("policy_number", "ranker", "model_number"):
        _rows(world, f"select m6.{verb}(?)", [name])
    elif verb == "interleave_report":
        more, values = _listed(rng, "since", "until")
        _rows(world, f"from m6.interleave_report({more.removeprefix(', ')})", values)
    elif verb == "sign_test":
        _rows(world, "select m6.sign_test(?, ?)", [hostile.number(rng), hostile.number(rng)])
    elif verb == "calibration":
        _rows(world, "from m6.calibration(?, bins := ?)", [rng.choice(hostile.SQL_NAMES), rng.choice(_LISTED)])
    else:
        _rows(world, f"from m6.{verb}(?)", [rng.choice(hostile.SQL_NAMES)])


def functions(world: World, rng: random.Random) -> None:
    """The Python functions, called by hand with arguments no macro would give."""
    version = rng.choice([1, 0, -1, 99, None])
    vector = [rng.choice([0.0, 1.0, float("nan"), float("inf"), 1e38]) for _ in range(rng.choice([0, 1, 31, 32, 33]))]
    calls: list[tuple[str, list[Any]]] = [
        ("select m6_user_vector(?::float[][], ?::float[])", [[vector] * rng.randrange(3), vector[: rng.randrange(3)]]),
        ("select m6_weighted_sum(?::float[][], ?::float[])", [[vector, vector[:1]], [1.0, 2.0]]),
        ("select m6_satisfaction(?::bigint, ?::float[])", [version, vector]),
        (
            "select m6_nearest(?::bigint, ?::float[], ?, ?::bigint, ?::bigint, ?::integer)",
            [
                version,
                vector,
                rng.choice([None, "movies", "x"]),
                rng.choice([None, 0, 5]),
                rng.choice([None, 7]),
                rng.choice([0, 1, -1, 10, None]),
            ],
        ),
        ("from m6.nearest_items(?::float[], k := ?)", [vector, rng.choice([0, 3, -1, None])]),
        (
            "select m6_unpacked_history(?::bigint, ?::blob)",
            [version, rng.choice([None, b"", b"x", bytes(20), bytes(19), rng.randbytes(40)])],
        ),
        (
            "select m6_item_set(?::varchar[], ?::double[])",
            [rng.choice([None, [], ["i01", None, "x"]]), rng.choice([None, [], [1.0], [float("nan"), 1.0, 2.0]])],
        ),
        ("select m6_evidence(?::bigint, ?, [])", [version, hostile.text(rng)]),
        ("select m6_context(?)", [rng.choice([None, hostile.text(rng)])]),
    ]
    _rows(world, *rng.choice(calls))


def feedback(world: World, rng: random.Random) -> None:
    """Feedback, events and configuration written with SQL, then read by a list; undone afterwards."""
    con = world.shop
    values = [
        hostile.text(rng),
        _user(rng),
        rng.choice(["i01", hostile.text(rng)]),
        rng.choice(["click", "nope", "", None]),
        hostile.number(rng),
        rng.choice(hostile.TIMES),
    ]
    statements: list[tuple[str, list[Any]]] = [
        (
            "insert into m6.feedback (feedback_id, user_id, item_id, event_type, value, happened_at) values (?, ?, ?, ?, ?, ?)",
            values,
        ),
        (
            "insert into m6.feedback (impression_id, event_type, value) values (?, ?, ?)",
            [rng.choice(["r1-u01-1", hostile.text(rng)]), values[3], values[4]],
        ),
        (
            "insert into m6.events (event_id, user_id, item_id, event_type, value, happened_at) values (?, ?, ?, ?, ?, ?)",
            values,
        ),
        (
            "insert into m6.events (user_id, item_id, event_type, value, happened_at) select 'u01', 'i0' || x % 10, 'view', ?, ? from range(300) as t(x)",
            values[4:],
        ),
        (
            "update m6.event_types set interest = ?, satisfaction = ? where event_type = 'view'",
            [hostile.number(rng), hostile.number(rng)],
        ),
        (
            "update m6.event_types set value_low = ?, value_high = ? where event_type = 'rating'",
            [hostile.number(rng), hostile.number(rng)],
        ),
        ("delete from m6.event_types where event_type = ?", [rng.choice(["view", "rating", "click", "purchase"])]),
        (
            "update m6.strategies set is_enabled = ? where strategy = ?",
            [rng.random() < 0.5, rng.choice(["popular", "blended", "semantic"])],
        ),
        ("update m6.strategies set is_enabled = false", []),
        ("update m6.strategy_weights set weight = ?", [hostile.number(rng)]),
        ("update m6.strategy_weights set strategy = strategy || ?", [hostile.text(rng)]),
        ("delete from m6.strategy_weights where random() < 0.5", []),
        ("update m6.items set is_available = false where random() < ?", [rng.choice([0.5, 0.99, 1.0])]),
        ("update m6.users set segment = ? where user_id = 'u01'", [hostile.text(rng)]),
        ("update m6.items set title = ?, price = ? where item_id = 'i01'", [hostile.text(rng), hostile.number(rng)]),
        ("update m6.active set policy_version = ?", [rng.choice([None, 99, -1])]),
        ("delete from m6.stored_histories where user_id = 'u01'", []),
        ("delete from m6.items where random() < ?", [rng.choice([0.1, 1.0])]),
    ]
    con.execute("begin")
    try:
        for _ in range(rng.choice([1, 1, 2])):
            con.execute(*rng.choice(statements))
        question = rng.choice(
            [
                "recommend('u01')",
                "serve('u01', seed := 1)",
                "recommend('u02')",
                "strategy_report()",
                "policy_value('active')",
                "history('u01')",
                "trending()",
                "explain('u01', 'i01')",
                "recommend_many('audience', k := 3)",
            ]
        )
        for row in _rows(world, f"from m6.{question}", []):
            score = row.get("score")
            require(score is None or math.isfinite(score), f"score {score} from {question}")
            satisfaction = row.get("satisfaction")
            require(satisfaction is None or 0 <= satisfaction <= 1, f"satisfaction {satisfaction} from {question}")
    finally:
        con.execute("rollback")


def verbs(world: World, rng: random.Random) -> None:
    """The Python verbs with arguments of the wrong kind."""
    con = world.shop
    name = rng.choice(hostile.SQL_NAMES + hostile.TEXTS)
    odd = rng.choice([None, -1, 0, 99, 2.5, "x", float("nan"), True, [], name])
    calls: list[Callable[[], Any]] = [
        lambda: m6.rollback(con, to=odd if odd is not None else 99),
        lambda: m6.adopt(con, odd),
        lambda: m6.reweight(con, period=str(odd)),
        lambda: m6.publish(con, to=world.folder / "nowhere" / "x.duckdb"),
        lambda: m6.publish(con, k=odd if odd is not None else 0),
        lambda: m6.snapshot(con, world.folder / "nowhere" / "x.duckdb"),
        lambda: m6.use_tables(con, events=name),
        lambda: m6.use_tables(con, items=name, columns={"items": {name: "item_id"}}),
        lambda: m6.build(con, satisfaction=name),
        lambda: m6.policy_value(con, log=name, target=rng.choice([None, name])).fetchall(),
        lambda: m6.policy_value(con, odd).fetchall(),
        lambda: m6.features(con, name, events=tables.table(rng, "events")),
        lambda: m6.features(con, "feat_item_activity", events=tables.table(rng, "events")),
        lambda: m6.compact(world.folder / "no such file.duckdb"),
        lambda: m6.forget_user(con, f"{name} who is not here"),
        lambda: m6.calibration(con, test_share=odd),
    ]
    rng.choice(calls)()


def settings(world: World, rng: random.Random) -> None:
    """A project's settings file and its SQL: the names, the references, circles."""
    folder = world.folder / "project"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sql" / "strategies").mkdir(parents=True)
    lines = [
        rng.choice(
            [
                'database = "x.duckdb"',
                "database = 5",
                f"encoder = {hostile.text(rng)!r}",
                hostile.text(rng),
                "a = [",
                "[table]",
            ]
        )
        for _ in range(rng.randrange(3))
    ]
    (folder / "m6rec.toml").write_bytes(hostile.damaged(rng, "\n".join(lines).encode("utf-8", "replace")))
    if rng.random() < 0.5:
        project.settings(folder)
    stems = rng.choice([["cand_a", "cand_b"], ["cand_A"], ["x; drop"], ["cand_é"], ["cand_a b"], ["cand_popular"]])
    for stem, other in zip(stems, [*stems[1:], stems[0]], strict=True):
        body = rng.choice(
            [f"select * from {other}", "", "-- nothing", hostile.text(rng), f"select $as_of, $x from {other}"]
        )
        (folder / "sql" / "strategies" / f"{stem}.sql").write_bytes(
            hostile.damaged(rng, body.encode("utf-8", "replace"))
            if rng.random() < 0.3
            else body.encode("utf-8", "replace")
        )
    models.ordered(models.collect(folder))


def artefacts(world: World, rng: random.Random) -> None:
    """A build whose stored arrays were damaged: refused, never read."""
    path = Path(shutil.copy(world.copied, world.folder / "artefacts.duckdb"))
    con = connect(path)
    try:
        names = [row[0] for row in con.execute("select name from m6.artefacts order by name").fetchall()]
        name = rng.choice(names)
        ((content,),) = con.execute("select content from m6.artefacts where name = ?", [name]).fetchall()
        broken = hostile.damaged(rng, content)
        if rng.random() < 0.2:
            con.execute("delete from m6.artefact_names where name = ?", [name])
        else:
            con.execute(
                "update m6.artefact_contents set content = ? "
                "where content_hash in (select content_hash from m6.artefact_names where name = ?)",
                [broken, name],
            )
        answered = con.execute("from m6.recommend('u01')").fetchall()
        require(broken == content and bool(answered), f"a list was made with the damaged artefact {name}")
    finally:
        con.close()


def big(world: World, rng: random.Random) -> None:
    """Few and large: 10 MB of text, 100,000 tags, long ids."""
    con = world.bare
    megabytes = rng.choice(["x", "🛒", "'", "a b "]) * (10_000_000 // 4)
    frame = pl.DataFrame(
        {
            "item_id": ["big", megabytes[: rng.choice([100, 1_000_000])]],
            "title": [megabytes, "x"],
            "tags": [[f"tag {n}" for n in range(100_000)], []],
        }
    )
    report = m6.load(con, items=frame)["items"]
    require(report.given == 2 == report.loaded + report.rejected + report.already_there, f"{report} does not add up")
    kind = rng.randrange(3)
    if kind == 0:
        rows = world.shop.execute("from m6.search_items(?)", [megabytes]).fetchall()
        require(len(rows) == 10, f"{len(rows)} items for a long text")
    elif kind == 1:
        require(len(world.shop.execute("from m6.recommend(?)", [megabytes]).fetchall()) == 10, "no list for a long id")
    con.execute("delete from m6.items")


def build(world: World, rng: random.Random) -> None:
    """A small hostile log from load to list: builds or says why not, and the list is whole."""
    path = world.folder / "small.duckdb"
    for own in (path, path.with_name(path.name + ".wal")):
        own.unlink(missing_ok=True)
    con = connect(path)
    try:
        for name in ("items", "users", "relations", "events"):
            frame = tables.table(rng, name)
            try:
                m6.load(con, **{name: frame})
            except m6.M6Error:
                continue
        ids = [t for t in hostile.TEXTS if t.strip()]
        rows = [
            (rng.choice(ids), rng.choice(ids), rng.choice(["view", "purchase"]), None, rng.choice(hostile.TIMES[5:]))
            for _ in range(rng.choice([0, 1, 5, 60]))
        ]
        schema = ["user_id", "item_id", "event_type", "value", "happened_at"]
        if rows:
            m6.load(con, events=pl.DataFrame(rows, schema=schema, orient="row"))
        m6.build(con)
        there = con.execute("select count(*) from m6.items where is_available").fetchall()[0][0]
        listed = con.execute("from m6.recommend('u1', k := 5)").fetchall()
        require(len(listed) >= min(5, there), f"{len(listed)} items, expected {min(5, there)}")
    finally:
        con.close()


def _rows(world: World, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
    cursor = world.shop.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _check_list(world: World, rows: list[dict[str, Any]], asked: dict[str, Any]) -> None:
    require([row["rank"] for row in rows] == list(range(1, len(rows) + 1)), f"ranks of {asked}")
    require(len({row["item_id"] for row in rows}) == len(rows), f"an item twice for {asked}")
    for row in rows:
        require(row["score"] is None or math.isfinite(row["score"]), f"score {row['score']} for {asked}")
        require(row["satisfaction"] is None or 0 <= row["satisfaction"] <= 1, f"{row['satisfaction']} for {asked}")
    if not set(asked) & {"among", "in_domain", "version", "until", "k"}:
        require(len(rows) == 10, f"{len(rows)} items for {asked}, expected 10")


ENTRANCES: dict[str, tuple[float, Callable[[World, random.Random], None]]] = {
    "load": (1000, load),
    "load, damaged file": (500, damaged_file),
    "load, no table": (400, wrong_kind),
    "recommend": (1400, recommend),
    "recommend_many": (50, recommend_many),
    "serve": (400, serve),
    "items and search": (1300, items),
    "people": (1500, people),
    "loop": (100, loop),
    "functions": (2000, functions),
    "feedback, settings in SQL": (120, feedback),
    "verbs": (40, verbs),
    "project": (1500, settings),
    "artefacts": (5, artefacts),
    "10 MB, 100,000 tags": (1.5, big),
    "build": (2, build),
}
