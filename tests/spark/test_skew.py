"""Where one task could get all the work: one user with most of the events, one item with most, the users' numbers."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import shop_world
import spark_world
from test_equality import FOUND, largest_difference

import m6rec_udf as m6
from m6rec_udf import histories, moment
from m6rec_udf.spark.dialect import spark_sql
from m6rec_udf.spark.engine import SparkEngine, isolated
from m6rec_udf.spark.histories import write_histories
from m6rec_udf.spark.tables import Tables

HEAVY = 60_000
MODELS = ("feat_user_item", "feat_item_activity", "feat_item_transitions", "feat_user_activity")


def skewed() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    n = 3_000
    user = np.concatenate([rng.integers(0, 400, n), np.full(HEAVY, 7), rng.integers(0, 400, HEAVY)])
    item = np.concatenate([rng.integers(0, 600, n), rng.integers(0, 600, HEAVY), np.full(HEAVY, 11)])
    at = [shop_world.START + timedelta(seconds=int(s)) for s in rng.integers(0, 90 * 86400, len(user))]
    return pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in user],
            "item_id": [f"i{i}" for i in item],
            "event_type": np.where(rng.random(len(user)) < 0.5, "view", "purchase"),
            "happened_at": at,
        }
    )


def test_skewed_data(session, tmp_path):
    con = spark_world.connect(tmp_path / "shop.duckdb")
    m6.load(con, events=skewed())
    as_of = con.sql("select max(happened_at) from m6.events").fetchall()[0][0]
    bound = moment.parameters(con, as_of, 0.75)
    own = isolated(session)
    tables = Tables(own, tmp_path / "tables")
    spark_world.tables_of(con, tables)
    engine = SparkEngine(own, tables)
    engine.run(con, FOUND, bound, wanted=set(MODELS))
    write_histories(tables, 500)
    paths = {name: f"read_parquet('{tables.path(name)}/*.parquet')" for name in (*MODELS, "packed_histories")}
    for name in (*MODELS, "stg_items", "stg_users", "stg_events"):
        con.execute(f"drop view if exists temp.{name}")
    moment.run_models(con, FOUND, bound, wanted=set(MODELS))
    for name in MODELS:
        keys = [c for c in con.sql(f"from {name}").columns if c in ("user_idx", "item_idx", "next_item_idx")]
        wanted, found = (con.sql(f"from {r} order by {', '.join(keys)}").to_arrow_table() for r in (name, paths[name]))
        assert largest_difference(name, wanted, found) <= 1e-9, name
    assert con.sql("select max(events) from feat_user_item").fetchall()[0][0] > 50
    stored = con.sql(f"select history from {paths['packed_histories']}").to_arrow_table()["history"].combine_chunks()
    length, _ = histories.unpacked(stored)
    assert length.max() == 500, "of the heavy user the latest ones are stored"
    kept = con.sql("select count(*) from feat_item_transitions").fetchall()[0][0]
    assert kept <= 100 * 600, "a hundred neighbours of an item, however many followed it"
    con.close()


def test_users_are_numbered_by_many_tasks_in_the_order_of_their_ids(session):
    """Numbers of sql/spark/stg_users.sql beside those of the model; ids whose order depends on how text is compared."""
    odd = ["", " ", "u", "u1", "u10", "U1", "\u00c4", "u\u00e9", "a\uffff", "a\U0001f600", "zz", "\u540d"]
    people = pl.DataFrame({"user_id": [*odd, *(f"u{n * 7919 % 20_011}" for n in range(6_000))]})
    con = duckdb.connect()
    con.register("people", people.to_arrow())
    con.execute("create schema m6")
    con.execute("create table m6.users as select user_id, 'all' as segment from people where user_id > 'u5'")
    con.execute("create table stg_behaviour as select user_id from people where user_id < 'u6'")
    con.execute(f"create table stg_users as {FOUND['stg_users'].sql}")
    wanted = con.sql("from stg_users order by user_idx").pl()
    own = isolated(session)
    for name in ("m6.users", "stg_behaviour"):
        rows = own.createDataFrame(con.sql(f"from {name}").to_arrow_table())
        rows.createOrReplaceTempView(name.replace(".", "_"))
    sql = spark_sql(FOUND["stg_users"], {})
    found = pl.from_arrow(own.sql(sql).toArrow()).sort("user_idx")
    assert len(wanted) > 5_900
    assert found.equals(wanted.cast(found.schema))
    dealt = own.sql(sql.replace("SELECT * FROM numbered", "SELECT part, users FROM sizes"))
    users = [row.users for row in dealt.collect()]
    assert len(users) > 10, "the work is dealt out"
    assert max(users) < len(wanted) / 4
