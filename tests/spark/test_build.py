"""m6.spark.build from frames to a serving file and a table: the lists are those of a build by DuckDB."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import shop_world
import spark_world

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import LockedError, NotBuiltError, SchemaError

LISTS = "select * exclude (model_version) from m6.recommendations order by user_id, rank"


def parquet(frames, folder):
    """The frames as files, by table."""
    folder.mkdir()
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in frames}


def build(session, given, target, **options):
    return m6.spark.build(session, **given, target=target, encoder=HashEncoder(32), **options)


@pytest.mark.parametrize("name", sorted(spark_world.DATA))
def test_the_lists_are_those_of_duckdb(name, session, tmp_path):
    """The second build of a file with impressions and feedback: by DuckDB, and by Spark from the same frames."""
    frames = spark_world.DATA[name]()
    con = spark_world.connect(tmp_path / "shop.duckdb")
    m6.load(con, **frames)
    m6.build(con)
    spark_world.react(con)
    con.close()
    shutil.copy(tmp_path / "shop.duckdb", target := tmp_path / "on_spark.duckdb")
    con = spark_world.connect(tmp_path / "shop.duckdb")
    m6.build(con, retrain=True)
    m6.publish(con)
    report = build(session, parquet(frames, tmp_path / "in"), target, recommendations=f"lists_{name}")
    assert report.share == 1
    assert report.build.model_version == 2
    assert report.events == len(frames["events"])
    other = spark_world.connect(target)
    assert other.sql("from m6.impressions order by all").pl().equals(con.sql("from m6.impressions order by all").pl())
    m6.publish(other)
    wanted, served = con.sql(LISTS).pl(), other.sql(LISTS).pl()
    table = session.table(f"lists_{name}")
    made = pl.from_arrow(table.toArrow()).select(wanted.columns).sort("user_id", "rank")
    assert wanted["user_id"].n_unique() > 30
    for found in (served, made):
        floats = ["score", "satisfaction"]
        assert found.drop(floats).equals(wanted.drop(floats).cast(found.drop(floats).schema))
        np.testing.assert_allclose(found[floats].to_numpy(), wanted[floats].to_numpy(), rtol=1e-6)
    assert other.sql("select value from m6.decisions where name = 'engine'").fetchall() == [("spark",)]
    m6.build(other)  # the file is one like any other
    assert other.sql("select count(*) from m6.recommend('*')").fetchall() == [(10,)]
    con.close()
    other.close()


@pytest.fixture(scope="module")
def town(session, tmp_path_factory):
    """The shop whose users are items as well and follow each other, with blocks among them; its file and lists."""
    folder = tmp_path_factory.mktemp("town")
    frames = shop_world.frames()
    frames.pop("feedback")
    names = shop_world.USERS[:40]
    persons = pl.DataFrame({"item_id": names, "domain": ["people"] * len(names), "title": names})
    follows = pl.DataFrame(
        {
            "user_id": [f"u{n % 60:02d}" for n in range(400)],
            "item_id": [f"u{(n * 7 + n // 60) % 40:02d}" for n in range(400)],
            "event_type": ["follow"] * 400,
            "happened_at": [datetime(2024, 6, 1) + timedelta(hours=n) for n in range(400)],
        }
    )
    frames["items"] = pl.concat([frames["items"], persons], how="diagonal")
    frames["events"] = pl.concat([frames["events"], follows.cast({"happened_at": pl.Datetime("us")})], how="diagonal")
    # everybody blocks ten others; u59 is no item, i20 no person
    blocks = [(user, f"u{(at + 3 * step) % 40:02d}") for at, user in enumerate(names) for step in range(1, 11)]
    blocks += [("u59", "u05"), ("u00", "i20"), ("gone", "u07")]
    frames["relations"] = pl.DataFrame(blocks, schema=["user_id", "other_user_id"], orient="row").with_columns(
        kind=pl.lit("blocks")
    )
    given = parquet(frames, folder / "in")
    build(session, given, folder / "shop.duckdb", k=60, recommendations=str(folder / "lists"))
    con = spark_world.connect(folder / "shop.duckdb")
    yield con, session.read.parquet(str(folder / "lists")), blocks
    con.close()


def test_lists_by_spark_keep_people_apart_who_blocked_each_other(town):
    con, table, blocks = town
    made = pl.from_arrow(table.toArrow()).sort("user_id", "rank")
    shown = set(made.filter(domain="people").select("user_id", "item_id").iter_rows())
    apart = {*blocks, *((other, user) for user, other in blocks), *((user, user) for user in shop_world.USERS)}
    assert len(shown) > 100, "persons are shown at all"
    assert not shown & apart
    wanted = con.sql("from m6.recommend_many('m6.known_users', k := 60) order by user_id, rank").pl()
    found = made.filter(pl.col("user_id") != "*").select(wanted.columns)
    floats = ["score", "satisfaction"]
    assert found.drop(floats).equals(wanted.drop(floats).cast(found.drop(floats).schema))
    np.testing.assert_allclose(found[floats].to_numpy(), wanted[floats].to_numpy(), rtol=1e-6)
    of_u00 = con.sql("select item_id from m6.recommend('u00', k := 60, exclude_seen := false)").fetchall()
    assert ("i20",) in of_u00, "an item that is no person may have the id of somebody blocked"


@pytest.fixture(scope="module")
def small(session, tmp_path_factory):
    """The shop of the other tests without its events, learned from a share of its users."""
    folder = tmp_path_factory.mktemp("small")
    frames = shop_world.frames()
    frames.pop("feedback")
    given = parquet(frames, folder / "in")
    target = folder / "shop.duckdb"
    options = {"with_events": False, "learn_from": 600, "most_history": 20}
    report = build(session, given, target, recommendations=str(folder / "lists"), **options)
    return report, target, folder, frames


def test_a_share_of_the_users_teaches_and_all_are_served(small, session):
    report, target, folder, _ = small
    con = spark_world.connect(target)
    assert 0.3 < report.share < 0.9
    decided = dict(con.sql("select name, value from m6.decisions").fetchall())
    assert decided["learned_from"] == f"{report.share:.4f}"
    lists = session.read.parquet(str(folder / "lists"))
    counts = dict(lists.groupBy("user_id").count().collect())
    assert set(counts) == {*shop_world.USERS, "*"}
    assert set(counts.values()) == {10}
    for user in ("u00", "u33", "nobody"):
        own = lists.where(f"user_id = '{user if user in counts else '*'}'").sort("rank").collect()
        assert shop_world.items_of(shop_world.recommend(con, user)) == [row.item_id for row in own]
    con.close()


def test_a_file_without_events_serves_from_the_latest_behaviours(small, tmp_path):
    _, target, _, frames = small
    con = spark_world.connect(shutil.copy(target, tmp_path / "shop.duckdb"))
    assert con.sql("select count(*) from m6.events").fetchall() == [(0,)]
    count = con.sql("select len(history) as n from m6.user_history(['u01', 'u02', 'u03', 'u04'])").pl()["n"]
    own = frames["events"].group_by("user_id").len().filter(pl.col("user_id").is_in(["u01", "u02", "u03", "u04"]))
    assert sorted(count) == sorted(min(n, 20) for n in own["len"])
    latest = frames["events"]["happened_at"].max()
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u01', 'i05', 'purchase', ?)",
        [latest + timedelta(days=1)],
    )
    after = con.sql("select len(history) from m6.user_history(['u01'])").fetchall()[0][0]
    assert after == min(int(own.filter(user_id="u01")["len"][0]), 20) + 1
    with pytest.raises(NotBuiltError, match="not in this file"):
        m6.build(con)
    con.close()


def test_factors_of_als_put_what_was_liked_first(small):
    """(x F) V' over the matrix they were learned from: pairs of interest above the others."""
    _, target, _, frames = small
    con = spark_world.connect(target)
    table = con.sql("select item_id, factors, fold_in from m6.item_factors join m6.stg_items using (item_idx)")
    rows = {item: (np.asarray(v), np.asarray(f)) for item, v, f in table.fetchall()}
    con.close()
    ids = sorted(rows)
    v, fold = (np.stack([rows[i][at] for i in ids]) for at in (0, 1))
    x = np.zeros((60, len(ids)))
    for user, item in frames["events"].select("user_id", "item_id").iter_rows():
        x[int(user[1:]), ids.index(item)] = 1
    score = (x @ fold) @ v.T
    positive, negative = score[x > 0], score[x == 0]
    assert (positive[:, None] > negative[None, ::7]).mean() > 0.9


