"""Invariant 1: time is a parameter and the clock is the data's; the future never leaks."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import shop_world as world
from polars.testing import assert_frame_equal

import m6rec_udf as m6
from m6rec_udf import arrays
from m6rec_udf.ranking import FEATURES

T = world.START + timedelta(days=150)
SHOWN_TO = [*world.USERS[::5], *world.UNKNOWN]
TABLES = (
    "feat_item_activity",
    "feat_item_transitions",
    "feat_segment_item",
    "feat_user_activity",
    "feat_user_brand",
    "feat_user_category",
    "feat_user_item",
    "feat_user_terms",
    "stg_events",
    "stg_items",
    "stg_users",
    "item_neighbours",
    "item_factors",
    "item_trend",
    "item_text_vectors",
    "item_vectors",
    "decisions",
)


def split(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    return frame.filter(pl.col("happened_at") <= T), frame.filter(pl.col("happened_at") > T)


def shuffled(future: pl.DataFrame) -> pl.DataFrame:
    """Who, with what, when and how, each in another order; a value keeps its event type, whose unit it has."""
    kind = [c for c in ("event_type", "value") if c in future.columns]
    alone = [pl.col(c).shuffle(seed=n) for n, c in enumerate(("user_id", "item_id", "happened_at"))]
    return future.with_columns(*alone, *(pl.col(c).shuffle(seed=9) for c in kind))


def changed(future: pl.DataFrame) -> pl.DataFrame:
    """Everybody, and people nobody had seen, comes for one film, at another time."""
    columns = [
        pl.concat_str(pl.lit("late-"), pl.col("user_id")).alias("user_id"),
        pl.lit("i02").alias("item_id"),
        pl.lit("purchase").alias("event_type"),
        (pl.col("happened_at") + pl.duration(days=300)).alias("happened_at"),
    ]
    return pl.concat([future.with_columns(columns), future.with_columns(columns[1:])]).with_columns(
        pl.concat_str(pl.lit("x"), pl.int_range(pl.len()).cast(pl.String)).alias(future.columns[0])
    )


FUTURES = {"shuffled": shuffled, "changed": changed, "deleted": lambda future: future.clear()}


@pytest.fixture(scope="module")
def as_it_was(tmp_path_factory, shop_frames):
    con = world.fill(tmp_path_factory.mktemp("past") / "shop.duckdb", shop_frames, as_of=T)
    yield con
    con.close()


@pytest.fixture(scope="module", params=FUTURES)
def another_future(request, tmp_path_factory, shop_frames):
    data = dict(shop_frames)
    for name in ("events", "feedback"):
        past, future = split(shop_frames[name])
        assert len(future) > 20
        data[name] = pl.concat([past, FUTURES[request.param](future).select(past.columns).cast(dict(past.schema))])
    con = world.fill(tmp_path_factory.mktemp(request.param) / "shop.duckdb", data, as_of=T)
    yield con
    con.close()


@pytest.mark.parametrize("table", TABLES)
def test_tables_do_not_see_the_future(as_it_was, another_future, table):
    expected, found = (con.sql(f"from m6.{table} order by all").pl() for con in (as_it_was, another_future))
    assert len(expected) > 0
    assert_frame_equal(found, expected, check_exact=False, rel_tol=1e-6, abs_tol=1e-6)


def test_every_feature_table_is_compared(as_it_was):
    found = world.rows(
        as_it_was,
        "select table_name from duckdb_tables() where schema_name = 'm6' and table_name like 'feat\\_%' escape '\\'",
    )
    assert {name for (name,) in found} <= set(TABLES)


def test_arrays_and_model_do_not_see_the_future(as_it_was, another_future):
    expected, found = arrays.load(as_it_was, 1), arrays.load(another_future, 1)
    assert found.settings == expected.settings
    assert found.item_ids == expected.item_ids
    for name in ("item", "domain", "category", "brand", "is_known", "factors", "fold_in", "text"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6, err_msg=name)
    for name in ("transitions", "item_item", "segment_trend"):
        difference = sp.csr_matrix(getattr(found, name) - getattr(expected, name))
        assert getattr(expected, name).nnz > 0, name
        assert np.abs(difference.data).max(initial=0) < 1e-6, name
    x = np.random.default_rng(0).uniform(-3, 30, (500, len(FEATURES))).astype(np.float32)
    predicted = expected.model.predict(x)
    assert np.ptp(predicted) > 1e-3
    np.testing.assert_allclose(found.model.predict(x), predicted, atol=1e-6)


@pytest.mark.parametrize("options", ["", "exclude_seen := true", "in_domain := 'books', boosts := 'margin'"])
def test_lists_at_a_moment_do_not_see_the_future(as_it_was, another_future, options):
    then = f"until := timestamp '{T}', version := 1{', ' if options else ''}{options}"
    for user in SHOWN_TO:
        expected, found = (world.recommend(con, user, then) for con in (as_it_was, another_future))
        assert len(expected) == 10
        assert world.items_of(found) == world.items_of(expected)
        for one, other in zip(found, expected, strict=True):
            assert one == {**other, "score": pytest.approx(other["score"], abs=1e-6)} | {
                "satisfaction": pytest.approx(other["satisfaction"], abs=1e-6)
            }


def test_the_futures_differ_where_they_are_read(as_it_was, another_future):
    """Else the tests above would compare nothing."""
    now = [[world.items_of(world.recommend(con, user)) for user in SHOWN_TO] for con in (as_it_was, another_future)]
    assert now[0] != now[1]


def test_a_later_build_leaves_the_lists_of_the_moment(shop_frames, tmp_path):
    with world.fill(tmp_path / "shop.duckdb", shop_frames, as_of=T) as con:
        then = f"until := timestamp '{T}', version := 1"
        before = [world.recommend(con, user, then) for user in SHOWN_TO]
        m6.build(con)
        assert {row["model_version"] for row in world.recommend(con, "u00")} == {2}
        assert [world.recommend(con, user, then) for user in SHOWN_TO] == before


def test_the_default_moment_is_the_latest_behaviour(shop_frames, tmp_path):
    with world.connect(tmp_path / "shop.duckdb") as con:
        m6.load(con, **shop_frames)
        latest = max(shop_frames[name]["happened_at"].max() for name in ("events", "feedback"))
        assert latest < datetime(2025, 1, 1)
        assert m6.build(con).as_of == latest
        assert world.rows(con, "select as_of from m6.active_version") == [(latest,)]
        con.execute(
            "insert into m6.feedback (user_id, item_id, event_type, happened_at) values ('u00', 'i00', 'click', "
            "'2024-12-24 18:00:00')"
        )
        assert m6.build(con).as_of == datetime(2024, 12, 24, 18)
        con.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u00', 'i00', 'view', "
            "'2099-01-01')"
        )
        assert m6.build(con).as_of == datetime(2099, 1, 1)
