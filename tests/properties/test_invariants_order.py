"""Invariant 8: same data, same seed, same result, whatever the order of the rows and the cut into batches."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import shop_world as world
from polars.testing import assert_frame_equal

import m6rec_udf as m6
from m6rec_udf import arrays

TABLES = (
    "feat_item_activity",
    "feat_item_transitions",
    "feat_segment_item",
    "feat_user_activity",
    "feat_user_category",
    "feat_user_item",
    "stg_items",
    "stg_users",
    "item_vectors",
)


class FickleEncoder:
    """An encoder whose last bits change with the batch, as those of neural ones do (more than they do)."""

    name = "fickle"
    dimension = 32

    def encode(self, texts: list[str]) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256("/".join(texts).encode()).digest()[:4], "big")
        noise = np.random.default_rng(seed).normal(0, 1e-4, (len(texts), self.dimension))
        return (world.HashEncoder(self.dimension).encode(texts) + noise).astype(np.float32)


def shuffled(data: dict[str, pl.DataFrame], seed: int) -> dict[str, pl.DataFrame]:
    return {name: frame.sample(fraction=1.0, shuffle=True, seed=seed) for name, frame in data.items()}


def built(path, data: dict[str, pl.DataFrame], batches: int, *, seed: int = 0, encoder=None):
    con = m6.connect(path, encoder=encoder or world.HashEncoder(32))
    m6.load(con, items=data["items"], users=data["users"])
    for part in range(batches):
        m6.load(con, events=data["events"][part::batches], feedback=data["feedback"][part::batches])
    world.rules(con)
    m6.build(con, seed=seed)
    return con


def lists(con) -> pl.DataFrame:
    return con.sql(
        "select * exclude (model_version) from m6.recommend_many('audience', k := 30) order by user_id, rank"
    ).pl()


@pytest.fixture(scope="module")
def straight(tmp_path_factory, shop_frames):
    con = built(tmp_path_factory.mktemp("straight") / "shop.duckdb", shop_frames, 1)
    yield con
    con.close()


@pytest.fixture(scope="module", params=["shuffled", "reversed in 7 batches", "items and users backwards"])
def another_order(request, tmp_path_factory, shop_frames):
    path = tmp_path_factory.mktemp("other") / "shop.duckdb"
    if request.param == "shuffled":
        con = built(path, shuffled(shop_frames, 1), 1)
    elif request.param == "reversed in 7 batches":
        con = built(path, {name: frame.reverse() for name, frame in shop_frames.items()}, 7)
    else:
        data = {**shop_frames, "items": shop_frames["items"].reverse(), "users": shop_frames["users"].reverse()}
        con = built(path, data, 3)
    yield con
    con.close()


@pytest.mark.parametrize("table", TABLES)
def test_equal_tables(straight, another_order, table):
    expected, found = (con.sql(f"from m6.{table} order by all").pl() for con in (straight, another_order))
    assert_frame_equal(found, expected, check_exact=False, rel_tol=1e-6, abs_tol=1e-6)


def test_equal_arrays(straight, another_order):
    expected, found = arrays.load(straight, 1), arrays.load(another_order, 1)
    assert found.item_ids == expected.item_ids
    for name in ("item", "domain", "category", "brand", "is_known", "factors", "fold_in", "text"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6, err_msg=name)
    for name in ("transitions", "item_item", "segment_trend"):
        difference = sp.csr_matrix(getattr(found, name) - getattr(expected, name))
        assert np.abs(difference.data).max(initial=0) < 1e-6, name


def test_equal_lists(straight, another_order):
    assert_frame_equal(lists(another_order), lists(straight), check_exact=False, rel_tol=0, abs_tol=1e-6)


def test_equal_draws(straight, another_order):
    sql = "select user_id, rank, item_id, strategy, propensity from m6.serve_many('audience', seed := 4) order by all"
    expected, found = (con.sql(sql).pl() for con in (straight, another_order))
    assert_frame_equal(found, expected, check_exact=False, rel_tol=0, abs_tol=1e-6)


def test_an_encoder_whose_last_bits_depend_on_the_batch(tmp_path, shop_frames):
    """The batches are fixed: by the texts, not by the order in which items came."""
    with (
        built(tmp_path / "a.duckdb", shop_frames, 1, encoder=FickleEncoder()) as one,
        built(tmp_path / "b.duckdb", shuffled(shop_frames, 3), 4, encoder=FickleEncoder()) as other,
    ):
        assert_frame_equal(lists(other), lists(one), check_exact=False, rel_tol=0, abs_tol=1e-6)


def test_building_twice_gives_the_same(straight):
    before = lists(straight)
    digests = "select name, content_hash from m6.artefacts where model_version = {} order by all"
    first = world.rows(straight, digests.format(1))
    assert m6.build(straight).model_version == 2
    assert world.rows(straight, digests.format(2)) == first
    assert_frame_equal(lists(straight), before)


def test_other_seeds_and_threads(tmp_path, shop_frames):
    """One thread or four: the same; the seed is recorded."""
    found = []
    for threads in (1, 4):
        with m6.connect(
            tmp_path / f"{threads}.duckdb", encoder=world.HashEncoder(32), config={"threads": threads}
        ) as con:
            m6.load(con, **shop_frames)
            world.rules(con)
            m6.build(con, seed=9)
            assert world.rows(con, "select seed from m6.models") == [(9,)]
            found.append(lists(con))
    assert_frame_equal(*found, check_exact=False, rel_tol=0, abs_tol=1e-6)
