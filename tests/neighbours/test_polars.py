"""Polars in and out: eager frames and LazyFrames load the same, every verb comes out as a frame and goes on lazily."""

from __future__ import annotations

import polars as pl
import pytest
import shop_world

import m6rec_udf as m6


@pytest.fixture
def lazy(shop_frames, tmp_path):
    """The shop's frames as lazy scans of Parquet and CSV files."""
    scans = {}
    for name in ("items", "users", "events"):
        shop_frames[name].write_parquet(tmp_path / f"{name}.parquet")
        scans[name] = pl.scan_parquet(tmp_path / f"{name}.parquet")
    return scans


def test_lazy_frames_load_and_build_as_eager_ones(lazy, shop_frames):
    eager, streamed = shop_world.connect(":memory:"), shop_world.connect(":memory:")
    m6.load(eager, **{name: shop_frames[name] for name in lazy})
    report = m6.load(streamed, **lazy)
    assert report["events"].loaded == shop_frames["events"].height
    for con in (eager, streamed):
        m6.build(con)
    one, other = (con.sql("from m6.recommend_many('m6.known_users', k := 5)").pl() for con in (eager, streamed))
    key = ["user_id", "rank"]
    assert one.sort(key).drop("score", "satisfaction").equals(other.sort(key).drop("score", "satisfaction"))


def test_a_lazy_frame_with_steps_and_other_names_loads(lazy):
    con = shop_world.connect(":memory:")
    recent = lazy["events"].filter(pl.col("event_type") == "view").rename({"user_id": "customer", "item_id": "sku"})
    report = m6.load(con, events=recent, columns={"events": {"customer": "user_id", "sku": "item_id"}})
    assert report["events"].loaded == recent.select(pl.len()).collect().item()


def test_features_take_a_lazy_frame(shop, lazy, shop_frames):
    eager = m6.features(shop, "feat_user_activity", events=shop_frames["events"]).pl()
    streamed = m6.features(shop, "feat_user_activity", events=lazy["events"]).pl()
    assert streamed.sort("user_id").equals(eager.sort("user_id"))


@pytest.mark.parametrize(
    "query",
    [
        "from m6.recommend('u00', k := 3)",
        "from m6.serve('u00', k := 3, seed := 1)",
        "from m6.history('u00', k := 3)",
        "from m6.search_items('drama', k := 3)",
        "from m6.strategy_report()",
        "from m6.items",
    ],
)
def test_every_read_comes_out_eager_and_lazy(shop, query):
    eager = shop.sql(query).pl()
    streamed = shop.sql(query).pl(lazy=True)
    assert isinstance(streamed, pl.LazyFrame)
    assert streamed.collect().columns == eager.columns
    assert eager.height
