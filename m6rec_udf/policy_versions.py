"""Versions of the strategy weights: the default, reading, writing, putting one in force, going back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf.errors import NotBuiltError, ParameterError, UnknownNameError
from m6rec_udf.logs import logged

if TYPE_CHECKING:
    from m6rec_udf.posterior import Array

FLOOR = 0.005
Group = tuple[str, str]


def ensure_default_policy(con: duckdb.DuckDBPyConnection) -> int:
    """Create policy_version 1 where no version is in force yet; returns the version in force.

    ``blended`` gets 0.92, the other enabled strategies share the rest equally (at least 0.005 each). Opens no
    transaction: call it inside the build's.
    """
    active = con.execute("select policy_version from m6.active").fetchall()
    if active and active[0][0] is not None:
        return int(active[0][0])
    names = strategy_names(con)
    floor = min(FLOOR, 1 / len(names))
    others = [name for name in names if name != "blended"]
    if "blended" not in names:
        weights = {name: 1 / len(names) for name in names}
    elif not others:
        weights = {"blended": 1.0}
    else:
        share = max(floor, 0.08 / len(others))
        weights = {**dict.fromkeys(others, share), "blended": 1 - share * len(others)}
    version = next_version(con)
    con.execute(
        "insert into m6.policy_versions (policy_version, status, reason) values (?, 'champion', 'default weights')",
        [version],
    )
    insert_weights(con, version, {("*", "*"): [weights[name] for name in names]}, names=names, floor=floor)
    con.execute("update m6.active set policy_version = ?", [version])
    return version


@logged("rollback")
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
        champion = champion_version(con)
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


@logged("adopt")
def adopt(con: duckdb.DuckDBPyConnection, policy_version: int) -> dict[str, Any]:
    """Put a shadow or candidate version in force, in one transaction, with a row in m6.audit.

    The champion stays what it is: ``rollback(con)`` goes back to it, and ``reweight`` goes on comparing with it.

    Args:
        con: a connection with the m6 tables; no transaction may be open.
        policy_version: a version of status shadow or candidate; the one in force already changes nothing.

    Returns:
        policy_version (in force now), before (in force until now) and changed.

    Raises:
        NotBuiltError: no version is in force.
        UnknownNameError: there is no such version, or it has no weights.
        ParameterError: its status is neither shadow nor candidate.
    """
    con.execute("begin")
    try:
        current = con.execute("select policy_version from m6.active where policy_version is not null").fetchall()
        if not current:
            raise NotBuiltError("no strategy weights are in force", "run m6rec_udf.build(con) first")
        before = int(current[0][0])
        if policy_version != before:
            _require_adoptable(con, policy_version)
            activate(con, policy_version)
            con.execute("update m6.policy_versions set status = 'active' where policy_version = ?", [policy_version])
            detail = {"from": before, "to": policy_version}
            con.execute("insert into m6.audit (action, detail) values ('adopt', ?)", [json.dumps(detail)])
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return {"policy_version": policy_version, "before": before, "changed": policy_version != before}


def _require_adoptable(con: duckdb.DuckDBPyConnection, version: int) -> None:
    """Refuse what cannot be put in force by hand: unknown, without weights, or judged before."""
    found = con.execute(
        "select p.status, count(w.strategy) from m6.policy_versions as p "
        "left join m6.strategy_weights as w using (policy_version) where p.policy_version = ? group by p.status",
        [version],
    ).fetchall()
    if not found:
        raise UnknownNameError(f"there is no policy version {version}", "see m6.policy_versions")
    status, weights = found[0]
    if status not in ("shadow", "candidate"):
        raise ParameterError(
            f"policy version {version} is {status}, expected shadow or candidate",
            f"m6rec_udf.rollback(con, to={version}) goes back to an earlier version",
        )
    if not weights:
        raise UnknownNameError(f"policy version {version} has no weights", "see m6.strategy_weights")


def stored_weights(
    con: duckdb.DuckDBPyConnection, version: int, groups: list[Group], *, names: list[str], floor: float
) -> dict[Group, Array]:
    """Weights of a version per group: the group's own, else its segment's, its domain's, everyone's."""
    import numpy as np

    stored: dict[Group, dict[str, float]] = {}
    for domain, segment, strategy, weight in con.execute(
        "select domain, segment, strategy, weight from m6.strategy_weights where policy_version = ?", [version]
    ).fetchall():
        stored.setdefault((domain, segment), {})[strategy] = weight
    result = {}
    for domain, segment in groups:
        keys = [(domain, segment), ("*", segment), (domain, "*"), ("*", "*")]
        own = next((stored[key] for key in keys if key in stored), {})
        raw = np.array([max(own.get(name, 0.0), floor) for name in names])
        result[domain, segment] = raw if abs(raw.sum() - 1) < 1e-9 else raw / raw.sum()
    return result


def strategy_names(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the enabled strategies in the order of their bits."""
    names = [
        row[0] for row in con.execute("select strategy from m6.strategies where is_enabled order by bit").fetchall()
    ]
    if not names:
        raise NotBuiltError("m6.strategies has no enabled strategy", "run m6rec_udf.build(con) first")
    return names


def champion_version(con: duckdb.DuckDBPyConnection) -> int | None:
    """Return the version that everything is compared with."""
    rows = con.execute("select max(policy_version) from m6.policy_versions where status = 'champion'").fetchall()
    return None if rows[0][0] is None else int(rows[0][0])


def next_version(con: duckdb.DuckDBPyConnection) -> int:
    """Return the first free version number."""
    return int(con.execute("select coalesce(max(policy_version), 0) + 1 from m6.policy_versions").fetchall()[0][0])


def insert_weights(
    con: duckdb.DuckDBPyConnection, version: int, weights: dict[Group, list[float]], *, names: list[str], floor: float
) -> None:
    """Write the weights of a version; ``weights`` are in the order of ``names``."""
    rows = [
        [version, domain, segment, name, float(weight), floor]
        for (domain, segment), values in sorted(weights.items())
        for name, weight in zip(names, values, strict=True)
    ]
    con.executemany("insert into m6.strategy_weights values (?, ?, ?, ?, ?, ?)", rows)


def activate(con: duckdb.DuckDBPyConnection, version: int) -> None:
    """Put a version in force; opens no transaction."""
    con.execute(
        "update m6.policy_versions set status = 'superseded' where status = 'active' and policy_version <> ?", [version]
    )
    con.execute("update m6.active set policy_version = ?", [version])
