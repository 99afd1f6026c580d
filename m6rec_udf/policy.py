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
    con: duckdb.DuckDBPyConnection, policy: str | int = "candidate", *, log: str | None = None
) -> duckdb.DuckDBPyRelation:
    """Off-policy value of strategy weights, or of any policy on a log of your own.

    Args:
        con: a connection dressed by ``connect`` or ``install``.
        policy: ``"candidate"``, ``"active"``, ``"champion"`` or a version number; not used with ``log``.
        log: a table or view of logged rounds with ``reward``, ``propensity`` and ``target_propensity``, and
            optionally ``predicted`` and ``expected`` (a reward model at the action shown and under the target).

    Returns:
        A relation with one row per estimator: estimator, value, std_error, low, high, effective_sample_size,
        unsupported_share, largest_weight, status, reason, unit. ``value`` is NULL where status is
        ``insufficient_support``. With ``log``: the rows of ``m6.log_value``.

    Raises:
        UnknownNameError: no such policy, table or view.
        SchemaError: ``log`` lacks a column.
        ParameterError: ``log`` is not a plain name.
    """
    if log is not None:
        return _log_value(con, log)
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


def _log_value(con: duckdb.DuckDBPyConnection, log: str) -> duckdb.DuckDBPyRelation:
    if re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*){0,2}", log) is None:
        raise ParameterError(f"log is {log!r}, expected the name of a table or view", "create a view and name it")
    quoted = ".".join(f'"{part}"' for part in log.split("."))
    parts = log.split(".")
    known = con.execute(
        "select table_name from information_schema.tables where table_name = ? and (? is null or table_schema = ?)",
        [parts[-1], *([parts[-2]] * 2 if len(parts) > 1 else [None, None])],
    ).fetchall()
    if not known:
        raise UnknownNameError(f"there is no table or view {log}", "create a view over your log and name it")
    columns = {row[0] for row in con.execute(f"describe select * from {quoted}").fetchall()}
    missing = sorted({"reward", "propensity", "target_propensity"} - columns)
    if missing:
        raise SchemaError(
            f"{log} lacks {', '.join(missing)}; it has {', '.join(sorted(columns))}",
            "expected reward, propensity (> 0, as logged) and target_propensity",
        )
    model = {"predicted", "expected"} <= columns
    con.execute(
        "create or replace temp view m6_policy_log as select target_propensity / propensity as ratio, "
        "cast(reward as double) as reward, "
        + ("predicted, expected " if model else "avg(reward) over () as predicted, avg(reward) over () as expected ")
        + f"from {quoted}"
    )
    return con.sql("select * from m6.log_value('m6_policy_log')")
