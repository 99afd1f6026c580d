"""Ibis on the same connection: tables, views, lists and rules."""

from __future__ import annotations

import pytest

ibis = pytest.importorskip("ibis", reason="ibis is not installed: pip install -e '.[ibis]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def backend(shop):
    return ibis.duckdb.from_connection(shop)


def test_tables_of_m6_are_ibis_tables(backend, shop):
    items = backend.table("items", database="m6")
    per_domain = items.group_by("domain").agg(n=items.count()).order_by("domain").to_polars()
    assert per_domain.rows() == [("books", 40), ("movies", 40)]


def test_a_list_is_an_expression_that_joins(backend, shop):
    shop.execute("create view own_list as select item_id, rank from m6.recommend('u00', k := 5)")
    listed = backend.table("own_list")
    items = backend.table("items", database="m6")
    titled = listed.join(items, "item_id").order_by("rank").select("rank", "title").to_polars()
    expected = shop.sql(
        "select r.rank, i.title from m6.recommend('u00', k := 5) as r join m6.items as i using (item_id) order by 1"
    ).fetchall()
    assert [(int(rank), title) for rank, title in titled.rows()] == [(int(rank), title) for rank, title in expected]


def test_an_ibis_view_is_a_rule(backend, shop):
    items = backend.table("items", database="m6")
    backend.create_view("cheap", items.filter(items.price < 20).select("item_id"))
    listed = shop.sql(
        "select price from m6.recommend('u00', among := 'cheap') join m6.items using (item_id)"
    ).fetchall()
    assert len(listed) == 10
    assert all(price < 20 for (price,) in listed)


@pytest.mark.xfail(strict=True, raises=AttributeError, reason="Ibis 12.0 calls fetch_arrow_table, gone in DuckDB 2.0")
def test_sql_of_the_backend(backend):
    assert backend.sql("select item_id from m6.recommend('u00', k := 5)").to_polars().height == 5
