"""The one transaction of a build: everything it leaves becomes visible at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import duckdb

from m6rec_udf import arrays, artefacts, histories, models
from m6rec_udf.errors import M6Error
from m6rec_udf.item_tables import write_item_tables, write_vectors
from m6rec_udf.query import one

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.build_state import State

KEPT_VERSIONS = 3
_TABLES = ("stg_items", "stg_users", "feat_item_activity", "feat_item_transitions")


def commit(state: State, snapshot: Snapshot, extra: list[str], *, activate: bool) -> int:
    """Write a version and put it in force, in one transaction; its number.

    Args:
        extra: SELECTs of ``sql_strategies.for_everybody``.
        activate: False stores it without putting it in force.
    """
    from m6rec_udf.reweight import ensure_default_policy

    con = state.con
    is_settled = activate and state.reading.settle(con)
    con.execute("begin")
    try:
        state.reading.require_alone(con)
        version = int(one(con, "select coalesce(max(model_version), 0) + 1 from m6.models")[0])
        state.settings.learned.setdefault("version", version)
        con.execute(
            "insert into m6.models (model_version, as_of, event_seq, feedback_seq, encoder, seed, parameters) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            [version, state.as_of, *state.marks, state.settings.encoder, state.seed, json.dumps(vars(state.settings))],
        )
        for strategy in state.new_strategies:
            con.execute("insert into m6.strategies values (?, ?, true, ?)", list(strategy))
        arrays.store(con, version, snapshot)
        con.executemany(
            "insert into m6.decisions values (?, ?, ?, ?)", [[version, *decision] for decision in state.decisions]
        )
        _store_extra(state, version, extra)
        if activate:
            if (before := satisfaction_in_force(con)) != state.satisfaction:
                detail = {"from": before, "to": state.satisfaction, "model_version": version}
                con.execute(
                    "insert into m6.audit (action, detail) values ('use_satisfaction', ?)", [json.dumps(detail)]
                )
            publish_tables(state, snapshot, version, is_settled=is_settled)
            ensure_default_policy(con)
            con.execute("update m6.active set model_version = ?", [version])
            for table in ("artefact_names", "extra_candidates"):
                con.execute(f"delete from m6.{table} where model_version <= ?", [version - KEPT_VERSIONS])
            artefacts.delete_unnamed(con)
        con.execute("commit")
    except (duckdb.TransactionException, duckdb.ConstraintException) as error:
        _rollback(con)
        raise M6Error(
            f"another build, reweighting or deletion was committed meanwhile ({str(error).splitlines()[0]})",
            "run m6rec_udf.build(con) again",
        ) from error
    except BaseException:
        _rollback(con)
        raise
    return version


def satisfaction_in_force(con: duckdb.DuckDBPyConnection) -> str:
    """The satisfaction function of the build in force, ``graded`` for the first one."""
    sql = (
        "select json_extract_string(m.parameters, '$.satisfaction') from m6.models as m "
        "inner join m6.active as a on m.model_version = a.model_version"
    )
    return one(con, sql)[0] or "graded"


def _rollback(con: duckdb.DuckDBPyConnection) -> None:
    """Roll back; a commit that failed has done so already."""
    try:
        con.execute("rollback")
    except duckdb.TransactionException as error:
        if "no transaction" not in str(error):
            raise


def _is_table(state: State, model: models.Model) -> bool:
    """Numbers, features of items and what the project has of its own are tables; the others are computed when read."""
    if model.name == "stg_events":
        return state.has_own_events
    return model.name in _TABLES or model.path != "shipped"


def _marks(state: State) -> histories.Marks:
    return histories.Marks(*state.marks, state.as_of)


def _as_read(state: State, model: models.Model) -> models.Model:
    """stg_events over the behaviour that this build has read, not over what comes later."""
    if model.name != "stg_events":
        return model
    rows = histories.read_rows(state.found, _marks(state)) if histories.are_tables(state.con) else None
    behaviour = rows or models.live(state.found)
    return replace(model, sql=model.sql.replace(f"from {models.IN_FORCE}", f"from (\n{behaviour}\n)"))


def publish_tables(state: State, snapshot: Snapshot, version: int, *, is_settled: bool) -> None:
    """What a build leaves for people to read: staging, features, item models, vectors, lineage."""
    con = state.con
    kinds = dict(
        con.execute(
            "select table_name, 'table' from duckdb_tables() "
            "where schema_name = 'm6' and database_name = current_database() "
            "union all select view_name, 'view' from duckdb_views() "
            "where schema_name = 'm6' and database_name = current_database()"
        ).fetchall()
    )
    layers = {n: m for n, m in state.found.items() if m.layer in ("staging", "features") and n not in models.LIVE}
    for model in models.ordered(layers):
        kind = "table" if _is_table(state, model) else "view"
        if kinds.get(model.name, kind) != kind:
            con.execute(f"drop {kinds[model.name]} m6.{model.name}")
        if kind == "table":
            con.execute(f"create or replace table m6.{model.name} as from temp.{model.name}")
        else:
            models.define(con, _as_read(state, model), state.bound, schema="m6", names=set(layers))
        about = model.description.replace("'", "''")
        con.execute(f"comment on {kind} m6.{model.name} is '{about}'")
    con.execute(f"create or replace view m6.behaviour as\n{models.live(state.found)}")
    _write_histories(state, version, is_settled=is_settled)
    write_item_tables(con, snapshot, "m6.")
    write_vectors(state)
    if kinds.get("item_text_vectors", "view") != "view":
        con.execute("drop table m6.item_text_vectors")
    con.execute(
        "create or replace view m6.item_text_vectors as select i.item_idx, v.vector "
        "from m6.stg_items as i inner join m6.item_vectors as v on i.item_id = v.item_id"
    )
    con.execute("delete from m6.lineage")
    con.executemany(
        "insert into m6.lineage values (?, ?, ?, ?)",
        [
            [model.name, model.layer, reads, model.path]
            for model in state.found.values()
            for reads in sorted(models.references(model, set(state.found))) or [""]
        ],
    )


def _write_histories(state: State, version: int, *, is_settled: bool) -> None:
    """The stored histories, with what other transactions have written since this build read."""
    con, reading = state.con, state.reading
    passed, edited = reading.passed_over(con, is_settled=is_settled), reading.edited_since(con)
    if passed is None:
        why = "a transaction that writes was open for long: every history is read from m6.behaviour"
        con.execute("insert into m6.decisions values (?, 'stored_histories', 'none', ?)", [version, why])
        histories.reset(con)
    else:
        marks = histories.Marks(*state.marks, state.as_of, passed)
        histories.write(con, state.found, lambda: state.engine.histories(con, state.log), marks, version)
    con.execute("insert into m6.history_edits select unnest(cast(? as varchar[]))", [edited])
    con.execute("update m6.history_marks set types_hash = ?", [reading.types_hash])


def _store_extra(state: State, version: int, selects: list[str]) -> None:
    """Candidates of the SQL-only strategies, per version: serving reads them by user."""
    if selects:
        state.con.execute(
            "insert into m6.extra_candidates by name select cast(? as bigint) as model_version, * "
            f"from ({' union all '.join(selects)})",
            [version],
        )
