"""Run the SQL models: one file, one pure SELECT, ordered by their own references."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf import resources
from m6rec_udf.errors import ModelSqlError, SchemaError, UnknownNameError

LAYERS = ("staging", "features", "strategies", "satisfaction", "marts")
CANDIDATE_COLUMNS = ("user_idx", "item_idx", "raw_score")
SATISFACTION_COLUMNS = ("user_id", "item_id", "event_type", "value", "interest", "satisfaction", "happened_at")
IN_FORCE = "satisfaction_in_force"
LIVE = ("stg_actions", "stg_behaviour", IN_FORCE)  # people read them as the live view m6.behaviour, not as tables
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True)
class Model:
    """One SQL model.

    Attributes:
        name: file stem.
        layer: folder.
        sql: the SELECT; ``$as_of`` and other parameters are bound when it runs.
        path: "shipped", or the file of the user's project.
    """

    name: str
    layer: str
    sql: str
    path: str

    @property
    def description(self) -> str:
        """The first comment line: the grain and what the model says."""
        return self.sql.splitlines()[0].removeprefix("--").strip() if self.sql.strip() else ""


def collect(project: Path | None = None) -> dict[str, Model]:
    """Every model by name; a file of the project's ``sql/`` folder adds one or overrides the shipped one.

    Raises SchemaError: a file name that is no identifier, a file that is not text.
    """
    found: dict[str, Model] = {}
    roots = [(resources.sql_root(), True)] + ([(Path(project) / "sql", False)] if project else [])
    for root, is_shipped in roots:
        for layer in LAYERS:
            for path in sorted((root / layer).glob("*.sql")):
                if not _NAME.match(path.stem):
                    raise SchemaError(
                        f"the SQL model {path} has the name {path.stem!r}, expected lower case letters, digits and _",
                        "rename the file",
                    )
                found[path.stem] = Model(
                    path.stem, layer, resources.text_of(path).strip(), "shipped" if is_shipped else str(path)
                )
    return found


def with_satisfaction(found: dict[str, Model], name: str) -> dict[str, Model]:
    """The models with the satisfaction function ``name`` in force: ``satisfaction_in_force`` is sat_<name>.

    A shipped one that reads more than the row it grades (``stg_behaviour`` alone) is treated as one of the project's
    own: its grades are not kept between moments, they may be others there.

    Raises UnknownNameError: there is no such file.
    """
    if f"sat_{name}" not in found:
        known = sorted(n.removeprefix("sat_") for n, m in found.items() if m.layer == "satisfaction")
        raise UnknownNameError(
            f"there is no satisfaction function {name!r}, expected one of {', '.join(known)}",
            "a function of your own is one file sql/satisfaction/sat_<name>.sql in the project folder",
        )
    chosen = found[f"sat_{name}"]
    reads_more = references(chosen, set(found)) != {"stg_behaviour"}
    path = f"sat_{name}.sql" if reads_more else chosen.path
    return {**found, IN_FORCE: Model(IN_FORCE, "staging", chosen.sql, path)}


def live(found: dict[str, Model], parts: dict[str, str] | None = None) -> str:
    """SELECT of the behaviour as it is now, graded by the satisfaction function in force.

    ``parts``: what stands in place of a table, as in {"from m6.events": "from (select * from m6.events where ...)"}.

    Raises SchemaError: no live model reads a table of ``parts``.
    """
    staged = [(own, found[own].sql.replace("$as_of", "timestamp 'infinity'")) for own in LIVE]
    for whole, part in (parts or {}).items():
        if not any(whole in sql for _, sql in staged):
            raise SchemaError(f"none of {', '.join(LIVE)} reads `{whole}`, expected to find it in one of them")
        staged = [(own, sql.replace(whole, part)) for own, sql in staged]
    texts = ",\n".join(f"{own} as (\n{sql}\n)" for own, sql in staged)
    return f"with {texts}\nselect * from {IN_FORCE}"


def references(model: Model, names: set[str]) -> set[str]:
    """Models of ``names`` and contract tables (``m6.x``) that the model reads."""
    bare = re.sub(r"--[^\n]*|'(?:[^']|'')*'", " ", model.sql)
    after = re.findall(r"\b(?:from|join)\s+([a-z_][a-z0-9_.]*)", bare)
    return {name for name in after if name.startswith("m6.") or name in names} - {model.name}


def ordered(models: dict[str, Model], wanted: set[str] | None = None) -> list[Model]:
    """Models after what they read; only those ``wanted`` needs, where given.

    Raises UnknownNameError: a wanted model does not exist. SchemaError: the models read each other in a circle.
    """
    for name in wanted or ():
        if name not in models:
            raise UnknownNameError(
                f"there is no SQL model {name!r}, expected one of {', '.join(sorted(models))}",
                "models are the .sql files under sql/ and those of your project folder",
            )
    reads = {name: references(model, set(models)) & set(models) for name, model in models.items()}
    needed = set(models)
    if wanted is not None:
        needed, todo = set(), list(wanted)
        while todo:
            name = todo.pop()
            if name not in needed:
                needed.add(name)
                todo.extend(reads[name])
    try:
        order = list(graphlib.TopologicalSorter({name: reads[name] & needed for name in sorted(needed)}).static_order())
    except graphlib.CycleError as error:
        raise SchemaError(
            f"SQL models read each other in a circle: {' -> '.join(error.args[1])}, expected an order to run them in",
            "let one of them read tables of an earlier layer instead",
        ) from error
    return [models[name] for name in order]


def parameter_names(text: str) -> list[str]:
    """Names of the ``$parameters`` in a SQL text."""
    return sorted(set(re.findall(r"\$([a-z_][a-z_0-9]*)", re.sub(r"--[^\n]*", "", text))))


def used(text: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that occur in a SQL text."""
    return {name: parameters[name] for name in parameter_names(text) if name in parameters}