def test_rows_that_do_not_fit_are_counted_and_kept(session, tmp_path):
    frames = shop_world.frames()
    events = frames["events"].head(400)
    broken = events.head(6).with_columns(
        user_id=pl.Series([None, "", "u01", "u02", "u03", "u04"]),
        event_type=pl.Series(["view", "view", "stare", "view", "rating", "view"]),
        value=pl.Series([None, None, None, None, float("nan"), None]),
        happened_at=pl.when(pl.int_range(6) == 3).then(None).otherwise(pl.col("happened_at")),
        event_id=pl.Series([f"x{n}" for n in range(5)] + [events["event_id"][100]]),
    )
    later = broken.tail(1).with_columns(happened_at=events["happened_at"].max())
    given = parquet(
        {"events": pl.concat([events, broken.head(5), later]).rename({"user_id": "customer"})}, tmp_path / "in"
    )
    session.read.parquet(given["events"]).createOrReplaceTempView("orders")
    target = tmp_path / "shop.duckdb"
    report = build(
        session, {"events": "orders"}, target, columns={"events": {"customer": "user_id"}}, recommendations=None
    )
    assert report.rejected == {
        "happened_at is empty or no time": 1,
        "unknown event_type": 1,
        "user_id is empty": 2,
        "value is NaN or infinite": 1,
    }
    assert report.events == 400, "the copy of an event_id counts once"
    con = spark_world.connect(target)
    assert con.sql("select count(*) from m6.rejected_rows").fetchall() == [(5,)]
    same = "select user_id, item_id, happened_at from m6.events order by all"
    wanted = events.select("user_id", "item_id", "happened_at").sort(pl.all())
    assert con.sql(same).pl().equals(wanted)
    con.close()


def test_what_cannot_be_read_says_so(session, tmp_path):
    frames = shop_world.frames()
    given = parquet({"events": frames["events"].drop("item_id").head(3)}, tmp_path / "in")
    with pytest.raises(SchemaError, match="expected item_id"):
        build(session, given, tmp_path / "shop.duckdb")
    with pytest.raises(SchemaError, match="expected a Spark DataFrame"):
        build(session, {"events": 3}, tmp_path / "shop.duckdb")
    assert not (tmp_path / "shop.duckdb").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["in"], "nothing is left behind"


def test_a_file_that_is_open_stays_as_it_is(small, session, tmp_path):
    _, target, folder, _ = small
    mine = shutil.copy(target, tmp_path / "shop.duckdb")
    con = spark_world.connect(mine)
    with pytest.raises(LockedError):
        build(session, {"events": str(folder / "in" / "events.parquet")}, mine)
    con.close()
