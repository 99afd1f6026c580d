"""Every model on both engines, row by row: equal keys, figures to 1e-9, equal lists."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import spark_world

import m6rec_udf as m6
from m6rec_udf import models, moment
from m6rec_udf.arrays import of_version
from m6rec_udf.item_tables import ITEM_TABLES, write_item_tables
from m6rec_udf.registry import context_of
from m6rec_udf.spark.engine import SparkEngine, isolated
from m6rec_udf.spark.tables import Tables

FOUND = models.with_satisfaction(models.collect(), "graded")
LAYERS = {layer: [n for n, m in FOUND.items() if m.layer == layer] for layer in models.LAYERS}
MODELS = [n for layer in ("staging", "features", "satisfaction", "strategies", "marts") for n in LAYERS[layer]]
EVERYBODY = models.Model("candidate_users", "strategies", "select user_idx from stg_users where user_idx % 5 = 0", "-")
ALONE = (EVERYBODY, *(FOUND[n] for layer in ("satisfaction", "strategies", "marts") for n in LAYERS[layer]))
WINDOW = 0.92  # share of the behaviour before the window of the marts


class Both:
    """Every model run by DuckDB (temp tables of ``con``) and by Spark (``tables``) over the same file."""

    def __init__(self, name, session, folder):
        self.con = spark_world.connect(folder / f"{name}.duckdb")
        m6.load(self.con, **spark_world.DATA[name]())
        m6.build(self.con)
        spark_world.react(self.con)
        start, as_of = self.con.execute(
            "select quantile_disc(happened_at, ?), "
            "greatest(max(happened_at), (select max(happened_at) from m6.feedback)) from m6.events",
            [WINDOW],
        ).fetchall()[0]
        self.bound = moment.parameters(self.con, as_of, 0.75)
        self.bound |= {"window_start": start, "window_end": as_of}
        write_item_tables(self.con, of_version(context_of(self.con), 1), "")
        own = isolated(session)
        self.tables = Tables(own, folder / "tables")
        spark_world.tables_of(self.con, self.tables)
        self.engine = SparkEngine(own, self.tables)
        self.engine.share(self.con, ITEM_TABLES)
        self.engine.run(self.con, FOUND, self.bound)
        for model in ALONE:
            self.tables.write(model.name, self.engine.frame(model, self.bound))
        for name in models.LIVE:
            self.tables.write(f"rows_of_{name}", own.table(name))
        for name in MODELS:
            self.con.execute(f"drop view if exists temp.{name}")
        moment.run_models(self.con, FOUND, self.bound)
        for model in ALONE:
            models.run(self.con, model, self.bound, temporary=True)

    def rows(self, name):
        """(rows of DuckDB, rows of Spark), both sorted, as columns."""
        path = self.tables.path(f"rows_of_{name}" if name in models.LIVE else name)
        relation = f"read_parquet('{path}/*.parquet')"
        columns = [row[0] for row in self.con.execute(f"describe {name}").fetchall()]
        assert columns == [row[0] for row in self.con.execute(f"describe select * from {relation}").fetchall()]
        kinds = dict(self.con.execute(f"select column_name, column_type from (describe {name})").fetchall())
        keys = [c for c in columns if kinds[c] not in ("DOUBLE", "FLOAT")]
        order = ", ".join([*keys, *(f"round({c}, 6)" for c in columns if c not in keys)])
        return [self.con.sql(f"select * from {r} order by {order}").to_arrow_table() for r in (name, relation)]


def largest_difference(name, wanted, found):
    """The largest relative difference of any figure; everything else has to be equal."""
    assert found.num_rows == wanted.num_rows, name
    worst = 0.0
    for column in wanted.column_names:
        mine, other = wanted[column].combine_chunks(), found[column].combine_chunks()
        if str(mine.type) not in ("double", "float"):
            assert mine.cast(other.type).equals(other), f"{name}.{column}"
            continue
        assert mine.is_null().equals(other.is_null()), f"{name}.{column}"
        a, b = (part.drop_null().to_numpy().astype(float) for part in (mine, other))
        scale = np.maximum(np.abs(a), 1e-9)
        worst = max(worst, float((np.abs(a - b) / scale).max(initial=0)))
    return worst


@pytest.fixture(scope="module", params=sorted(spark_world.DATA))
def both(request, session, tmp_path_factory):
    made = Both(request.param, session, tmp_path_factory.mktemp(request.param))
    yield made
    made.con.close()


@pytest.fixture(scope="module")
def seen():
    """The equality table, printed at the end (pytest -s)."""
    found = {}
    yield found
    for line in found.values():
        print(line)


@pytest.mark.parametrize("name", MODELS)
def test_same_rows(both, name, request, seen):
    wanted, found = both.rows(name)
    is_empty = request.node.callspec.id in ("movielens-feat_user_brand", "movielens-cand_buy_again")
    assert (wanted.num_rows == 0) == is_empty, "nothing to compare"
    worst = largest_difference(name, wanted, found)
    seen[request.node.name] = f"{request.node.name[15:]:<45} {wanted.num_rows:>9,} rows, figures to {worst:.0e}"
    assert worst <= 1e-9


def test_there_are_ties_parts_of_seconds_and_turning_away(both):
    """What the comparison would not see if the data did not have it."""
    ask = both.con.execute
    assert ask("select count(*) from m6.events where microsecond(happened_at) % 1000000 > 0").fetchall()[0][0] > 1000
    assert ask("select count(*) from feat_user_item where lowest_interest < 0").fetchall()[0][0] > 10
    assert ask("select count(*) from mart_impressions where satisfaction > 0").fetchall()[0][0] > 5
    assert isinstance(both.con, duckdb.DuckDBPyConnection)
