"""One period of the feedback loop: statistics and decisions in SQL, a small solve here, one transaction.

A reweighting is a pure function of the log, the weights before the period and the parameters. Its steps are
the models of ``sql/feedback``, run as temporary tables in the order of ``_STATISTICS`` and ``_DECISIONS``; the
aggregated ones stay on the connection, so ``from fb_decisions`` shows why.

Periods are calendar periods in UTC of the given length, counted from 1970-01-01 00:00. A second run in the
same period starts from the same weights as the first, so a period moves the weights once, whatever the number
of runs. Sums are exact decimals: neither threads nor row order change a bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from m6rec_udf import resources
from m6rec_udf.candidate_weights import FOLDS, candidate_weights, decided_weights, mixed, put_policies
from m6rec_udf.errors import ModelSqlError, ParameterError
from m6rec_udf.logs import logged
from m6rec_udf.policy_versions import (
    FLOOR,
    Group,
    activate,
    champion_version,
    ensure_default_policy,
    insert_weights,
    next_version,
    rollback,
    stored_weights,
    strategy_names,
)

__all__ = ["DEFAULTS", "ensure_default_policy", "period_seconds", "reweight", "rollback"]

DEFAULTS: dict[str, Any] = {
    "window": 12,  # periods read
    "gate_periods": 4,  # periods the gate judges on
    "gamma": 0.9,  # discount per period
    "forget": 0.1,  # further discount of what came before a fall of a group's mean reward
    "drop": 0.2,  # a fall is at least this share of the mean of the three periods before it
    "drop_z": 3.0,  # and this many standard errors
    "tau_common": 0.8,  # prior spread of a strategy's advantage, in mean rewards
    "tau_group": 0.6,  # prior spread of a group around it
    "draws": 4096,  # posterior draws
    "floor": FLOOR,  # no weight below: support for off-policy evaluation
    "max_kl": 2.0,  # nats a group may move in a period
    "margin": 0.05,  # share of the value a step may lose against the champion
    "z": 0.3,  # standard errors of doubt the gate takes off; more slows learning, see benchmarks/loop
    "alpha": 0.05,  # level of the confidence sequence of promotion and rollback
    "n_star": 3000,  # lists at which the sequence is tightest
    "min_lists": 50,  # fewer lists: the group keeps its weights
    "shrink_events": 50,  # pseudo-events of the arrival delay
    "shrink_clicks": 150,  # pseudo-clicks of the late value
    "match_window_seconds": 86400,  # feedback without impression_id answers an impression at most this old
    "dismiss_value": -0.2,  # reward of an event type with negative interest
    "click_events": ["view", "click", "cart", "play"],  # immediate; other event types arrive late
    "max_volume_ratio": 10.0,  # data checks: freeze when the period is that far from the usual
    "max_rate_ratio": 5.0,
    "max_rate_z": 6.0,
    "gate": True,  # False: take the full step
    "apprentice": False,  # True: the new version stays in shadow
}
STEPS = (1.0, 0.5, 0.25, 0.1, 0.0)
_STATISTICS = ("fb_reactions", "fb_arrivals", "fb_late_values", "fb_log", "fb_memory", "fb_statistics", "fb_checks")
_PERSONAL = ("fb_impressions", "fb_matches", "fb_reactions", "fb_log")  # dropped at the end
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class _Run:
    """What one reweighting is about: moment, period, versions, parameters."""

    as_of: datetime
    period: int
    parent: int
    champion: int
    seed: int
    parameters: dict[str, Any]


def period_seconds(period: str) -> int:
    """Seconds of a period such as ``"1d"``, ``"12h"``, ``"30m"``, ``"1w"``.

    Raises ParameterError: not a positive whole number and one of s, m, h, d, w.
    """
    match = re.fullmatch(r"([1-9][0-9]*)([smhdw])", period)
    if match is None:
        raise ParameterError(f"period is {period!r}, expected a number and a unit", 'use "1d", "12h", "30m" or "1w"')
    return int(match[1]) * _UNITS[match[2]]


@logged("reweight", lambda result: {name: result.get(name) for name in ("policy_version", "status", "changed")})
def reweight(
    con: duckdb.DuckDBPyConnection,
    *,
    period: str = "1d",
    as_of: datetime | str | None = None,
    parameters: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Learn the strategy weights of one period from impressions and feedback; running it twice changes nothing.

    Args:
        con: a connection with the m6 tables; no transaction may be open.
        period: length of a calendar period, counted from 1970-01-01 UTC.
        as_of: UTC; feedback that happened or was ingested later is not read. None: the latest ``shown_at`` or
            ``happened_at`` in the file, and every row is read, whenever it was ingested.
        parameters: overrides of ``DEFAULTS``.
        seed: seed of the posterior draws.

    Returns:
        policy_version, status (active, candidate, shadow, frozen, or "nothing" when there was nothing to
        learn), reason, changed, period, as_of, feedback (rows per kind of match) and groups (the decision rows).

    Raises:
        ParameterError: an unknown parameter or a malformed period.
        ModelSqlError: a model of sql/feedback failed; the weights stay as they were.
    """
    settings = _settings(parameters, period_seconds(period))
    con.execute("begin")
    try:
        result = _reweight(con, settings, _moment(as_of), seed)
        for name in _PERSONAL:
            con.execute(f"drop table if exists temp.{name}")
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return result


