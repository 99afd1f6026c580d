"""Tables of the user's own as events and items, and leaving the database as it was."""

from __future__ import annotations

import duckdb
import pytest

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import ParameterError, SchemaError, UnknownNameError


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    own = duckdb.connect()
    own.execute("create schema shop")
    own.execute(
        "create table shop.orders as select 'c' || (i % 20) as customer, 'p' || ((i * 7 + i // 20) % 15) as product, "
        "timestamp '2024-01-01' + interval (i) hour as ordered_at, 'purchase' as event_type from range(600) as r(i)"
    )
    own.execute("create table shop.products as select 'p' || i as product, 'thing ' || i as name from range(15) r(i)")
    m6.install(own, encoder=HashEncoder(16))
    return own


COLUMNS = {
    "events": {"customer": "user_id", "product": "item_id", "ordered_at": "happened_at"},
    "items": {"product": "item_id", "name": "title"},
}


def test_tables_are_read_where_they_are(con: duckdb.DuckDBPyConnection) -> None:
    m6.use_tables(con, events="shop.orders", items="shop.products", columns=COLUMNS)
    m6.build(con)
    rows = con.execute("select item_id, reason from m6.recommend('c3', k := 5)").fetchall()
    assert len(rows) == 5
    con.execute("insert into shop.orders values ('new', 'p1', timestamp '2024-03-01', 'purchase')")
    assert con.execute("select title from m6.history('new')").fetchall() == [("thing 1",)]


def test_uninstall_leaves_the_rest(con: duckdb.DuckDBPyConnection) -> None:
    m6.use_tables(con, events="shop.orders", items="shop.products", columns=COLUMNS)
    m6.build(con)
    m6.uninstall(con)
    tables = con.execute("select schema_name, table_name from duckdb_tables() order by all").fetchall()
    assert tables == [("shop", "orders"), ("shop", "products")]
    m6.install(con, encoder=HashEncoder(16))
    assert con.execute("select count(*) from m6.events").fetchall() == [(0,)]


def test_mistakes_are_named(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(SchemaError, match=r"expected also user_id, item_id, happened_at"):
        m6.use_tables(con, events="shop.orders")
    with pytest.raises(UnknownNameError, match=r"no table 'shop\.nothing'"):
        m6.use_tables(con, events="shop.nothing")
    with pytest.raises(ParameterError, match="found no table"):
        m6.use_tables(con)
    con.execute("insert into m6.items (item_id) values ('x')")
    with pytest.raises(ParameterError, match="already holds loaded rows"):
        m6.use_tables(con, items="shop.products", columns=COLUMNS)
