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
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf import resources
from m6rec_udf.errors import ModelSqlError, NotBuiltError, ParameterError, UnknownNameError

if TYPE_CHECKING:
    from m6rec_udf.posterior import Array

DEFAULTS: dict[str, Any] = {
    "window": 12,  # periods read
    "gate_periods": 4,  # periods the gate judges on
    "gamma": 0.8,  # discount per period
    "tau_common": 0.5,  # prior spread of a strategy's advantage, in mean rewards
    "tau_group": 0.4,  # prior spread of a group around it
    "draws": 4096,  # posterior draws
    "floor": 0.005,  # no weight below: support for off-policy evaluation
    "max_kl": 1.0,  # nats a group may move in a period
    "margin": 0.1,  # share of the value a step may lose against the champion
    "z": 1.645,  # one-sided quantile of the gate
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
_FOLDS = 4
_STATISTICS = ("fb_reactions", "fb_arrivals", "fb_late_values", "fb_log", "fb_statistics", "fb_checks")
_PERSONAL = ("fb_impressions", "fb_matches", "fb_reactions", "fb_log")  # dropped at the end
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
Group = tuple[str, str]


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


def ensure_default_policy(con: duckdb.DuckDBPyConnection) -> int:
    """Create policy_version 1 where no version is in force yet; returns the version in force.

    ``blended`` gets 0.92, the other enabled strategies share the rest equally (at least 0.005 each). Opens no
    transaction: call it inside the build's.
    """
    active = con.execute("select policy_version from m6.active").fetchall()
    if active and active[0][0] is not None:
        return int(active[0][0])
    names = _strategies(con)
    floor = min(DEFAULTS["floor"], 1 / len(names))
    others = [name for name in names if name != "blended"]
    if "blended" not in names:
        weights = {name: 1 / len(names) for name in names}
    elif not others:
        weights = {"blended": 1.0}
    else:
        share = max(floor, 0.08 / len(others))
        weights = {**dict.fromkeys(others, share), "blended": 1 - share * len(others)}
    version = _next_version(con)
    con.execute(
        "insert into m6.policy_versions (policy_version, status, reason) values (?, 'champion', 'default weights')",
        [version],
    )
    _insert_weights(con, version, {("*", "*"): [weights[name] for name in names]}, names, floor)
    con.execute("update m6.active set policy_version = ?", [version])
    return version


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


def rollback(con: duckdb.DuckDBPyConnection, *, to: int | None = None) -> dict[str, Any]:
    """Put earlier strategy weights back in force, in one transaction, with a row in m6.audit.

    Args:
        con: a connection with the m6 tables; no transaction may be open.
        to: policy_version to go back to. None: the champion, or the parent where the champion is in force.

    Raises:
        NotBuiltError: no version is in force, or there is none before it.
        UnknownNameError: ``to`` does not exist or has no weights.
    """
    con.execute("begin")
    try:
        row = con.execute(
            "select a.policy_version, p.parent from m6.active as a join m6.policy_versions as p using (policy_version)"
        ).fetchall()
        if not row:
            raise NotBuiltError("no strategy weights are in force", "run m6rec_udf.build(con) first")
        current, parent = row[0]
        champion = _champion(con)
        target = to if to is not None else champion if champion not in (None, current) else parent
        if target is None:
            raise NotBuiltError(f"policy version {current} has no version before it", "there is nothing to undo")
        if not con.execute("select 1 from m6.strategy_weights where policy_version = ? limit 1", [target]).fetchall():
            raise UnknownNameError(f"policy version {target} has no weights", "see m6.policy_versions")
        if target != current:
            con.execute("update m6.policy_versions set status = 'rolled_back' where policy_version = ?", [current])
            status = "active" if champion not in (None, current) and champion != target else "champion"
            con.execute("update m6.policy_versions set status = ? where policy_version = ?", [status, target])
            con.execute("update m6.active set policy_version = ?", [target])
            detail = {"from": current, "to": target}
            con.execute("insert into m6.audit (action, detail) values ('rollback', ?)", [json.dumps(detail)])
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return {"policy_version": target, "rolled_back": current, "changed": target != current}


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
        as_of = datetime.fromisoformat(as_of)
    if as_of is not None and as_of.tzinfo is not None:
        as_of = as_of.astimezone(timezone.utc).replace(tzinfo=None)
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
    clock = as_of or con.execute(
        "select greatest((select max(shown_at) from m6.impressions), (select max(happened_at) from m6.feedback))"
    ).fetchall()[0][0]
    version = con.execute(
        "select parent, period from m6.policy_versions where policy_version = ?", [active]
    ).fetchall()[0]
    champion = _champion(con) or active
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
    if not in_period:
        return _nothing(run, f"period {period} is empty: nothing was shown and no feedback arrived")
    if not answered:
        return _nothing(run, f"none of the {shown} impressions in the window has feedback")
    return _learn(con, run, values, log)


def _known(con: duckdb.DuckDBPyConnection, run: _Run, log: str) -> dict[str, Any] | None:
    """The version that a run on the same input has written already."""
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
    names = _strategies(con)
    groups: list[Group] = con.execute("select distinct domain, segment from fb_log order by all").fetchall()
    everyone = [*groups, ("*", "*")] if ("*", "*") not in groups else groups
    floor = min(run.parameters["floor"], 1 / len(names))
    current = _weights(con, run.parent, everyone, names, floor)
    champion = _weights(con, run.champion, everyone, names, floor)
    candidates = _candidates(con, run, groups, everyone, names, current)

    champion_version = run.champion
    _policies(con, groups, names, {0.0: [current] * _FOLDS, -1.0: [champion] * _FOLDS})
    _model(con, "fb_evidence", {**values, "current_version": run.parent})
    is_promoted = run.parent != run.champion and bool(
        con.execute(
            "select bool_or(domain = '' and low > 0) and not bool_or(domain <> '' and high < 0) from fb_evidence"
        ).fetchall()[0][0]
    )
    if is_promoted:
        champion, champion_version = current, run.parent
    steps = {x: [_mixed(current, c, x) for c in candidates[:_FOLDS]] for x in STEPS}
    _policies(con, groups, names, {**steps, -1.0: [champion] * _FOLDS})
    for name in ("fb_gate", "fb_decisions"):
        _model(con, name, values)
    cursor = con.execute("select * from fb_decisions order by domain, segment")
    columns = [column[0] for column in cursor.description]
    decisions = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    weights = _decided(decisions, everyone, current, champion, candidates[_FOLDS], run.parameters["gate"])
    matches = dict(con.execute("select matched_by, count(*) from fb_matches group by all order by all").fetchall())
    decision = {
        "champion": run.champion,
        "promoted": champion_version if is_promoted else None,
        "feedback": matches,
        "groups": decisions,
    }
    digest = _input_hash(con, run, log, run.parent, run.champion)
    is_same = all(weights[g] == list(current[g]) for g in everyone)
    if is_same:
        weights = {g: list(candidates[_FOLDS][g]) for g in everyone}
    status, reason = _verdict(decisions, is_same, run.parameters["apprentice"])
    if is_promoted:
        con.execute("update m6.policy_versions set status = 'superseded' where policy_version = ?", [run.champion])
        con.execute("update m6.policy_versions set status = 'champion' where policy_version = ?", [run.parent])
        reason += f"; version {run.parent} is the new champion"
    version = _write(con, run, digest, decision, status, reason)
    if status != "frozen":
        _insert_weights(con, version, weights, names, floor)
    if status == "active":
        con.execute(
            "update m6.policy_versions set status = 'superseded' where status = 'active' and policy_version <> ?",
            [version],
        )
        con.execute("update m6.active set policy_version = ?", [version])
    return {
        **_nothing(run, reason),
        "policy_version": version,
        "status": status,
        "changed": True,
        "feedback": matches,
        "groups": decisions,
    }


def _decided(
    decisions: list[dict[str, Any]],
    everyone: list[Group],
    current: dict[Group, Array],
    champion: dict[Group, Array],
    candidate: dict[Group, Array],
    is_gated: bool,
) -> dict[Group, list[float]]:
    """Weights after the decision rows; a group that was never shown moves as little as the most careful one."""
    chosen: dict[Group, list[float]] = {}
    for row in decisions:
        group = (row["domain"], row["segment"])
        if not is_gated and row["status"] != "data_check_failed":
            row["status"], row["step"] = "not_gated", 1.0
        if row["status"] == "rolled_back":
            chosen[group] = list(champion[group])
        else:
            chosen[group] = list(_mixed(current, candidate, row["step"])[group])
    least = min(row["step"] for row in decisions)
    for group in everyone:
        if group not in chosen:
            chosen[group] = list(_mixed(current, candidate, least)[group])
    return chosen


def _verdict(decisions: list[dict[str, Any]], is_same: bool, is_apprentice: bool) -> tuple[str, str]:
    counts: dict[str, int] = {}
    for row in decisions:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    words = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(counts.items()))
    failed = "; ".join(f"{row['domain']}/{row['segment']}: {row['reason']}" for row in decisions if row["reason"])
    reason = f"groups: {words}" + (f" ({failed})" if failed else "")
    if counts.get("data_check_failed", 0) == len(decisions):
        return "frozen", reason
    if is_apprentice:
        return "shadow", f"apprentice: not served; {reason}"
    return ("candidate", f"no step accepted; {reason}") if is_same else ("active", reason)