def _settings(parameters: dict[str, Any] | None, seconds: int) -> dict[str, Any]:
    unknown = sorted(set(parameters or {}) - DEFAULTS.keys())
    if unknown:
        raise ParameterError(
            f"unknown parameter{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            f"expected some of {', '.join(DEFAULTS)}",
        )
    return {**DEFAULTS, **(parameters or {}), "period_seconds": seconds}


def _moment(as_of: datetime | str | None) -> datetime | None:
    if isinstance(as_of, str):
        try:
            as_of = datetime.fromisoformat(as_of)
        except ValueError as error:
            raise ParameterError(
                f"as_of is {as_of!r}, expected a moment in ISO form", "as_of='2024-03-01T12:00:00'"
            ) from error
    if as_of is not None and as_of.tzinfo is not None:
        as_of = as_of.astimezone(UTC).replace(tzinfo=None)
    return as_of


def _model(con: duckdb.DuckDBPyConnection, name: str, values: dict[str, Any]) -> None:
    """Run ``sql/feedback/<name>.sql`` into a temporary table of that name."""
    from m6rec_udf.models import parameter_names

    text = resources.read_sql("feedback", name)
    given = {key: values[key] for key in parameter_names(text)}
    try:
        con.execute(f"create or replace temp table {name} as\n{text}", given)
    except duckdb.Error as error:
        raise ModelSqlError(f"sql/feedback/{name}.sql failed: {error}\n{text}") from error


def _nothing(run: _Run, reason: str) -> dict[str, Any]:
    return {
        "policy_version": run.parent,
        "status": "nothing",
        "reason": reason,
        "changed": False,
        "period": run.period,
        "as_of": run.as_of,
        "feedback": {},
        "groups": [],
    }


def _reweight(
    con: duckdb.DuckDBPyConnection, settings: dict[str, Any], as_of: datetime | None, seed: int
) -> dict[str, Any]:
    active = ensure_default_policy(con)
    clock = (
        as_of
        or con.execute(
            "select greatest((select max(shown_at) from m6.impressions), (select max(happened_at) from m6.feedback))"
        ).fetchall()[0][0]
    )
    version = con.execute(
        "select parent, period from m6.policy_versions where policy_version = ?", [active]
    ).fetchall()[0]
    champion = champion_version(con) or active
    if clock is None:
        return _nothing(_Run(datetime(1970, 1, 1), 0, active, champion, seed, settings), "no impressions yet")
    period = math.floor((clock - datetime(1970, 1, 1)).total_seconds() / settings["period_seconds"])
    is_repeated = version[1] == period and version[0] is not None
    run = _Run(clock, period, version[0] if is_repeated else active, champion, seed, settings)
    values = {**settings, "as_of": clock, "is_cut": as_of is not None, "last_period": period}
    for name in ("fb_impressions", "fb_matches", "fb_log_hash"):
        _model(con, name, values)
    log = con.execute("select to_json(h) from fb_log_hash as h").fetchall()[0][0]
    known = _known(con, run, log)
    if known is not None:
        return known
    if version[1] is not None and version[1] > period:
        return _nothing(run, f"period {period} is before period {version[1]} of the weights in force")
    for name in _STATISTICS:
        _model(con, name, values)
    answered, shown, in_period = con.execute(
        "select count(*) filter (where is_answered), count(*), "
        "count(*) filter (where period = $period) + (select count(*) from fb_matches "
        "where floor(epoch(arrived_at) / $seconds) = $period) from fb_log",
        {"period": period, "seconds": settings["period_seconds"]},
    ).fetchall()[0]
    problem = ""
    if not in_period:
        problem = f"period {period} is empty: nothing was shown and no feedback arrived"
    elif not shown and _count_undrawn(con):
        problem = "the impressions were not drawn by m6.serve: they teach satisfaction, not the weights"
    elif not answered:
        problem = f"none of the {shown} impressions in the window has feedback"
    if problem:
        return _nothing(run, problem)
    return _learn(con, run, values, log)


def _count_undrawn(con: duckdb.DuckDBPyConnection) -> int:
    """Impressions without supporters: shown by another system, pinned, or filled up."""
    return int(con.execute("select count(*) from m6.impressions where supporters = 0").fetchall()[0][0])


def _known(con: duckdb.DuckDBPyConnection, run: _Run, log: str) -> dict[str, Any] | None:
    """Find the version that a run on the same input has written already."""
    rows = con.execute(
        "select policy_version, parent, input_hash, cast(decision as varchar), status, reason "
        "from m6.policy_versions where period = ? and input_hash is not null order by policy_version desc",
        [run.period],
    ).fetchall()
    for version, parent, digest, text, status, reason in rows:
        decision = json.loads(text)
        if digest == _input_hash(con, run, log, parent, decision["champion"]):
            return {
                **_nothing(run, reason),
                "policy_version": version,
                "status": status,
                "feedback": decision["feedback"],
                "groups": decision["groups"],
            }
    return None


