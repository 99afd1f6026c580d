"""Satisfaction functions side by side, judged by one outcome; and the statement that puts one of them in force."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import duckdb

from m6rec_udf import models, runs
from m6rec_udf.baselines import Recommender
from m6rec_udf.builder import BuildReport, build
from m6rec_udf.calibration import calibration
from m6rec_udf.copies import private_copy
from m6rec_udf.errors import ParameterError
from m6rec_udf.evaluate import default_as_of, score
from m6rec_udf.figures import Row
from m6rec_udf.query import one
from m6rec_udf.registry import context_of
from m6rec_udf.version import satisfaction_in_force

OUTCOME_TYPES = ("purchase", "rating")
TABLES = ("satisfaction_lists", "satisfaction_reliability", "satisfaction_changes")


def compare_satisfaction(
    con: duckdb.DuckDBPyConnection,
    *,
    functions: Sequence[str] | None = None,
    as_of: datetime | None = None,
    test_share: float = 0.1,
    k: int = 10,
    outcome_types: Sequence[str] = OUTCOME_TYPES,
    positive: float = 0.75,
    seed: int = 0,
) -> duckdb.DuckDBPyRelation:
    """Train and evaluate every satisfaction function on the same split; writes ``m6.runs`` and ``m6.metrics``.

    Each function is built as of the split, in a copy of the database that nobody else sees, and judged by what users
    bought or rated highly afterwards, whatever it was trained on. Rows of ``m6.metrics``, method = the function:
    ranking (``ndcg@10`` and the like, ``coverage@10``, ``gini@10``, per slice), ``ndcg@10 difference`` to the function
    in force with its paired interval, ``auc``, ``log_loss`` and ``calibration_error`` of its satisfaction against the
    common outcome, ``own_calibration_error`` against what it promises itself.

    Temporary tables stay on the connection: ``satisfaction_lists`` (function, user_id, item_id, rank),
    ``satisfaction_reliability`` (function, outcome ``own`` or ``common``, bin, n, predicted, observed, gap) and
    ``satisfaction_changes`` (function_a, function_b, users, same_items, same_first, same_lists: shares).

    Args:
        con: a dressed connection with data.
        functions: names; default every sql/satisfaction/sat_<name>.sql, those of the project as well.
        as_of: the split (UTC); None leaves ``test_share`` of the events for the test.
        outcome_types: event types of the common outcome.
        positive: satisfaction (by ``m6.event_types``) from which such an event counts: purchases, four of five stars.
        seed: seed of the builds and of the bootstrap.

    Returns:
        The run's rows of ``m6.metrics``.

    Raises:
        UnknownNameError: there is no such function.
        ParameterError: nobody bought or rated highly anything new after the split, or a parameter is out of range.
    """
    found = models.collect(context_of(con).project)
    known = sorted(name.removeprefix("sat_") for name, model in found.items() if model.layer == "satisfaction")
    names = list(functions) if functions is not None else known
    if not names:
        raise ParameterError("functions is empty, expected some satisfaction functions", f"one of {', '.join(known)}")
    for name in names:
        models.with_satisfaction(found, name)
    started_at = runs.now()
    with private_copy(con) as copy:
        moment = as_of or default_as_of(copy, test_share=test_share)
        _targets(copy, moment, outcome_types, positive)
        in_force = satisfaction_in_force(copy)
        base = in_force if in_force in names else names[0]
        rows = _judged(copy, names, moment, k, seed, base)
        for table in TABLES:
            frame = copy.sql(f"from {table} order by all").to_arrow_table()
            con.register("m6_frame", frame)
            con.execute(f"create or replace temp table {table} as from m6_frame")
            con.unregister("m6_frame")
    parameters = {
        "functions": names,
        "as_of": moment.isoformat(),
        "k": k,
        "outcome_types": list(outcome_types),
        "positive": positive,
        "seed": seed,
        "compared_with": base,
    }
    run_id = runs.write_run(con, "compare_satisfaction", started_at, parameters, rows)
    return con.sql(
        "from m6.metrics where run_id = $run_id order by slice, metric, value desc, method", params={"run_id": run_id}
    )


def use_satisfaction(con: duckdb.DuckDBPyConnection, name: str, *, seed: int | None = None) -> BuildReport:
    """Put a satisfaction function in force: a build with it, visible in one transaction with its row in ``m6.audit``.

    Later builds keep it. Rewards of the loop are graded by it from then on.

    Args:
        name: sql/satisfaction/sat_<name>.sql.
        seed: default: that of the build in force.

    Raises:
        UnknownNameError: there is no such function; nothing has changed.
    """
    models.with_satisfaction(models.collect(context_of(con).project), name)
    if seed is None:
        sql = "select m.seed from m6.models as m inner join m6.active as a on m.model_version = a.model_version"
        seed = int(one(con, sql)[0] or 0)
    return build(con, satisfaction=name, seed=seed)


def _targets(con: duckdb.DuckDBPyConnection, moment: datetime, kinds: Sequence[str], positive: float) -> None:
    """The common outcome, as the table ``common_targets`` of (user_id, item_id)."""
    con.execute(
        "create temp table common_targets as "
        "select user_id, item_id from m6.held_out($moment, positive := $positive, only_types := $kinds)",
        {"moment": moment, "positive": positive, "kinds": list(kinds)},
    )
    if one(con, "select count(*) from common_targets")[0] == 0:
        there = [row[0] for row in con.execute("select distinct event_type from m6.events order by 1").fetchall()]
        raise ParameterError(
            f"no {' or '.join(kinds)} worth {positive} or more of something new to the user after {moment}, "
            "expected some to judge by",
            f"outcome_types, of {', '.join(there)}; a lower positive; or an earlier as_of",
        )


def _judged(
    con: duckdb.DuckDBPyConnection, names: Sequence[str], moment: datetime, k: int, seed: int, base: str
) -> list[Row]:
    """Figures of every function; fills the tables named in TABLES."""
    con.execute(
        "create temp table satisfaction_reliability (function varchar, outcome varchar, bin integer, n bigint, "
        "predicted double, observed double, gap double)"
    )
    promises: list[Row] = []
    todo: dict[str, Recommender] = {name: _recommender(name, seed, promises) for name in names}
    rows = score(con, todo, "common_targets", as_of=moment, k=k, seed=seed)
    con.execute(
        "create temp table satisfaction_lists as "
        "select method as function, user_id, item_id, rank from eval_lists order by all"
    )
    con.execute(_CHANGES)
    differences = con.execute(
        "select b.method, m6_resampled(list(b.ndcg - a.ndcg order by user_id), cast($seed as bigint)), count(*) "
        "from eval_user_metrics as b inner join eval_user_metrics as a using (user_id) "
        "where a.method = $base and b.method <> $base group by b.method order by b.method",
        {"seed": seed, "base": base},
    ).fetchall()
    rows += [
        (name, "all", f"ndcg@{k} difference", found["mean"], found["low"], found["high"], n)
        for name, found, n in differences
    ]
    return rows + promises


_CHANGES = """
create temp table satisfaction_changes as
with