def _candidates(
    con: duckdb.DuckDBPyConnection,
    run: _Run,
    groups: list[Group],
    everyone: list[Group],
    names: list[str],
    current: dict[Group, Array],
) -> list[dict[Group, Array]]:
    """Candidate weights (9) to (14): one set per fold of users left out, then the one of all users."""
    import numpy as np

    from m6rec_udf import posterior as solve

    given = run.parameters
    window = given["window"]
    statistics = np.zeros((_FOLDS, len(groups), window, len(names), 5))
    place, column = {g: n for n, g in enumerate(groups)}, {name: n for n, name in enumerate(names)}
    for period, domain, segment, fold, strategy, *sums in con.execute("from fb_statistics order by all").fetchall():
        if strategy in column:
            at = period - run.period + window - 1
            statistics[fold, place[domain, segment], at, column[strategy]] = sums
    total = con.execute("select cast(sum(cast(reward as decimal(38, 12))) as double) / count(*) from fb_log").fetchall()
    mean_reward = max(abs(total[0][0]), 1e-6)
    whole = statistics.sum(axis=0)
    result = []
    for left_out in [*(statistics[f] for f in range(_FOLDS)), np.zeros_like(whole)]:
        found = solve.posterior(
            whole - left_out,
            mean_reward=mean_reward,
            gamma=given["gamma"],
            tau_common=given["tau_common"],
            tau_group=given["tau_group"],
        )
        weights = {}
        for group in everyone:
            g = place.get(group)
            mean = found.new_mean if g is None else found.means[g]
            covariance = found.new_covariance if g is None else found.covariances[g]
            best = solve.probability_best(mean, covariance, draws=given["draws"], seed=run.seed)
            target = solve.with_floor(best, given["floor"])
            weights[group] = solve.step(current[group], target, max_kl=given["max_kl"])
        result.append(weights)
    return result