def _input_hash(con: duckdb.DuckDBPyConnection, run: _Run, log: str, parent: int, champion: int) -> str:
    weights = con.execute(
        "select policy_version, domain, segment, strategy, weight from m6.strategy_weights "
        "where policy_version in (?, ?) order by all",
        [parent, champion],
    ).fetchall()
    content = [run.period, run.seed, run.parameters, log, parent, champion, weights]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _learn(con: duckdb.DuckDBPyConnection, run: _Run, values: dict[str, Any], log: str) -> dict[str, Any]:
    """Candidates, evidence, gate, decision; writes the new version."""
    names = strategy_names(con)
    groups: list[Group] = con.execute("select distinct domain, segment from fb_log order by all").fetchall()
    stored: list[Group] = con.execute(
        "select distinct domain, segment from m6.strategy_weights where policy_version = ?", [run.parent]
    ).fetchall()
    everyone = sorted({*groups, *stored, ("*", "*")})
    floor = min(run.parameters["floor"], 1 / len(names))
    current = stored_weights(con, run.parent, everyone, names=names, floor=floor)
    champion = stored_weights(con, run.champion, everyone, names=names, floor=floor)
    *folds, candidate = candidate_weights(
        con,
        groups,
        names=names,
        current=current,
        period=run.period,
        seed=run.seed,
        parameters=run.parameters,
    )
    put_policies(con, groups, names, {0.0: [current] * FOLDS, -1.0: [champion] * FOLDS})
    _model(con, "fb_evidence", {**values, "current_version": run.parent})
    is_promoted = run.parent != run.champion and _is_proven(con)
    judge = current if is_promoted else champion
    put_policies(
        con, groups, names, {**{x: [mixed(current, c, x) for c in folds] for x in STEPS}, -1.0: [judge] * FOLDS}
    )
    for name in ("fb_gate", "fb_decisions"):
        _model(con, name, values)
    cursor = con.execute("select * from fb_decisions order by domain, segment")
    columns = [column[0] for column in cursor.description]
    decisions = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    weights = decided_weights(
        decisions, current=current, champion=judge, candidate=candidate, is_gated=run.parameters["gate"]
    )
    is_same = all(weights[g] == list(current[g]) for g in everyone)
    if is_same:  # what was proposed is kept for m6.policy_value('candidate')
        weights = {g: list(candidate[g]) for g in everyone}
    status, reason = _verdict(decisions, is_same, run.parameters["apprentice"])
    if is_promoted:
        con.execute("update m6.policy_versions set status = 'superseded' where policy_version = ?", [run.champion])
        con.execute("update m6.policy_versions set status = 'champion' where policy_version = ?", [run.parent])
        reason += f"; version {run.parent} is the new champion"
    matches = dict(con.execute("select matched_by, count(*) from fb_matches group by all order by all").fetchall())
    decision = {"champion": run.champion, "is_promoted": is_promoted, "feedback": matches, "groups": decisions}
    version = _write(con, run, _input_hash(con, run, log, run.parent, run.champion), decision, (status, reason))
    if status != "frozen":
        insert_weights(con, version, weights, names=names, floor=floor)
    if status == "active":
        activate(con, version)
    found = {"status": status, "changed": True, "feedback": matches, "groups": decisions}
    return {**_nothing(run, reason), "policy_version": version, **found}


def _is_proven(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the weights in force beat the champion over all groups, lose in none, on data that passed the checks."""
    return bool(
        con.execute(
            "select bool_or(domain = '' and low > 0) and not bool_or(domain <> '' and high < 0) "
            "and not exists (from fb_checks) from fb_evidence"
        ).fetchall()[0][0]
    )


def _verdict(decisions: list[dict[str, Any]], is_same: bool, is_apprentice: bool) -> tuple[str, str]:
    counts: dict[str, int] = {}
    for row in decisions:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    words = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(counts.items()))
    failed = "; ".join(f"{row['domain']}/{row['segment']}: {row['reason']}" for row in decisions if row["reason"])
    reason = f"groups: {words}" + (f" ({failed})" if failed else "")
    if decisions and counts.get("data_check_failed", 0) == len(decisions):
        return "frozen", reason
    if is_apprentice:
        return "shadow", f"apprentice: not served; {reason}"
    return ("candidate", f"no step accepted; {reason}") if is_same else ("active", reason)


def _write(
    con: duckdb.DuckDBPyConnection, run: _Run, digest: str, decision: dict[str, Any], verdict: tuple[str, str]
) -> int:
    version = next_version(con)
    con.execute(
        "insert into m6.policy_versions (policy_version, parent, period, as_of, input_hash, parameters, status, "
        "decision, reason) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            version,
            run.parent,
            run.period,
            run.as_of,
            digest,
            json.dumps({**run.parameters, "seed": run.seed}, sort_keys=True),
            verdict[0],
            json.dumps(decision, sort_keys=True),
            verdict[1],
        ],
    )
    return version