def run(con: duckdb.DuckDBPyConnection, model: Model, parameters: dict[str, Any], *, temporary: bool = False) -> None:
    """Materialise one model as a table of its name in the current schema.

    Raises ModelSqlError: with the model's name, the database's message and the SQL.
    """
    bound = used(model.sql, parameters)
    kind = "temp table" if temporary else "table"
    try:
        con.execute(f"create or replace {kind} {model.name} as\n{model.sql}", bound)
    except duckdb.Error as error:
        raise ModelSqlError(
            f"SQL model {model.name} ({model.path}) failed: {error}\n--- SQL ---\n{model.sql}",
            "run its CTEs one by one with `m6rec sql`",
        ) from error


def define(
    con: duckdb.DuckDBPyConnection,
    model: Model,
    parameters: dict[str, Any],
    *,
    schema: str = "",
    names: Iterable[str] = (),
) -> None:
    """One model as a view bound to a moment: a temporary one, or one of a schema over its tables ``names``.

    Raises ModelSqlError: with the model's name, the database's message and the SQL.
    """
    sql = model.sql
    for name in parameter_names(sql):
        sql = re.sub(rf"\${name}\b", _literal(parameters[name]), sql)
    for name in sorted(references(model, set(names)) & set(names)) if schema else ():
        sql = re.sub(rf"\b(from|join)(\s+){name}\b", rf"\1\2{schema}.{name}", sql)
    kind, name = ("view", f"{schema}.{model.name}") if schema else ("temp view", model.name)
    try:
        con.execute(f"create or replace {kind} {name} as\n{sql}")
    except duckdb.Error as error:
        raise ModelSqlError(
            f"SQL model {model.name} ({model.path}) failed: {error}\n--- SQL ---\n{sql}",
            "run its CTEs one by one with `m6rec sql`",
        ) from error


def _literal(value: Any) -> str:
    """A moment or a number in SQL, to the last bit."""
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat(sep=' ')}'"
    return f"cast('{float(value)!r}' as double)"


def check_columns(columns: tuple[str, ...], model: Model, expected: tuple[str, ...] = CANDIDATE_COLUMNS) -> None:
    """Raise SchemaError unless the model's table has exactly the columns of every model of its kind."""
    if columns != expected:
        raise SchemaError(
            f"the model {model.name} ({model.path}) has the columns {', '.join(columns)}, "
            f"expected {', '.join(expected)}",
            f"end the model with: select {', '.join(expected)} from ...",
        )