lists as (
    select function, user_id, list(item_id order by rank) as items
    from satisfaction_lists
    group by function, user_id
)

select
    a.function as function_a,
    b.function as function_b,
    count(*) as users,
    avg(len(list_intersect(a.items, b.items)) / greatest(len(a.items), len(b.items))) as same_items,
    avg(cast(a.items[1] = b.items[1] as double)) as same_first,
    avg(cast(a.items = b.items as double)) as same_lists
from lists as a
inner join lists as b on a.user_id = b.user_id and a.function < b.function
group by a.function, b.function
"""


def _recommender(name: str, seed: int, promises: list[Row]) -> Recommender:
    """Builds with a function as of the split and asks for its lists; what it promises is judged on the way."""

    def lists(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        version = build(con, as_of=as_of, seed=seed, satisfaction=name).model_version
        promises.extend(_promises(con, name, as_of, version, k, seed))
        return con.sql(
            "select user_id, item_id, rank from m6.slates($users, k := $k, exclude_seen := true, until := $until)",
            params={"users": [str(u) for u in users["user_id"].to_pylist()], "k": k, "until": as_of},
        ).to_arrow_table()

    return lists


def _promises(con: duckdb.DuckDBPyConnection, name: str, as_of: datetime, version: int, k: int, seed: int) -> list[Row]:
    calibration(con, as_of=as_of, version=version, k=k, seed=seed).fetchall()
    con.execute(
        "create or replace temp table common_predictions as "
        "select p.* replace (cast(t.item_id is not null as double) as outcome) from eval_predictions as p "
        "left join common_targets as t on p.user_id = t.user_id and p.item_id = t.item_id"
    )
    for outcome, table in (("own", "eval_predictions"), ("common", "common_predictions")):
        con.execute(
            "insert into satisfaction_reliability "
            f"select $name, $outcome, bin, n, predicted, observed, gap from m6.calibration(predictions := '{table}') "
            "where group_kind = 'all'",
            {"name": name, "outcome": outcome},
        )
    found = con.execute(
        "select metric, value, n from m6.prediction_metrics('common_predictions') where group_kind = 'all' "
        "union all select 'own_' || metric, value, n from m6.prediction_metrics('eval_predictions') "
        "where group_kind = 'all' and metric = 'calibration_error' order by metric"
    ).fetchall()
    return [(name, "all", metric, value, None, None, n) for metric, value, n in found]
