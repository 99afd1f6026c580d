"""Whatever is handed over: given = loaded + rejected + already_there, and the tables say the same."""

from __future__ import annotations

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m6rec_udf.connection import migrate
from m6rec_udf.load import load

IDS = st.sampled_from(
    ["u1", "u2", "", " ", None, "é", "🛒✨", "'; drop table m6.events; --", '"', "\\", "a\nb", "%"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
NUMBERS = st.sampled_from([None, float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, 5.0, 1e308]) | st.floats(
    width=32
)
SECONDS = st.sampled_from([None, 0, -1, 1714557600, 1714557600000, 2**62, -(2**62)]) | st.integers(-(2**63), 2**63 - 1)
TIMES = st.sampled_from(
    [None, "", "2024-05-01", "2024-05-01T10:00:00+02:00", "9999-12-31", "0001-01-01", "infinity", "1e999", "no"]
)
TYPES = st.sampled_from(["view", "purchase", "rating", "nope", "", None, "VIEW"])
EVENT = st.fixed_dictionaries(
    {
        "user_id": IDS,
        "item_id": IDS,
        "event_type": TYPES,
        "value": NUMBERS,
        "text_time": TIMES,
        "number_time": SECONDS,
        "event_id": IDS,
    }
)
SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "value": pl.Float64,
    "text_time": pl.String,
    "number_time": pl.Int64,
    "event_id": pl.String,
}
CALM = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def shared():
    with duckdb.connect() as con:
        migrate(con)
        yield con


@pytest.fixture
def con(shared):
    return shared


def clear(con, *tables):
    for table in (*tables, "rejected_rows", "load_batches"):
        con.execute(f"delete from m6.{table}")


def size(con, table):
    return con.execute(f"select count(*) from m6.{table}").fetchall()[0][0]


def content(con, table, columns):
    return con.execute(f"select {columns} from m6.{table} order by all").fetchall()


def balanced(report, table, rows):
    row = report[table]
    assert row.given == rows == row.loaded + row.rejected + row.already_there
    assert min(row.loaded, row.rejected, row.already_there) >= 0
    assert sum(row.reasons.values()) == row.rejected
    return row


@CALM
@given(
    rows=st.lists(EVENT, max_size=12),
    time=st.sampled_from(["text_time", "number_time"]),
    with_ids=st.booleans(),
    data=st.data(),
)
def test_events_are_accounted_for(con, rows, time, with_ids, data):
    clear(con, "events")
    frame = pl.DataFrame(rows, schema=SCHEMA).rename({time: "happened_at"})
    if not with_ids:
        frame = frame.drop("event_id")
    first = balanced(load(con, events=frame), "events", len(rows))
    assert size(con, "events") == first.loaded
    assert size(con, "rejected_rows") == first.rejected
    stored = content(con, "events", "user_id, item_id, event_type, value, happened_at")
    for row in stored:
        assert row[0].strip(" ")
        assert row[1].strip(" ")
        assert row[2] in {"view", "purchase", "rating"}
        assert 1970 <= row[4].year < 2200
    order = data.draw(st.permutations(range(len(rows))))
    again = balanced(load(con, events=frame[order]), "events", len(rows))
    assert (again.loaded, again.rejected) == (0, 0)
    assert content(con, "events", "user_id, item_id, event_type, value, happened_at") == stored
    assert size(con, "rejected_rows") == first.rejected


@CALM
@given(rows=st.lists(EVENT, min_size=1, max_size=10), data=st.data())
def test_event_order_does_not_depend_on_the_order_of_the_rows(con, rows, data):
    frame = pl.DataFrame(rows, schema=SCHEMA).rename({"text_time": "ts"})
    order = data.draw(st.permutations(range(len(rows))))
    stored = []
    for given_frame in (frame, frame[order]):
        clear(con, "events")
        load(con, events=given_frame)
        stored.append(con.execute("select * exclude (event_seq) from m6.events order by event_seq").fetchall())
    assert str(stored[0]) == str(stored[1])


@CALM
@given(rows=st.lists(EVENT, max_size=10), click=st.lists(NUMBERS, min_size=10, max_size=10))
def test_wide_events_are_accounted_for(con, rows, click):
    clear(con, "events")
    frame = pl.DataFrame(rows, schema=SCHEMA).select(
        "user_id", "item_id", pl.col("value").alias("rating"), pl.Series("click", click[: len(rows)], dtype=pl.Float64)
    )
    cells = sum(
        max(1, sum(cell not in (None, 0.0) for cell in pair))
        for pair in zip(frame["rating"], frame["click"], strict=True)
    )
    report = load(con, events=frame, default_time="2024-05-01")
    assert balanced(report, "events", cells).loaded == size(con, "events")


@CALM
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"item_id": IDS, "title": IDS, "price": NUMBERS, "created_at": SECONDS, "extra": NUMBERS}
        ),
        max_size=12,
    ),
    data=st.data(),
)
def test_items_are_accounted_for(con, rows, data):
    clear(con, "items")
    schema = {
        "item_id": pl.String,
        "title": pl.String,
        "price": pl.Float64,
        "created_at": pl.Int64,
        "extra": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema)
    first = balanced(load(con, items=frame), "items", len(rows))
    assert size(con, "items") == first.loaded
    assert size(con, "rejected_rows") == first.rejected
    stored = content(con, "items", "*")
    again = balanced(load(con, items=frame[data.draw(st.permutations(range(len(rows))))]), "items", len(rows))
    assert (again.loaded, again.rejected) == (0, 0)
    assert content(con, "items", "*") == stored


@CALM
@given(rows=st.lists(st.tuples(IDS, IDS, NUMBERS), max_size=12))
def test_relations_are_accounted_for(con, rows):
    clear(con, "relations")
    schema = {"user_id": pl.String, "other_user_id": pl.String, "weight": pl.Float64}
    report = load(con, relations=pl.DataFrame(rows, schema=schema, orient="row"))
    assert balanced(report, "relations", len(rows)).loaded == size(con, "relations")
    assert con.execute("select 1 from m6.relations where user_id = other_user_id or not weight > 0").fetchall() == []
