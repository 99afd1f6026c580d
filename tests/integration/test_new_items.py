"""Items nobody has touched, from the catalogue to the list and its explanation."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import polars as pl
import pytest
import shop_world
from shop_world import CATEGORIES

import m6rec_udf as m6

NEW = [f"new{n}" for n in range(8)]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The shop with eight items more, two of each category, without an event."""
    data = shop_world.frames()
    con = shop_world.connect(tmp_path_factory.mktemp("launched") / "shop.duckdb")
    m6.load(con, **data)
    kinds = [CATEGORIES[n % 4] for n in range(8)]
    launched = pl.DataFrame(
        {
            "item_id": NEW,
            "domain": ["movies" if n % 4 < 2 else "books" for n in range(8)],
            "title": [f"{kind.title()} number {100 + n}" for n, kind in enumerate(kinds)],
            "description": [f"{kind} about topic1 and topic2" for kind in kinds],
            "category": kinds,
            "brand": ["maker 1"] * 8,
            "price": [20.0] * 8,
        }
    )
    m6.load(con, items=launched)
    m6.build(con)
    con.execute("create table launched as select unnest($ids) as item_id", {"ids": NEW})
    yield con
    con.close()


def test_new_items_are_ordered_by_the_taste_of_the_history(launched):
    """User u prefers category u % 4."""
    first = []
    for u, user in enumerate(shop_world.USERS[:40]):
        listed = shop_world.recommend(launched, user, "k := 2, among := 'launched'")
        first += [int(item.removeprefix("new")) % 4 == u % 4 for item in shop_world.items_of(listed)]
    assert sum(first) / len(first) > 0.8  # chance: 0.25


def test_the_build_says_what_it_learned_of_new_items(launched):
    found = shop_world.rows(launched, "select value from m6.decisions where name = 'satisfaction_model_unseen'")
    assert found == [("item-item score from text, calibrated",)]


def test_the_explanation_of_a_new_item_adds_up(launched):
    best = shop_world.recommend(launched, shop_world.USERS[0], "among := 'launched'")[0]["item_id"]
    found = shop_world.rows(
        launched,
        "select name, value, contribution from m6.explain(?, ?)",
        [shop_world.USERS[0], best],
    )
    raw = next(value for name, value, _ in found if name == "before calibration")
    parts = {name: contribution for name, _, contribution in found if contribution}
    assert sum(parts.values()) == pytest.approx(raw, abs=1e-6)
    assert {"expected score", "score_item_item"} <= set(parts)
