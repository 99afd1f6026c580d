"""Strategies that live in SQL only: those of the project, and social.

A build runs them for everybody and stores their best candidates; the others are computed from arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf import models, moment
from m6rec_udf.item_tables import ITEM_TABLES, write_item_tables

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.build_state import State

EXTRA_PER_USER = 60  # in each domain
EVERYBODY = models.Model("candidate_users", "strategies", "select user_idx from stg_users", "shipped")


def in_sql(state: State) -> list[models.Model]:
    """Enabled strategies that live in SQL only."""
    has_relations = state.engine.ask(state.con, "select 1 from m6.relations limit 1")[0] is not None
    return [
        m
        for m in state.found.values()
        if m.layer == "strategies"
        and m.name.removeprefix("cand_") in state.settings.strategies
        and (m.path != "shipped" or (m.name == "cand_social" and has_relations))
    ]


def _run(state: State, found: list[models.Model], snapshot: Snapshot, bound: dict[str, Any]) -> None:
    """Materialise strategies for everybody, at the moment of the snapshot and the tables."""
    write_item_tables(state.con, snapshot, "")
    state.engine.share(state.con, ITEM_TABLES)
    state.engine.run_alone(state.con, EVERYBODY, bound)
    for model in found:
        state.engine.run_alone(state.con, model, bound)
        models.check_columns(state.engine.columns(state.con, model.name), model)
        state.engine.run_alone(state.con, _best_of(state, model.name), bound)


def _best_of(state: State, name: str) -> models.Model:
    """A strategy's best items per user and domain after the filters that every strategy gets."""
    unseen = "" if state.settings.repeats_allowed else "anti join feat_user_item using (user_idx, item_idx) "
    sql = (
        f"select user_idx, item_idx from {name} inner join stg_items using (item_idx) {unseen}"
        "where raw_score is not null "
        "qualify row_number() over (partition by user_idx, domain order by round(raw_score, 9) desc, item_idx) "
        f"<= {EXTRA_PER_USER}"
    )
    return models.Model(f"best_{name}", "strategies", sql, "shipped")


def candidates_at(state: State, snapshot: Snapshot, bound: dict[str, Any]) -> Any:
    """Their best candidates at the moment of the tables: a function of a block of users; None: there are none."""
    found = in_sql(state)
    if not found:
        return None
    _run(state, found, snapshot, bound)
    parts = []
    for model in found:
        rows = state.con.execute(f"from best_{model.name}").fetchnumpy()
        user = rows["user_idx"].astype(np.int64)
        bit = state.settings.strategies[model.name.removeprefix("cand_")]
        parts.append((user, rows["item_idx"].astype(np.int64), np.full(len(user), bit)))
    user, item, bits = (np.concatenate(p) for p in zip(*parts, strict=True))

    def of_block(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keep = np.isin(user, block)
        return np.searchsorted(block, user[keep]), item[keep], bits[keep]

    return of_block


def for_everybody(state: State, strategies: dict[str, int], snapshot: Snapshot) -> list[str]:
    """Temp tables of the SQL-only strategies' best candidates; returns the SELECTs that read them."""
    selects = []
    found = in_sql(state)
    if found:
        _run(state, found, snapshot, state.bound)
    for model in found:
        bit = strategies[model.name.removeprefix("cand_")]
        selects.append(
            f"select u.user_id, i.item_id, cast({int(bit)} as utinyint) as bit from best_{model.name} as c "
            "join stg_users as u using (user_idx) join stg_items as i using (item_idx)"
        )
    return selects


def read_in_sql(state: State, *, past: bool) -> set[str]:
    """Models to run as SQL at a moment: what is the project's own, and what strategies that live in SQL read.

    The other features are computed from the log. Of an earlier moment only what a snapshot reads is wanted.
    """
    features = {name for name, model in state.found.items() if model.layer == "features"}
    wanted = state.own & moment.READ_BY_SNAPSHOTS
    if not past:
        wanted |= {name for name in features if state.found[name].path != "shipped"}
    strategies = in_sql(state)
    for model in strategies:
        wanted |= models.references(model, features | {"stg_events"}) & set(state.found)
    if strategies and not state.settings.repeats_allowed:
        wanted.add("feat_user_item")
    is_graded_anew = models.IN_FORCE not in state.lasting
    if (past and is_graded_anew) or (not past and state.has_own_events and "stg_events" not in state.staged):
        wanted.add("stg_events")  # that of another moment is left otherwise
    state.in_tables = {model.name for model in models.ordered(state.found, wanted)} if wanted else set()
    return wanted