def _mixed(current: dict[Group, Array], candidate: dict[Group, Array], step: float) -> dict[Group, Array]:
    return {g: current[g] if step == 0.0 else current[g] + step * (candidate[g] - current[g]) for g in current}


def _policies(
    con: duckdb.DuckDBPyConnection, groups: list[Group], names: list[str], policies: dict[float, list[dict[Group, Array]]]
) -> None:
    """Put weights per (step, fold) where the SQL models read them; step -1 is the champion."""
    bits = dict(con.execute("select strategy, bit from m6.strategies").fetchall())
    rows = [
        (domain, segment, fold, step, bits[name], float(weight))
        for step, folds in policies.items()
        for fold, weights in enumerate(folds)
        for domain, segment in groups
        for name, weight in zip(names, weights[domain, segment], strict=True)
    ]
    con.execute(
        "create or replace temp table fb_policies as select unnest(?::varchar[]) as domain, "
        "unnest(?::varchar[]) as segment, unnest(?::integer[]) as fold, unnest(?::double[]) as step, "
        "unnest(?::integer[]) as bit, unnest(?::double[]) as weight",
        [list(column) for column in zip(*rows, strict=True)],
    )


def _weights(
    con: duckdb.DuckDBPyConnection, version: int, groups: list[Group], names: list[str], floor: float
) -> dict[Group, Array]:
    """Weights of a version per group: the group's own, else its domain's, its segment's, everyone's."""
    import numpy as np

    stored: dict[Group, dict[str, float]] = {}
    for domain, segment, strategy, weight in con.execute(
        "select domain, segment, strategy, weight from m6.strategy_weights where policy_version = ?", [version]
    ).fetchall():
        stored.setdefault((domain, segment), {})[strategy] = weight
    result = {}
    for domain, segment in groups:
        keys = [(domain, segment), (domain, "*"), ("*", segment), ("*", "*")]
        own = next((stored[key] for key in keys if key in stored), {})
        raw = np.array([max(own.get(name, 0.0), floor) for name in names])
        result[domain, segment] = raw if abs(raw.sum() - 1) < 1e-9 else raw / raw.sum()
    return result


def _strategies(con: duckdb.DuckDBPyConnection) -> list[str]:
    names = [row[0] for row in con.execute("select strategy from m6.strategies where is_enabled order by bit").fetchall()]
    if not names:
        raise NotBuiltError("m6.strategies has no enabled strategy", "run m6rec_udf.build(con) first")
    return names


def _champion(con: duckdb.DuckDBPyConnection) -> int | None:
    rows = con.execute("select max(policy_version) from m6.policy_versions where status = 'champion'").fetchall()
    return None if rows[0][0] is None else int(rows[0][0])


def _next_version(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute("select coalesce(max(policy_version), 0) + 1 from m6.policy_versions").fetchall()[0][0])


def _write(
    con: duckdb.DuckDBPyConnection, run: _Run, digest: str, decision: dict[str, Any], status: str, reason: str
) -> int:
    version = _next_version(con)
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
            status,
            json.dumps(decision, sort_keys=True),
            reason,
        ],
    )
    return version


def _insert_weights(
    con: duckdb.DuckDBPyConnection, version: int, weights: dict[Group, list[float]], names: list[str], floor: float
) -> None:
    rows = [
        [version, domain, segment, name, float(weight), floor]
        for (domain, segment), values in sorted(weights.items())
        for name, weight in zip(names, values, strict=True)
    ]
    con.executemany("insert into m6.strategy_weights values (?, ?, ?, ?, ?, ?)", rows)
