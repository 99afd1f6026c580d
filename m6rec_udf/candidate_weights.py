"""From statistics to weights: candidates per fold, steps the gate judges, the weights it decided on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf.policy_versions import Group

if TYPE_CHECKING:
    from m6rec_udf.posterior import Array

FOLDS = 4


def candidate_weights(
    con: duckdb.DuckDBPyConnection,
    groups: list[Group],
    *,
    names: list[str],
    current: dict[Group, Array],
    period: int,
    seed: int,
    parameters: dict[str, Any],
) -> list[dict[Group, Array]]:
    """Candidate weights (9) to (14): one set per fold of users left out, then the one of all users.

    Args:
        con: a connection with fb_log, fb_memory and fb_statistics.
        groups: groups with impressions in the window; the others of ``current`` get the common weights.
        names: strategies, the order of the weights.
        current: weights to move from, per group.
        period: number of the newest period.
        seed: seed of the posterior draws.
        parameters: see ``reweight.DEFAULTS``.
    """
    import numpy as np

    from m6rec_udf import posterior as solve

    window = parameters["window"]
    statistics = np.zeros((FOLDS, len(groups), window, len(names), 5))
    place, column = {g: n for n, g in enumerate(groups)}, {name: n for n, name in enumerate(names)}
    for at_period, domain, segment, fold, strategy, *sums in con.execute("from fb_statistics order by all").fetchall():
        if strategy in column:
            at = at_period - period + window - 1
            statistics[fold, place[domain, segment], at, column[strategy]] = sums
    remembered = con.execute("select period, domain, segment, memory from fb_memory").fetchall()
    for at_period, domain, segment, memory in remembered:
        statistics[:, place[domain, segment], at_period - period + window - 1] *= memory
    total = con.execute("select cast(sum(cast(reward as decimal(38, 12))) as double) / count(*) from fb_log").fetchall()
    mean_reward = max(abs(total[0][0]), 1e-6)
    whole = statistics.sum(axis=0)
    result = []
    for left_out in [*(statistics[f] for f in range(FOLDS)), np.zeros_like(whole)]:
        found = solve.posterior(
            whole - left_out,
            mean_reward=mean_reward,
            gamma=parameters["gamma"],
            tau_common=parameters["tau_common"],
            tau_group=parameters["tau_group"],
        )
        weights = {}
        for group, start in current.items():
            g = place.get(group)
            mean = found.new_mean if g is None else found.means[g]
            covariance = found.new_covariance if g is None else found.covariances[g]
            shown = whole.sum(axis=0) if g is None else whole[g]
            has_shown = shown[:, :, 0].sum(axis=0) > 0  # one that never had an item to propose cannot be the best
            if has_shown.any():
                mean = np.where(has_shown, mean, -np.inf)
            best = solve.probability_best(mean, covariance, draws=parameters["draws"], seed=seed)
            target = solve.with_floor(best, parameters["floor"])
            weights[group] = solve.step(start, target, max_kl=parameters["max_kl"])
        result.append(weights)
    return result


def mixed(current: dict[Group, Array], candidate: dict[Group, Array], step: float) -> dict[Group, Array]:
    """Go the share ``step`` of the way from ``current`` to ``candidate``."""
    return {g: current[g] if step == 0.0 else current[g] + step * (candidate[g] - current[g]) for g in current}


def put_policies(
    con: duckdb.DuckDBPyConnection,
    groups: list[Group],
    names: list[str],
    policies: dict[float, list[dict[Group, Array]]],
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


def decided_weights(
    decisions: list[dict[str, Any]],
    *,
    current: dict[Group, Array],
    champion: dict[Group, Array],
    candidate: dict[Group, Array],
    is_gated: bool,
) -> dict[Group, list[float]]:
    """Weights after the decision rows.

    A group without a decision keeps its weights; "everyone else" (``*``, ``*``) moves as little as the most
    careful group.
    """
    chosen: dict[Group, list[float]] = {}
    for row in decisions:
        group = (row["domain"], row["segment"])
        if not is_gated and row["status"] != "data_check_failed":
            row["status"], row["step"] = "not_gated", 1.0
        if row["status"] == "rolled_back":
            chosen[group] = list(champion[group])
        else:
            chosen[group] = list(mixed(current, candidate, row["step"])[group])
    least = min((row["step"] for row in decisions), default=0.0)
    for group in current:
        if group not in chosen:
            chosen[group] = list(mixed(current, candidate, least if group == ("*", "*") else 0.0)[group])
    return chosen
