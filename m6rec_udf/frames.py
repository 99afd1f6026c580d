"""Feature models straight over frames: the same SQL, no warehouse."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import duckdb

from m6rec_udf import models, moment
from m6rec_udf.errors import SchemaError, UnknownNameError
from m6rec_udf.query import one


def features(
    con: duckdb.DuckDBPyConnection,
    model: str,
    *,
    events: Any,
    items: Any = None,
    users: Any = None,
    as_of: datetime | None = None,
    satisfaction: str = "graded",
    columns: dict[str, dict[str, str]] | None = None,
) -> duckdb.DuckDBPyRelation:
    """Compute one staging or feature model over frames, equal to the table a build writes.

    Args:
        con: any DuckDB connection; the result is a relation on it, nothing else of it is touched.
        model: name of the model, "feat_user_activity".
        events, items, users: anything ``load`` takes: Polars (eager, lazy), Arrow, pandas, relations, paths.
        as_of: behaviour after this moment (UTC) is left out; default: the latest ``happened_at``.
        satisfaction: name of the satisfaction function, sql/satisfaction/sat_<name>.sql.
        columns: source column to contract column, by table, as in ``load``.

    Raises:
        UnknownNameError: there is no such model. SchemaError: the model is no staging or feature model.

    Example:
        m6.features(con, "feat_user_activity", events=lazyframe).pl()
    """
    from m6rec_udf.connection import migrate
    from m6rec_udf.load import load
    from m6rec_udf.registry import context_of, is_registered

    project = context_of(con).project if is_registered(con) else None
    found = models.with_satisfaction(models.collect(project), satisfaction)
    if model not in found:
        raise UnknownNameError(
            f"there is no SQL model {model!r}, expected one of "
            f"{', '.join(sorted(n for n, m in found.items() if m.layer in ('staging', 'features')))}"
        )
    if found[model].layer not in ("staging", "features"):
        raise SchemaError(f"{model} is in {found[model].layer}/, expected a model of staging/ or features/")
    scratch = duckdb.connect(":memory:")
    try:
        migrate(scratch)
        load(scratch, events=events, items=items, users=users, columns=columns)
        latest = as_of or one(scratch, "select max(happened_at) from m6.events")[0]
        if latest is None:
            raise SchemaError("events holds no valid row, expected at least one", "see what load rejects and why")
        positive_at = moment.positive_at(scratch, latest)[0]
        bound = moment.parameters(scratch, latest, positive_at)
        for step in models.ordered(found, {model}):
            models.run(scratch, step, bound, temporary=True)
        table = scratch.sql(f"from {model}").to_arrow_table()
    finally:
        scratch.close()
    return con.from_arrow(table)
