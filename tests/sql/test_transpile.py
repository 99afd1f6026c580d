"""Every SQL model parses, carries over to Spark, and uses only functions that do.

sqlglot passes unknown functions on and drops the order inside ``list(... order by ...)`` without a word: hence
the allow-list of functions and the named list of models whose lists are ordered.
"""

from __future__ import annotations

from datetime import datetime

import pytest

from m6rec_udf import models, resources

sqlglot = pytest.importorskip("sqlglot")
from sqlglot import exp  # noqa: E402

from m6rec_udf.spark.dialect import FOLDER, spark_sql  # noqa: E402

AS_OF = datetime(2024, 5, 1)

LAYERS = ("staging", "features", "strategies", "satisfaction", "marts")
MODELS = {name: model for name, model in models.collect().items() if model.layer in LAYERS}

# SQL that both engines know under the name sqlglot writes
ALLOWED = {
    "abs", "aggregate_if", "anonymous", "array", "array_agg", "array_to_string", "avg", "case", "cast", "coalesce",
    "concat_ws", "count", "datediff", "exp", "explode", "greatest", "if", "json_extract_scalar", "lead", "left",
    "least", "ln", "max", "median", "min", "ntile", "nullif", "power", "replace", "round", "row_number", "split",
    "sqrt", "sum", "trim", "try_cast", "unnest",
}  # fmt: skip
# functions Spark does not have, by model: each needs an override there
OWN = {
    "m6_user_vector": {"cand_semantic"},
    "m6_weighted_sum": {"cand_matrix_factorization"},
    "list_inner_product": {"cand_semantic", "cand_matrix_factorization"},
}
# list(... order by ...): sqlglot drops the order; both lists of a model are ordered alike, so on Spark the pairs must
# be gathered as one list of structs by a named override
ORDERED_LISTS = {
    "cand_semantic": "vectors and weights in the same order",
    "cand_matrix_factorization": "vectors and weights in the same order",
}
# what Spark would do with one task for all rows
ONE_TASK = {"stg_users": "row_number() over everybody"}
FORBIDDEN = ("current_timestamp", "current_date", "current_time", "rand", "uuid")


def parsed(name: str) -> exp.Expression:
    found = sqlglot.parse(MODELS[name].sql, read="duckdb")
    assert len(found) == 1, "one model, one SELECT"
    return found[0]


def functions(tree: exp.Expression) -> set[str]:
    found = set()
    for node in tree.find_all(exp.Func):
        if isinstance(node, exp.And | exp.Or | exp.Xor):
            continue
        found.add(
            node.name.lower()
            if isinstance(node, exp.Anonymous)
            else node.key.lower()
            if not node.sql_names()
            else node.sql_name().lower()
        )
    return found


def test_what_does_not_carry_over_has_its_own_wording():
    """sql/spark holds the named exceptions and nothing else."""
    named = {path.stem for path in (resources.sql_root() / FOLDER).glob("*.sql")}
    assert named == set(ORDERED_LISTS) | set(ONE_TASK) | set().union(*OWN.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_wording_for_spark_holds_no_trace_of_duckdb(name):
    """Parameters are bound, contract tables are views, nothing divides decimals, nothing counts seconds by DATEDIFF."""
    bound = {"as_of": AS_OF, "window_start": AS_OF, "window_end": AS_OF, "span_days": 30.0, "positive_at": 0.75}
    sql = spark_sql(MODELS[name], bound)
    again = sqlglot.parse_one(sql, read="spark")
    assert not list(again.find_all(exp.Placeholder, exp.Parameter))
    assert not [table for table in again.find_all(exp.Table) if table.db]
    assert not [node for node in again.find_all(exp.DateDiff, exp.TimestampDiff)]
    decimals = [n for n in again.find_all(exp.Literal) if not n.is_string and "." in n.this]
    assert all(isinstance(number.parent, exp.Cast) for number in decimals)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_select_that_transpiles(name):
    tree = parsed(name)
    assert isinstance(tree, exp.Select | exp.Union)
    spark = sqlglot.transpile(
        MODELS[name].sql, read="duckdb", write="spark", unsupported_level=sqlglot.ErrorLevel.IGNORE
    )
    again = sqlglot.parse_one(spark[0], read="spark")
    assert isinstance(again, exp.Select | exp.Union)
    assert [c.alias_or_name for c in again.selects] == [c.alias_or_name for c in tree.selects]


@pytest.mark.parametrize("name", MODELS)
def test_only_functions_that_carry_over(name):
    used = functions(parsed(name))
    unknown = {function for function in used - ALLOWED if name not in OWN.get(function, ())}
    assert not unknown, f"{name} uses {sorted(unknown)}: allow it, or name an override for Spark"
    assert not used & set(FORBIDDEN), "time and chance are parameters"


@pytest.mark.parametrize("name", MODELS)
def test_lists_with_an_order_are_named(name):
    ordered = any(
        isinstance(node.this, exp.Order) or node.args.get("order") or node.find(exp.Order)
        for node in parsed(name).find_all(exp.ArrayAgg, exp.GroupConcat)
    )
    assert ordered == (name in ORDERED_LISTS), f"{name}: sqlglot drops the order inside list()"


def test_the_named_exceptions_are_needed():
    used = {name: functions(parsed(name)) for name in MODELS}
    for function, names in OWN.items():
        assert names == {name for name in MODELS if function in used[name]}, function
    everything = set().union(*used.values())
    assert ALLOWED - everything <= {"aggregate_if", "anonymous", "explode", "if", "unnest", "left"}, (
        "the allow-list says no more than it must"
    )


def test_sqlglot_does_drop_the_order():
    """The reason of ORDERED_LISTS; when this fails the list can go."""
    spark = sqlglot.transpile("select list(a order by b) from t", read="duckdb", write="spark")[0]
    assert "order by" not in spark.lower()


@pytest.mark.parametrize("name", MODELS)
def test_the_shape_of_a_model(name):
    """Line 1 says the grain, no line creates anything, time is a parameter."""
    model = MODELS[name]
    assert model.sql.startswith("-- one row per ")
    assert model.description
    assert ";" not in "".join(line.partition("--")[0] for line in model.sql.splitlines())
    tree = parsed(name)
    assert not list(tree.find_all(exp.Create, exp.Insert, exp.Update, exp.Delete))
    if tree.ctes:
        assert tree.find(exp.From).this.name == tree.ctes[-1].alias or model.layer == "staging", "ends in its last CTE"
    for window in tree.find_all(exp.Window):
        if isinstance(window.this, exp.RowNumber) and window.args.get("order"):
            keys = [key.this.sql() for key in window.args["order"].expressions]
            assert any(key.endswith("_idx") or key.endswith("_id") for key in keys), "every ordering has a tie-break"
