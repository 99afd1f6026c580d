"""Off-policy value: what strategy weights would have earned, from the log alone.

The estimators are SQL (``sql/macros/ope_term.sql`` has their formulas); this module only checks names.
Sources: Dudik 2011 (DR), Swaminathan and Joachims 2015 (SNIPS), Wang 2017 (SWITCH-DR), Su 2020 (DRos),
McInerney 2020 (RIPS), Waudby-Smith 2103.06476 (asymptotic confidence sequences).
"""

from __future__ import annotations

import re

import duckdb

from m6rec_udf.errors import ParameterError, SchemaError, UnknownNameError


def policy_value(
    con: duckdb.DuckDBPyConnection,
    policy: str | int = "candidate",
    *,
    log: str | None = None,
    target: str | None = None,
) -> duckdb.DuckDBPyRelation:
    """Off-policy value of strategy weights, or of any policy on a log of your own.

    Args:
        con: a connection dressed by ``connect`` or ``install``.
        policy: ``"candidate"``, ``"active"``, ``"champion"`` or a version number; not used with ``log``.
        log: a table or view of logged rounds. With ``target``: ``context``, ``action``, ``reward`` and, where it was
            logged, ``propensity``; a missing or NULL one is estimated as n(context, action) / n(context) and the
            reason says so. Without: ``reward``, ``propensity`` and ``target_propensity``, and optionally
            ``predicted`` and ``expected`` (a reward model at the action shown and under the target).
        target: a table or view of the policy to judge: ``context``, ``action``, ``probability``.

    Returns:
        A relation with one row per estimator: estimator, value, std_error, low, high, effective_sample_size,
        unsupported_share, largest_weight, status, reason, unit. ``value`` is NULL where status is
        ``insufficient_support``. With ``log``: the rows of ``m6.log_value`` and ``m6.log_support``.

    Raises:
        UnknownNameError: no such policy, table or view.
        SchemaError: ``log`` or ``target`` lacks a column, or a probability is out of range.
        ParameterError: ``log`` or ``target`` is not a plain name, or ``target`` comes without ``log``.
    """
    if log is not None:
        return _log_value(con, log, target)
    if target is not None:
        raise ParameterError(f"target is {target!r} without a log", "name the table of logged rounds: log=...")
    name = str(policy)
    if name not in {"candidate", "active", "champion"}:
        known = con.execute(
            "select policy_version from m6.policy_versions where policy_version = try_cast(? as bigint)", [name]
        ).fetchall()
        if not known:
            raise UnknownNameError(
                f"policy is {name!r}, expected candidate, active, champion or a version", "see m6.policy_versions"
            )
    return con.sql("select * from m6.policy_value($policy)", params={"policy": name})


def _log_value(con: duckdb.DuckDBPyConnection, log: str, target: str | None) -> duckdb.DuckDBPyRelation:
    if target is None:
        needed = ("reward", "propensity", "target_propensity")
        quoted, columns = _named(con, log, "log", needed)
        has_model = {"predicted", "expected"} <= columns
        mean = "avg(reward) over ()"
        model = "predicted, expected" if has_model else f"{mean} as predicted, {mean} as expected"
        _check_range(con, quoted, log, "propensity > 0 and propensity <= 1 and target_propensity between 0 and 1")
        rounds = (
            "select target_propensity / propensity as ratio, cast(reward as double) as reward, "
            f"{model}, 0.0 as unsupported, false as is_estimated from {quoted}"
        )
    else:
        quoted, columns = _named(con, log, "log", ("context", "action", "reward"))
        wanted, _ = _named(con, target, "target", ("context", "action", "probability"))
        propensity = "propensity" if "propensity" in columns else "cast(null as double)"
        _check_range(con, quoted, log, f"{propensity} is null or ({propensity} > 0 and {propensity} <= 1)")
        _check_range(con, wanted, target, "probability between 0 and 1")
        _check_sums(con, wanted, target)
        con.execute(
            "create or replace temp view m6_policy_rounds as "
            f"select context, action, reward, {propensity} as propensity from {quoted}"
        )
        con.execute(f"create or replace temp view m6_policy_target as select * from {wanted}")
        rounds = "select * from m6.log_rounds('m6_policy_rounds', 'm6_policy_target')"
    con.execute(f"create or replace temp view m6_policy_log as {rounds}")
    return con.sql(
        "select v.*, s.* from m6.log_value('m6_policy_log') as v cross join m6.log_support('m6_policy_log') as s "
        "order by v.estimator, v.parameter nulls first"
    )


def _named(con: duckdb.DuckDBPyConnection, name: str, what: str, needed: tuple[str, ...]) -> tuple[str, set[str]]:
    """Quoted name of a table or view and its columns, after checking that it has the needed ones."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*){0,2}", name) is None:
        raise ParameterError(f"{what} is {name!r}, expected the name of a table or view", "create a view and name it")
    quoted = ".".join(f'"{part}"' for part in name.split("."))
    parts = name.split(".")
    known = con.execute(
        "select table_name from information_schema.tables where table_name = ? and (? is null or table_schema = ?)",
        [parts[-1], *([parts[-2]] * 2 if len(parts) > 1 else [None, None])],
    ).fetchall()
    if not known:
        raise UnknownNameError(f"there is no table or view {name}", f"create a view over your {what} and name it")
    columns = {row[0] for row in con.execute(f"describe select * from {quoted}").fetchall()}
    missing = [column for column in needed if column not in columns]
    if missing:
        raise SchemaError(
            f"{name} lacks {', '.join(missing)}; it has {', '.join(sorted(columns))}",
            f"expected {', '.join(needed)}",
        )
    return quoted, columns


def _check_sums(con: duckdb.DuckDBPyConnection, quoted: str, name: str) -> None:
    """Raise SchemaError unless the target's probabilities sum to 1 in every context."""
    bad = con.execute(
        f"select cast(context as varchar), sum(probability) from {quoted} group by context "
        "having abs(sum(probability) - 1) > 1e-6 order by all limit 1"
    ).fetchall()
    if bad:
        raise SchemaError(
            f"{name}: the probabilities of context {bad[0][0]!r} sum to {bad[0][1]:.6g}, expected 1",
            "give every action the policy may take in a context, with its probability",
        )


def _check_range(con: duckdb.DuckDBPyConnection, quoted: str, name: str, condition: str) -> None:
    """Raise SchemaError unless every row meets a condition on its probabilities."""
    bad = con.execute(f"select count(*) from {quoted} where not coalesce({condition}, false)").fetchall()[0][0]
    if bad:
        hint = "probabilities lie between 0 and 1, logged ones above 0"
        raise SchemaError(f"{name}: {bad} rows break: {condition}", hint)
