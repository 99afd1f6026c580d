"""What m6rec_udf.spark does that needs no Spark: words of another engine, packed histories, a clear refusal."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

import m6rec_udf as m6
from m6rec_udf import histories, models, resources
from m6rec_udf.errors import MissingExtraError, SchemaError
from m6rec_udf.spark.histories import pack
from m6rec_udf.spark.tables import SHARE_MODULUS, share_of_users

sqlglot = pytest.importorskip("sqlglot")
from m6rec_udf.spark import dialect  # noqa: E402

MODELS = models.collect()
OVERRIDES = sorted(path.stem for path in (resources.sql_root() / dialect.FOLDER).glob("*.sql"))
BOUND = {"as_of": datetime(2024, 5, 1, 1, 2, 3, 5), "span_days": 0.1, "positive_at": 0.75}


def question(sql, **bound):
    return dialect.spark_sql(models.Model("q", "features", sql, "none"), bound)


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_returns_the_columns_of_its_model(name):
    own = dialect.override_of(MODELS[name])
    dialect.require_same_columns(MODELS[name], own)
    assert own.splitlines()[0] == MODELS[name].sql.splitlines()[0], "the same grain"
    columns = dialect.output_columns(MODELS[name].sql, "duckdb")
    assert len(columns) == 3
    with pytest.raises(SchemaError, match=f"expected {', '.join(columns)}"):
        dialect.require_same_columns(MODELS[name], own.replace(f"as {columns[-1]}", "as other"))


def test_a_model_of_the_project_is_not_overridden():
    own = models.Model("cand_semantic", "strategies", "select 1 as a", "mine.sql")
    assert dialect.override_of(own) is None


def test_decimals_are_doubles():
    assert question("select a / 86400.0 as b from t") == "SELECT a / CAST(86400.0 AS DOUBLE) AS b FROM t"


def test_seconds_are_counted_as_duckdb_counts_them():
    sql = question("select date_diff('second', a, $as_of) as b from t", **BOUND)
    assert sql.count("UNIX_SECONDS") == 2
    assert "2024-05-01 01:02:03.000005" in sql
    assert "DATEDIFF" not in sql


def test_contract_tables_are_views_under_their_name():
    sql = question("select i.a, events.b from m6.items as i inner join m6.events on i.a = events.a")
    assert "FROM m6_items AS i" in sql
    assert "JOIN m6_events AS events" in sql


def test_parameters_are_literals_to_the_last_bit():
    assert "cast('0.1' as double)" in question("select $span_days as a", **BOUND)
    assert dialect.select_sql("select 1 from m6.events where user_id = ? and value < ?", ("it's", 2)).endswith(
        "user_id = 'it\\'s' AND value < cast('2.0' as double)"
    )


def test_the_last_order_goes_unless_it_decides():
    assert "ORDER BY" not in question("select a from t order by a")
    assert "ORDER BY" in question("select a from t order by a limit 3")


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("most", [4, 1000])
def test_histories_are_packed_whatever_the_batches(size, most):
    rng = np.random.default_rng(1)
    user = np.sort(np.concatenate([rng.integers(0, 9, 60), np.full(30, 4)])).astype(np.int32)
    rows = pa.table(
        {
            "user_idx": user,
            "item": rng.integers(0, 50, 90).astype(np.int32),
            "interest": rng.random(90).astype(np.float32),
            "satisfaction": rng.random(90).astype(np.float32),
            "happened_at": np.arange(90, dtype=np.int64) * 1_500_000,
        }
    )
    found = pa.Table.from_batches(pack(iter(rows.to_batches(max_chunksize=size)), most))
    assert found["user_idx"].to_pylist() == sorted(set(user.tolist()))
    length, records = histories.unpacked(found["history"].combine_chunks())
    keep = np.concatenate([np.flatnonzero(user == u)[-most:] for u in sorted(set(user.tolist()))])
    assert length.sum() == len(keep)
    np.testing.assert_array_equal(records["item"], rows["item"].to_numpy()[keep])
    np.testing.assert_array_equal(records["happened_at"], keep * 1.5)


def test_a_share_of_the_users_is_about_that_share():
    con = __import__("duckdb").connect()
    for share in (0.1, 0.5):
        kept = con.sql(f"select count(*) from range(100000) as r(user_idx) where {share_of_users(share)}").fetchall()
        assert kept[0][0] == pytest.approx(100_000 * share, rel=0.02)
    assert con.sql(f"select {share_of_users(0.01, '-1')}").fetchall() == [(True,)]
    assert share_of_users(1.0) == "true"
    assert SHARE_MODULUS % 2 == 0


@pytest.mark.parametrize("missing", ["pyspark", "java"])
def test_what_is_missing_is_named(missing, monkeypatch):
    import importlib.util
    import shutil

    monkeypatch.delenv("JAVA_HOME", raising=False)
    find = importlib.util.find_spec
    there = {"pyspark": None if missing == "pyspark" else object()}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there[name] if name in there else find(name))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingExtraError, match=missing) as error:
        m6.spark.build  # noqa: B018
    assert ("openjdk-17" if missing == "java" else "m6rec[spark]") in str(error.value)
