"""A SQL model as Spark SQL: sqlglot's translation, and what it leaves out without a word.

sqlglot keeps ``86400.0`` a decimal, which divides to six digits in Spark and is a double in DuckDB; takes DuckDB's
date_diff, which counts the seconds that began, for Spark's, which counts those that passed; and drops the order inside
``list(... order by ...)``. The first two are put right here, the models of the third have a wording of their own in
``sql/spark/<model>.sql``.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import sqlglot
from sqlglot import exp

from m6rec_udf import resources
from m6rec_udf.errors import ModelSqlError, SchemaError
from m6rec_udf.models import Model, parameter_names

FOLDER = "spark"


def override_of(model: Model) -> str | None:
    """Spark's own wording of a shipped model, ``sql/spark/<model>.sql``; None: it is translated."""
    path = resources.sql_root() / FOLDER / f"{model.name}.sql"
    if model.path != "shipped" or not path.is_file():
        return None
    return path.read_text(encoding="utf-8").strip()


def spark_sql(model: Model, bound: dict[str, Any]) -> str:
    """The SELECT of a model for Spark, with its parameters as literals; ``m6.events`` is the view ``m6_events``.

    Raises:
        ModelSqlError: sqlglot cannot read the model.
        SchemaError: an override has other columns than its model.
    """
    own = override_of(model)
    if own is not None:
        require_same_columns(model, own)
    tree = _parsed(model, own)
    for step in (_without_last_order, _decimals_as_doubles, _seconds_begun, _contract_views):
        tree = step(tree)
    return with_parameters(tree.sql(dialect="spark"), bound)


def select_sql(sql: str, given: tuple[Any, ...] | dict[str, Any] = ()) -> str:
    """The same of a SELECT that is no model; ``?`` and ``$name`` stand for ``given``."""
    bound = given if isinstance(given, dict) else {f"given_{at}": value for at, value in enumerate(given)}
    for name in bound if not isinstance(given, dict) else ():
        sql = sql.replace("?", f"${name}", 1)
    return spark_sql(Model("a question", "staging", sql, "none"), bound)


def with_parameters(sql: str, bound: dict[str, Any]) -> str:
    """``:name`` and ``$name`` as literals."""
    for name, value in bound.items():
        sql = re.sub(rf"(?<![:\w])[:$]{name}\b", _literal(value).replace("\\", r"\\"), sql)
    return sql


def output_columns(sql: str, dialect: str) -> list[str]:
    """Names of the columns of a SELECT; ``select *`` is looked up in the CTE that it reads."""
    tree: Any = sqlglot.parse_one(_named(sql) if dialect == "spark" else sql, read=dialect)
    ctes = {cte.alias: cte.this for cte in tree.find_all(exp.CTE)}
    while tree.is_star and tree.find(exp.From).this.name in ctes:
        tree = ctes[tree.find(exp.From).this.name]
    return [column.alias_or_name for column in tree.selects]


def require_same_columns(model: Model, own: str) -> None:
    """Raise SchemaError unless an override returns the columns of its model, in their order."""
    wanted, found = output_columns(model.sql, "duckdb"), output_columns(own, "spark")
    if wanted != found:
        raise SchemaError(
            f"sql/{FOLDER}/{model.name}.sql has the columns {', '.join(found)}, expected {', '.join(wanted)}",
            "an override says the same as its model in another engine's words",
        )


def _parsed(model: Model, own: str | None) -> Any:
    try:
        return sqlglot.parse_one(_named(own), read="spark") if own else sqlglot.parse_one(model.sql, read="duckdb")
    except sqlglot.errors.ParseError as error:
        sql = own or model.sql
        raise ModelSqlError(
            f"SQL model {model.name} ({model.path}) cannot be read by sqlglot: {error}\n--- SQL ---\n{sql}",
            f"write the model in plainer SQL, or give Spark its own wording in sql/{FOLDER}/{model.name}.sql",
        ) from error


def _named(sql: str) -> str:
    """``$name`` as ``:name``, which Spark's parser reads."""
    for name in parameter_names(sql):
        sql = re.sub(rf"\${name}\b", f":{name}", sql)
    return sql


def _literal(value: Any) -> str:
    if isinstance(value, datetime):
        return f"cast('{value.isoformat(sep=' ')}' as timestamp_ntz)"
    if isinstance(value, str):
        return str(exp.Literal.string(value).sql(dialect="spark"))
    return f"cast('{float(value)!r}' as double)"


def _without_last_order(tree: exp.Expression) -> exp.Expression:
    """The rows of a table have no order: sorting all of them is a shuffle for nothing."""
    if tree.args.get("order") and not tree.args.get("limit"):
        tree.set("order", None)
    return tree


def _decimals_as_doubles(tree: exp.Expression) -> exp.Expression:
    def as_double(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Literal) and not node.is_string and "." in node.this:
            return exp.cast(node.copy(), "double")
        return node

    return tree.transform(as_double)


def _seconds_begun(tree: exp.Expression) -> exp.Expression:
    """date_diff('second', a, b) as whole seconds of b minus whole seconds of a; the session's time zone is UTC."""

    def seconds(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.DateDiff) and node.text("unit").lower() in {"second", "'second'"}:
            first, last = (
                exp.func("unix_seconds", exp.cast(part.copy(), "timestamptz")) for part in (node.expression, node.this)
            )
            return exp.paren(exp.Sub(this=last, expression=first))
        return node

    return tree.transform(seconds)


def _contract_views(tree: exp.Expression) -> exp.Expression:
    for table in tree.find_all(exp.Table):
        if table.db == "m6":
            alias = table.alias or table.name
            table.set("db", None)
            table.set("this", exp.to_identifier(f"m6_{table.name}"))
            if not table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    return tree
