"""The main job on real data: load, build, recommend, evaluate, turn the loop once, and what to type next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf import resources
from m6rec_udf.console import Progress, format_table, print_table
from m6rec_udf.errors import ParameterError
from m6rec_udf.query import one

DATABASES = {"movielens": "warehouse/m6rec.duckdb", "grocery": "warehouse/m6rec_grocery.duckdb"}
ABOUT = {
    "movielens": "MovieLens (GroupLens; real ratings of real people, 1995-2016, non-commercial use)",
    "grocery": "Complete Journey (84.51; households and purchases of 2017, simulated by its makers)",
}
REQUEST = "simulated"
LISTS_PER_USER = 3


def run(dataset: str = "movielens", database: str | Path | None = None, encoder: Any = None) -> None:
    """Run the main job and print it.

    Args:
        dataset: "movielens" or "grocery"; both come from the packages of the extra ``demo``.
        database: the file it leaves; default: ``warehouse/m6rec.duckdb`` (``warehouse/m6rec_grocery.duckdb``).
        encoder: see ``connect``.

    Raises:
        MissingExtraError: the packages of the extra are not installed.
        ParameterError: there is no such data set.
    """
    from m6rec_udf.connection import connect

    if dataset not in DATABASES:
        raise ParameterError(f"there is no demo data set {dataset!r}, expected one of {', '.join(DATABASES)}")
    path = str(database or DATABASES[dataset])
    con = connect(path, encoder=encoder)
    try:
        with Progress() as progress:
            _load(con, dataset)
            _build(con, progress)
        _people(con)
        with Progress() as progress:
            _evaluate(con, progress)
        _loop(con)
        _next(con, path)
    finally:
        con.close()


def _head(text: str) -> None:
    print(f"\n== {text}")


def _load(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    from m6rec_udf import datasets
    from m6rec_udf.load import load

    _head(f"Load: {ABOUT[dataset]}")
    read: Callable[[], dict[str, Any]] = {"movielens": datasets.movielens, "grocery": datasets.grocery}[dataset]
    report = load(con, **read())
    print(report)
    if not any(report[table].loaded for table in report):
        print("Reused: every row was there already, nothing was loaded twice.")


def _build(con: duckdb.DuckDBPyConnection, progress: Progress) -> None:
    from m6rec_udf.builder import build
    from m6rec_udf.registry import context_of

    _head("Build: features, vectors, item models, satisfaction")
    built = con.execute(
        "select m.model_version from m6.active_version as a inner join m6.models as m using (model_version) "
        "where m.encoder = ? and m.event_seq = (select max(event_seq) from m6.events)",
        [context_of(con).encoder.name],
    ).fetchall()
    if built:
        print(f"Reused: model_version {built[0][0]} has read every event.")
        return
    report = build(con, progress=progress)
    progress.close()
    print(
        f"model_version {report.model_version} as of {report.as_of} in {sum(report.seconds.values()):.0f} s; "
        f"{report.embedded} of {report.texts} texts embedded, {report.rows} training rows. It decided:"
    )
    print_table(["setting", "value", "why"], report.decisions)


def _people(con: duckdb.DuckDBPyConnection) -> None:
    """Recent history and lists of three people spread over the activity range, and of somebody unknown."""
    users = con.execute(
        "select user_id from (select user_id, items, ntile(4) over (order by items, user_id) as quarter "
        "from m6.feat_user_activity where items >= 5) "
        "qualify row_number() over (partition by quarter order by user_id) = 1 and quarter > 1 order by quarter"
    ).fetchall()
    for (user_id,) in users:
        _head(f"User {user_id}: the latest of the history")
        _show(
            con,
            "select h.happened_at, h.event_type, h.value, coalesce(h.title, h.item_id) as title "
            "from m6.history($user, k := 5) as h",
            user_id,
        )
        _list(con, user_id, f"Ten recommendations for user {user_id}")
    _list(con, "somebody-new", "Ten recommendations for somebody nobody knows")


def _list(con: duckdb.DuckDBPyConnection, user_id: str, title: str) -> None:
    _head(title)
    _show(
        con,
        "select r.rank, coalesce(i.title, r.item_id) as title, i.category, round(r.satisfaction, 3) as satisfaction, "
        "r.strategy, r.reason from m6.recommend($user, k := 10) as r left join m6.items as i using (item_id) "
        "order by r.rank",
        user_id,
    )


def _show(con: duckdb.DuckDBPyConnection, query: str, user_id: str) -> None:
    relation = con.sql(query, params={"user": user_id})
    print(format_table(relation.columns, relation.fetchall(), width=48))


def _evaluate(con: duckdb.DuckDBPyConnection, progress: Progress) -> None:
    from m6rec_udf.backtest import Backtest
    from m6rec_udf.evaluate import evaluate

    _head("Off-line evaluation: everything learned from the first 90 % of the events, tested on what came next")
    latest = (
        "select run_id from m6.runs where kind = 'evaluate' and status = 'done' and started_at >= "
        "(select max(loaded_at) from m6.load_batches) order by started_at desc limit 1"
    )
    run_id = one(con, latest)[0]
    if run_id is not None:
        print(f"Reused: the figures of run {run_id}, no event was loaded since.")
    else:
        evaluate(con, recommender=Backtest(progress=progress))
        progress.close()
        run_id = one(con, "select run_id from m6.runs where kind = 'evaluate' order by started_at desc limit 1")[0]
    relation = con.sql(
        "select method, slice, metric, round(value, 4) as value, round(low, 4) as low, round(high, 4) as high, "
        "n as users "
        "from m6.metrics where run_id = $run and metric in ('ndcg@10', 'coverage@10') and slice in ('all', 'warm') "
        "order by metric desc, slice, starts_with(method, 'm6rec - '), value desc",
        params={"run": run_id},
    )
    print(format_table(relation.columns, relation.fetchall()))
    print("low and high: 95 % interval over users; 'm6rec - x' is the paired difference.")


def _loop(con: duckdb.DuckDBPyConnection) -> None:
    from m6rec_udf.reweight import reweight

    _head("The loop, once: serve, feedback, reweight (the audience is SIMULATED, ids start with 'simulated')")
    served = one(con, "select count(*) from m6.impressions where starts_with(request_id, ?)", [REQUEST])[0]
    if served:
        print(f"Reused: {served} simulated impressions of an earlier run and what was learned from them.")
        _weights(con)
        return
    before = one(con, "select policy_version from m6.active")[0]
    for turn in range(LISTS_PER_USER):
        con.execute(
            "insert into m6.impressions by name from m6.serve_many('m6.known_users', k := 10, seed := $seed, "
            "request := $request, moment := (select max(happened_at) from m6.events) + interval 1 hour)",
            {"seed": turn, "request": f"{REQUEST}-{turn}"},
        )
    clicks = con.execute(
        "insert into m6.feedback by name " + resources.read_sql("demo", "simulated_feedback"), {"request": REQUEST}
    ).fetchall()[0][0]
    served = one(con, "select count(*) from m6.impressions where starts_with(request_id, ?)", [REQUEST])[0]
    print(f"{served} items shown and logged with their propensities, {clicks} simulated clicks.")
    result = reweight(con)
    print(f"reweight: {result['status']}, {result['reason']}; policy_version {before} -> {result['policy_version']}")
    _weights(con)


def _weights(con: duckdb.DuckDBPyConnection) -> None:
    relation = con.sql(
        "with versions as (select policy_version, parent from m6.policy_versions "
        "where policy_version = (select max(policy_version) from m6.policy_versions)) "
        "select s.strategy, round(any_value(w.weight) filter (where w.policy_version = v.parent), 4) as before, "
        "round(any_value(w.weight) filter (where w.policy_version = v.policy_version), 4) as after "
        "from versions as v cross join m6.strategy_weights as w inner join m6.strategies as s using (strategy) "
        "where w.domain = '*' and w.segment = '*' group by s.strategy, s.bit order by s.bit"
    )
    print(format_table(relation.columns, relation.fetchall()))


def _next(con: duckdb.DuckDBPyConnection, path: str) -> None:
    user, item = con.execute(
        "select user_id, (select item_id from m6.trending(k := 1)) from m6.feat_user_activity "
        "order by items desc, user_id limit 1"
    ).fetchall()[0]
    _head(f"Go on: m6rec sql --database {path}")
    print(
        f"""from m6.recommend('{user}', k := 10, diversity := 0.3);
from m6.explain('{user}', '{item}');
from m6.similar_items('{item}');
from m6.search_items('something funny for the whole family');
insert into m6.impressions by name from m6.serve('{user}', k := 10);
from m6.strategy_report();
from m6.policy_value('active');
from m6.metrics;
from m6.data_dictionary;"""
    )
