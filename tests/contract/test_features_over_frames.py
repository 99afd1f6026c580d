"""m6.features over Polars frames equals the table a build writes, for every staging and feature model."""

from __future__ import annotations

import duckdb
import polars as pl
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf import models
from m6rec_udf.errors import SchemaError, UnknownNameError

NAMES = sorted(n for n, m in models.collect().items() if m.layer in ("staging", "features") and n not in models.LIVE)


@pytest.fixture(scope="module")
def built(shop_frames):
    """The shop without feedback: features are asked of events, items and users."""
    con = shop_world.connect(":memory:")
    m6.load(con, **{name: frame for name, frame in shop_frames.items() if name != "feedback"})
    m6.build(con)
    yield con
    con.close()


def frame(relation: pl.DataFrame) -> pl.DataFrame:
    keys = [
        c
        for c in ("user_idx", "item_idx", "next_item_idx", "segment", "term", "brand", "category", "event_type")
        if c in relation.columns
    ]
    times = [c for c in ("happened_at",) if c in relation.columns]
    return relation.sort([*keys, *times], maintain_order=True)


@pytest.mark.parametrize("model", NAMES)
def test_over_lazy_frames_equals_the_table(built, shop_frames, model):
    table = frame(built.sql(f"from m6.{model}").pl())
    con = duckdb.connect()
    got = frame(
        m6.features(
            con,
            model,
            events=shop_frames["events"].lazy(),
            items=shop_frames["items"].lazy(),
            users=shop_frames["users"],
        ).pl()
    )
    assert got.columns == table.columns
    assert got.dtypes == table.dtypes
    assert len(got) > 0
    for name in table.columns:
        ours, theirs = got[name], table[name]
        if table.schema[name].is_float():
            assert ours.is_null().to_list() == theirs.is_null().to_list()
            assert (ours.fill_null(0) - theirs.fill_null(0)).abs().max() < 1e-6, name
        else:
            assert ours.to_list() == theirs.to_list(), name
    assert con.execute("select count(*) from duckdb_schemas() where schema_name = 'm6'").fetchall() == [(0,)]
    con.close()


def test_as_of_leaves_the_future_out(shop_frames):
    con, at = duckdb.connect(), shop_world.START.replace(month=4)
    events = shop_frames["events"]
    early = m6.features(con, "feat_user_item", events=events.lazy(), as_of=at).pl()
    cut = m6.features(con, "feat_user_item", events=events.filter(pl.col("happened_at") <= at), as_of=at).pl()
    assert 0 < len(early) < events.select("user_id", "item_id").n_unique()
    assert frame(early).equals(frame(cut))


def test_the_example_of_the_reference_runs():
    con = duckdb.connect()
    lazyframe = pl.LazyFrame(
        {
            "customer": ["a", "a", "b"],
            "item_id": ["x", "y", "x"],
            "event_type": ["view", "purchase", "view"],
            "happened_at": [shop_world.START] * 3,
        }
    )
    got = m6.features(con, "feat_user_activity", events=lazyframe, columns={"events": {"customer": "user_id"}}).pl()
    assert got.select("user_id", "events", "items").rows() == [("a", 2, 2), ("b", 1, 1)]


def test_mistakes_are_named(shop_frames):
    con = duckdb.connect()
    with pytest.raises(UnknownNameError, match=r"no SQL model 'feat_nothing', expected one of .*feat_item_activity"):
        m6.features(con, "feat_nothing", events=shop_frames["events"])
    with pytest.raises(SchemaError, match="cand_popular is in strategies/"):
        m6.features(con, "cand_popular", events=shop_frames["events"])
    with pytest.raises(SchemaError, match="no valid row"):
        m6.features(con, "feat_user_item", events=shop_frames["events"].head(0))
