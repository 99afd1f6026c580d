"""`load`: every source, every reason, once the same as twice."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from m6rec_udf.connection import migrate
from m6rec_udf.errors import NotInstalledError, ParameterError, SchemaError
from m6rec_udf.load import LoadReport, load

MAY = datetime(2024, 5, 1, 10)
EVENTS = pl.DataFrame(
    {
        "user_id": ["u1", "u1", "ü✨", "u'; drop table m6.events; --"],
        "item_id": ["a", "b", "a", "c"],
        "event_type": ["view", "purchase", "rating", "click"],
        "value": [None, 12.5, 4.0, None],
        "happened_at": [MAY, MAY + timedelta(days=1), MAY, MAY],
    }
)


def warehouse() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    migrate(con)
    con.execute("set TimeZone = 'Asia/Tokyo'")  # the session's zone must not matter
    con.execute("set python_enable_replacements = false")
    return con


@pytest.fixture
def con():
    with warehouse() as connection:
        yield connection


def events_of(con):
    return con.execute(
        "select user_id, item_id, event_type, value, happened_at from m6.events order by event_seq"
    ).fetchall()


def counts(report, table="events"):
    row = report[table]
    assert row.given == row.loaded + row.rejected + row.already_there
    assert sum(row.reasons.values()) == row.rejected
    return row.given, row.loaded, row.rejected, row.already_there


def times(con):
    return [row[0] for row in con.execute("select happened_at from m6.events order by user_id").fetchall()]


def other_relation(frame):
    other = duckdb.connect()
    other.register("frame", frame.to_arrow())
    return other.sql("from frame")


def same_relation(con, frame):
    con.execute("create table shop as select * from (values (1)) where false")
    con.register("frame", frame)
    con.execute("create or replace table shop as from frame")
    con.unregister("frame")
    return con.table("shop")


SOURCES = {
    "polars": lambda con, folder: EVENTS,
    "lazy": lambda con, folder: EVENTS.lazy(),
    "arrow": lambda con, folder: EVENTS.to_arrow(),
    "reader": lambda con, folder: EVENTS.to_arrow().to_reader(),
    "pandas": lambda con, folder: EVENTS.to_pandas(),
    "relation": lambda con, folder: same_relation(con, EVENTS),
    "relation_elsewhere": lambda con, folder: other_relation(EVENTS),
    "parquet": lambda con, folder: [EVENTS.write_parquet(folder / "e.parquet"), str(folder / "e.parquet")][1],
    "path": lambda con, folder: [EVENTS.write_parquet(folder / "e.parquet"), folder / "e.parquet"][1],
    "glob": lambda con, folder: [
        EVENTS[:2].write_parquet(folder / "e1.parquet"),
        EVENTS[2:].select(reversed(EVENTS.columns)).write_parquet(folder / "e2.parquet"),
        str(folder / "e*.parquet"),
    ][2],
    "list": lambda con, folder: [
        EVENTS[:2].write_csv(folder / "e1.csv"),
        EVENTS[2:].write_csv(folder / "e2.csv"),
        [folder / "e1.csv", folder / "e2.csv"],
    ][2],
    "csv": lambda con, folder: [EVENTS.write_csv(folder / "e.csv"), folder / "e.csv"][1],
    "ndjson": lambda con, folder: [EVENTS.write_ndjson(folder / "e.jsonl"), folder / "e.jsonl"][1],
    "json": lambda con, folder: [EVENTS.write_json(folder / "e.json"), folder / "e.json"][1],
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_rows(con, tmp_path, name):
    report = load(con, events=SOURCES[name](con, tmp_path))
    assert counts(report) == (4, 4, 0, 0)
    assert events_of(con) == sorted(EVENTS.rows(), key=lambda row: (row[4], row[0], row[1]))
    assert con.execute("select current_setting('TimeZone')").fetchone() == ("Asia/Tokyo",)
    left = con.execute(
        "select view_name from duckdb_views() where view_name like 'm6\\_source%' escape '\\'"
    ).fetchall()
    assert left == []


@pytest.mark.parametrize("name", ["csv", "ndjson", "pandas"])
def test_a_batch_is_known_again_in_another_format(con, tmp_path, name):
    load(con, events=EVENTS)
    assert counts(load(con, events=SOURCES[name](con, tmp_path))) == (4, 0, 0, 4)
    assert len(events_of(con)) == 4


def test_second_load_changes_nothing_whatever_the_order(con):
    bad = pl.concat([EVENTS, EVENTS.head(1).with_columns(user_id=pl.lit(None, pl.String))])
    assert counts(load(con, events=bad)) == (5, 4, 1, 0)
    before = [
        con.execute(f"select * from m6.{t} order by all").fetchall()
        for t in ("events", "rejected_rows", "load_batches")
    ]
    assert counts(load(con, events=bad.reverse())) == (5, 0, 0, 5)
    after = [
        con.execute(f"select * from m6.{t} order by all").fetchall()
        for t in ("events", "rejected_rows", "load_batches")
    ]
    assert before == after


def test_equal_rows_are_kept_and_swapped_cells_are_another_batch(con):
    two = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "a"], "ts": [1, 1]})
    assert counts(load(con, events=two)) == (2, 2, 0, 0)
    assert counts(load(con, events=two.head(1))) == (1, 1, 0, 0)
    first = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "ts": [1, 2], "value": [1.0, 2.0]})
    swapped = first.with_columns(value=pl.col("value").reverse())
    assert counts(load(con, events=first)) == (2, 2, 0, 0)
    assert counts(load(con, events=swapped)) == (2, 2, 0, 0)


def test_event_id_is_loaded_once(con):
    frame = EVENTS.with_columns(event_id=pl.Series([1, 2, 2, None]))
    assert counts(load(con, events=frame)) == (4, 3, 0, 1)
    more = pl.concat([frame, frame.head(1).with_columns(event_id=pl.lit(9, pl.Int64))])
    assert counts(load(con, events=more.filter(pl.col("event_id").is_not_null()))) == (4, 1, 0, 3)
    assert con.execute("select list(event_id order by event_id) from m6.events").fetchone() == (["1", "2", "9", None],)


def test_which_copy_of_an_event_id_stays_does_not_depend_on_the_order():
    frame = EVENTS.with_columns(event_id=pl.lit("x"))
    kept = []
    for given in (frame, frame.reverse()):
        with warehouse() as con:
            assert counts(load(con, events=given)) == (4, 1, 0, 3)
            kept.append(events_of(con))
    assert kept[0] == kept[1]


def test_many_rows_with_ids_come_in_their_order_and_each_id_once():
    """Copies far apart, over several threads' worth of rows; the earliest stays, as with few rows."""
    n, ids = 300_000, 299_000
    frame = pl.DataFrame({"event_id": [f"e{i * 7919 % ids}" for i in range(n)]}).with_columns(
        user_id=pl.lit("u"), item_id=pl.lit("i"), ts=pl.int_range(n)
    )
    stored = []
    for given in (frame, frame.sample(fraction=1, shuffle=True, seed=3)):
        with warehouse() as con:
            assert counts(load(con, events=given)) == (n, ids, 0, n - ids)
            rows = con.sql("select event_id, event_seq, happened_at from m6.events").pl()
            assert rows["event_id"].is_sorted()
            assert (rows["event_seq"].diff().drop_nulls() == 1).all()
            stored.append(rows)
            more = pl.concat([frame.head(5), frame.head(5).with_columns(event_id="f" + pl.col("event_id"))])
            assert counts(load(con, events=more)) == (10, 5, 0, 5)
    assert stored[0].equals(stored[1])
    first = frame.group_by("event_id").agg(pl.col("ts").min())
    earliest = stored[0].join(first, on="event_id")
    assert len(earliest) == ids
    assert (earliest["happened_at"].dt.epoch("s") == earliest["ts"]).all()


def test_row_order_has_no_effect_on_what_is_stored():
    stored = []
    big = pl.concat([EVENTS.with_columns(value=pl.lit(float(i))) for i in range(500)])
    for frame in (big, big.reverse(), big.sample(fraction=1, shuffle=True, seed=7)):
        with warehouse() as con:
            load(con, events=frame)
            stored.append(con.execute("select * from m6.events order by event_seq").fetchall())
            numbers = [row[0] for row in con.execute("select event_seq from m6.events order by rowid").fetchall()]
            assert numbers == list(range(numbers[0], numbers[0] + len(big)))
            inserted = con.execute(
                "insert into m6.events (user_id, item_id, event_type, happened_at) "
                "values ('u', 'a', 'view', '2024-01-01') returning event_seq"
            ).fetchone()
            assert inserted is not None
            assert inserted[0] > max(numbers)
    assert stored[0] == stored[1] == stored[2]


@pytest.mark.parametrize(
    "moments",
    [
        [1714557600],
        [1714557600.0],
        [1714557600000],
        [1714557600000000],
        [1714557600000000000],
        ["2024-05-01T10:00:00"],
        ["2024-05-01T12:00:00+02:00"],
        ["2024-05-01 10:00:00Z"],
        ["1714557600"],
        [MAY],
        [MAY.replace(tzinfo=UTC)],
        [datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))],
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["happened_at", "ts", "Timestamp"])
def test_every_way_to_write_a_time(con, moments, name):
    load(con, events=pl.DataFrame({"user_id": ["u"], "item_id": ["a"], name: moments}))
    assert times(con) == [MAY]


def test_time_units_of_frames(con):
    for unit in ("ms", "us", "ns"):
        frame = pl.DataFrame({"user_id": [unit], "item_id": ["a"], "ts": pl.Series([MAY], dtype=pl.Datetime(unit))})
        load(con, events=frame)
    load(con, events=pl.DataFrame({"user_id": ["z"], "item_id": ["a"], "ts": [MAY.date()]}))
    load(
        con,
        events=pa.table({"user_id": ["z2"], "item_id": ["a"], "ts": pa.array([MAY], pa.timestamp("s", "Asia/Tokyo"))}),
    )
    assert times(con) == [MAY, MAY, MAY, datetime(2024, 5, 1), MAY]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": None}, "user_id is empty"),
        ({"user_id": "  "}, "user_id is empty"),
        ({"item_id": ""}, "item_id is empty"),
        ({"happened_at": None}, "happened_at is empty"),
        ({"happened_at": "soon"}, "happened_at is not a time"),
        ({"happened_at": "2024-02-30"}, "happened_at is not a time"),
        ({"happened_at": "infinity"}, "happened_at is after 2200"),
        ({"happened_at": "nan"}, "happened_at is not a time"),
        ({"happened_at": "1969-12-31"}, "happened_at is before 1970"),
        ({"happened_at": "-5"}, "happened_at is before 1970"),
        ({"happened_at": "2200-01-01"}, "happened_at is after 2200"),
        ({"happened_at": "1e300"}, "happened_at is after 2200"),
        ({"value": "much"}, "value is not a number"),
        ({"value": "nan"}, "value is NaN or infinite"),
        ({"value": "-inf"}, "value is NaN or infinite"),
        ({"event_type": None}, "event_type is empty"),
        ({"event_type": "stare"}, "unknown event_type, expected one of cart, click, complete"),
    ],
)
def test_every_reason_of_events(con, change, reason):
    good = {"user_id": "u", "item_id": "a", "happened_at": "2024-05-01", "value": "1", "event_type": "view"}
    frame = pl.DataFrame([good, good | change], schema=dict.fromkeys(good, pl.String))
    report = load(con, events=frame)
    assert counts(report) == (2, 1, 1, 0)
    [(number, table, why, content)] = con.execute(
        "select row_number, table_name, reason, content from m6.rejected_rows"
    ).fetchall()
    assert (number, table) == (2, "events")
    assert reason in why or (reason == "happened_at is after 2200" and why == "happened_at is not a time")
    assert json.loads(content) == good | change
    assert next(iter(report["events"].reasons)) == why


def test_values_that_are_not_finite(con):
    frame = pl.DataFrame(
        {
            "user_id": ["a", "b", "c"],
            "item_id": ["a"] * 3,
            "ts": [1.0, 1.0, float("nan")],
            "value": [float("nan"), float("inf"), 1],
        }
    )
    assert counts(load(con, events=frame)) == (3, 0, 3, 0)
    rows = con.execute("select content from m6.rejected_rows order by row_number").fetchall()
    assert [json.loads(row[0])["value"] for row in rows] == ["nan", "inf", 1.0]


def test_ids_become_text(con):
    load(con, events=pd.DataFrame({"user_id": [1.0, None, 3.5], "item_id": [7, 8, 9], "ts": [1, 1, 1]}))
    load(
        con,
        events=pl.DataFrame(
            {"user_id": [2**63], "item_id": [True], "ts": [1]}, schema_overrides={"user_id": pl.UInt64}
        ),
    )
    load(con, events=pl.DataFrame({"user_id": pl.Series(["x"], dtype=pl.Categorical), "item_id": ["007"], "ts": [1]}))
    assert con.execute("select user_id, item_id from m6.events order by user_id").fetchall() == [
        ("1", "7"),
        ("3.5", "9"),
        ("9223372036854775808", "true"),
        ("x", "007"),
    ]


def test_defaults_and_mapping(con):
    frame = pl.DataFrame({"customer": ["u"], "sku": ["a"], "at": [1], "noise": ["x"]})
    load(con, events=frame, columns={"events": {"customer": "user_id", "SKU": "item_id", "at": "happened_at"}})
    load(con, events=pl.DataFrame({"user_id": ["v"], "item_id": ["a"], "ts": [1], "value": [3]}))
    load(con, events=pl.DataFrame({"user_id": ["w"], "item_id": ["a"]}), default_time="2024-05-01T12:00:00+02:00")
    load(con, items=pl.DataFrame({"item_id": ["a"], "domain": [None]}, schema_overrides={"domain": pl.String}))
    assert [row[2] for row in events_of(con)] == ["view", "rating", "view"]
    assert times(con)[2] == MAY
    assert con.execute("select domain, is_available from m6.items").fetchall() == [("default", True)]


WIDE = pl.DataFrame(
    {
        "user_id": ["u", "v", "w"],
        "item_id": ["a", "b", "c"],
        "click": [3, 0, None],
        "buy": [True, False, None],
        "rating": [4.5, 2.0, 0.0],
        "ts": [1, 2, 3],
    }
)


@pytest.mark.parametrize("wide", [None, {"click": "click", "buy": "purchase", "rating": "rating"}])
def test_wide_frames(con, wide):
    report = load(con, events=WIDE, wide=wide)
    assert counts(report) == (5, 4, 1, 0)
    assert report["events"].reasons == {"no event in the row: every cell is empty or 0": 1}
    assert [row[:4] for row in events_of(con)] == [
        ("u", "a", "click", 3.0),
        ("u", "a", "purchase", None),
        ("u", "a", "rating", 4.5),
        ("v", "b", "rating", 2.0),
    ]
    assert counts(load(con, events=WIDE.reverse(), wide=wide)) == (5, 0, 0, 5)


def test_wide_csv_with_bad_cells(con, tmp_path):
    (tmp_path / "w.csv").write_text(
        "user_id,item_id,ts,click,rating,event_id\nu,a,1,x,nan,e1\nv,a,1,true,5,e2\nw,a,1,-1,,e3\n"
    )
    report = load(con, events=tmp_path / "w.csv")
    assert counts(report) == (5, 2, 3, 0)
    assert report["events"].reasons == {
        "click is below 0": 1,
        "click is not a number": 1,
        "value is NaN or infinite": 1,
    }
    assert con.execute("select event_id, value from m6.events order by all").fetchall() == [
        ("e2:click", None),
        ("e2:rating", 5.0),
    ]


def test_wide_needs_a_time(con):
    with pytest.raises(SchemaError, match=r"(?s)expected happened_at.*default_time"):
        load(con, events=WIDE.drop("ts"))
    assert counts(load(con, events=WIDE.drop("ts"), default_time=MAY)) == (5, 4, 1, 0)
    assert set(times(con)) == {MAY}


@pytest.mark.parametrize(("best", "high"), [(4.0, 5.0), (5.0, 5.0), (8.0, 10.0), (55.0, 100.0), (250.0, 250.0)])
def test_rating_scale_follows_the_ratings(con, best, high):
    load(con, events=pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "ts": [1], "value": [best]}))
    assert con.execute("select value_high from m6.event_types where event_type = 'rating'").fetchone() == (high,)


def test_items_are_upserted(con):
    first = pl.DataFrame(
        {
            "item_id": [1, 2, 2, None],
            "title": ["a", "b", "c", "d"],
            "price": [-1.0, 2.0, 2.0, 2.0],
            "tags": [["x"], [], None, None],
        }
    )
    report = load(con, items=first)
    assert counts(report, "items") == (4, 2, 2, 0)
    assert report["items"].reasons == {"duplicate item_id in batch": 1, "item_id is empty": 1}
    assert counts(load(con, items=first.reverse()), "items") == (4, 0, 0, 4)
    assert con.execute("select count(*) from m6.rejected_rows").fetchone() == (2,)
    changed = pl.DataFrame({"item_id": ["1", "3"], "title": ["new", "three"]})
    assert counts(load(con, items=changed), "items") == (2, 2, 0, 0)
    assert con.execute("select title, price, tags from m6.items where item_id = '1'").fetchone() == ("new", -1.0, ["x"])
    again = load(con, items=first)  # back to the first content: an update, not a known batch
    assert counts(again, "items") == (4, 1, 2, 1)
    assert con.execute("select title from m6.items where item_id = '1'").fetchone() == ("a",)
    assert con.execute("select count(*) from m6.rejected_rows").fetchone() == (2,)


def test_item_columns(con, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"item_id": "a", "text": "words", "tags": ["x", "y"], "is_available": false, '
        '"created_at": "1925-01-01", "w": {"h": 1}}\n'
        '{"item_id": "b", "tags": "p | q", "price": "dear"}\n'
        '{"item_id": "c", "tags": "p | q|", "is_available": "perhaps"}\n'
        '{"item_id": "d", "tags": "p | q|", "attributes": {"k": 2}}\n'
    )
    report = load(con, items=path)
    assert report["items"].reasons == {"is_available is not true or false": 1, "price is not a number": 1}
    assert con.execute(
        "select item_id, description, tags, is_available, created_at from m6.items order by item_id"
    ).fetchall() == [
        ("a", "words", ["x", "y"], False, datetime(1925, 1, 1)),
        ("d", None, ["p", "q"], True, None),
    ]
    assert [
        json.loads(row[0]) for row in con.execute("select attributes from m6.items order by item_id").fetchall()
    ] == [
        {"w": '{"h":1}'},
        {"k": 2},
    ]


def test_users_keep_other_columns_as_attributes(con):
    frame = pl.DataFrame({"user_id": [1], "segment": ["vip"], "age": [31], "score": [float("nan")]})
    assert counts(load(con, users=frame), "users") == (1, 1, 0, 0)
    [(segment, attributes)] = con.execute("select segment, attributes from m6.users").fetchall()
    assert (segment, json.loads(attributes)) == ("vip", {"age": 31})
    assert counts(load(con, users=frame), "users") == (1, 0, 0, 1)


def test_relations(con):
    frame = pl.DataFrame(
        {
            "user_id": ["a", "a", "b", "c", "d"],
            "other_user_id": ["b", "a", "", "d", "a"],
            "weight": [1.0, 1.0, 1.0, 0.0, float("nan")],
        }
    )
    report = load(con, relations=frame)
    assert counts(report, "relations") == (5, 1, 4, 0)
    assert set(report["relations"].reasons) == {
        "relation of a user to oneself",
        "other_user_id is empty",
        "weight is not above 0",
        "weight is NaN or infinite",
    }
    assert counts(load(con, relations=frame.select("user_id", "other_user_id")), "relations") == (5, 2, 2, 1)
    assert con.execute("select kind, weight from m6.relations where user_id = 'c'").fetchall() == [("follows", 1.0)]


def test_event_types_come_first(con):
    types = pl.DataFrame({"event_type": ["stare", "glance"], "interest": [1, 1], "satisfaction": [0.5, 1.5]})
    events = EVENTS.with_columns(event_type=pl.lit("stare"))
    report = load(con, event_types=types, events=events)
    assert counts(report, "event_types") == (2, 1, 1, 0)
    assert counts(report) == (4, 4, 0, 0)


def test_feedback(con):
    frame = pl.DataFrame(
        {
            "impression_id": ["r-1", None, None],
            "request_id": [None, "r", None],
            "item_id": [None, "a", "a"],
            "event_type": ["click"] * 3,
            "ts": [1, 2, 3],
        }
    )
    report = load(con, feedback=frame)
    assert counts(report, "feedback") == (3, 2, 1, 0)
    assert counts(load(con, feedback=frame.reverse()), "feedback") == (3, 0, 0, 3)
    named = frame.head(2).with_columns(feedback_id=pl.Series(["f", "f"]))
    assert counts(load(con, feedback=named), "feedback") == (2, 1, 0, 1)
    assert counts(load(con, feedback=named.head(1)), "feedback") == (1, 0, 0, 1)
    assert con.execute(
        "select count(*), count(distinct feedback_id), count(distinct feedback_seq) from m6.feedback"
    ).fetchone() == (3, 3, 3)


def test_all_mistakes_at_once(con):
    with pytest.raises(SchemaError) as caught:
        load(
            con,
            events=pl.DataFrame({"customer": ["u"], "ts": [True], "rating": [[1]]}),
            items=pl.DataFrame({"sku": ["a"], "price": [MAY]}),
            columns={"items": {"skuu": "item_id", "sku": "nope"}, "users": {"a": "user_id"}},
        )
    text = str(caught.value)
    for part in (
        "events: found customer, ts, rating, expected user_id and item_id",
        "events: found ts of type BOOLEAN, expected a timestamp",
        "rating of type BIGINT[]",
        "items: columns maps 'skuu', expected one of sku, price",
        "items: columns maps 'sku' to 'nope'",
        "items: found price of type TIMESTAMP",
        "items: found sku, price, expected item_id",
        "columns: found 'users'",
        "Hint: ",
        '"customer": "user_id"',
    ):
        assert part in text


def test_two_ways_to_name_the_type_is_a_mistake(con):
    with pytest.raises(SchemaError, match="found event_type, value beside the columns click"):
        load(con, events=EVENTS.with_columns(click=1), wide={"click": "click"})
    with pytest.raises(SchemaError, match="found value beside the columns click"):
        load(con, events=WIDE.drop("rating", "buy").with_columns(value=1))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ParameterError, "nothing to load"),
        ({"events": 5}, ParameterError, "found int, expected a Polars DataFrame"),
        ({"events": "shop.events"}, ParameterError, "con.table"),
        ({"events": "nowhere/*.parquet"}, ParameterError, "no file matches"),
        ({"events": ["a.csv", "b.json"]}, ParameterError, "expected one kind"),
        ({"items": EVENTS, "wide": {"a": "click"}}, SchemaError, "wide: found no events"),
        ({"events": EVENTS, "default_time": "soon"}, ParameterError, "default_time='soon'"),
    ],
)
def test_wrong_arguments(con, arguments, error, text):
    with pytest.raises(error, match=text.replace("*", r"\*")):
        load(con, **arguments)


def test_a_file_that_is_not_what_it_says(con, tmp_path):
    (tmp_path / "e.parquet").write_text("no parquet")
    with pytest.raises(SchemaError, match="cannot be read"):
        load(con, events=tmp_path / "e.parquet")


def test_needs_the_tables_and_no_open_transaction(con):
    with pytest.raises(NotInstalledError, match="Hint: call m6rec_udf"):
        load(duckdb.connect(), events=EVENTS)
    con.execute("begin")
    with pytest.raises(ParameterError, match="open transaction"):
        load(con, events=EVENTS)
    con.execute("insert into m6.users (user_id) values ('still usable')")
    con.execute("commit")


def test_a_failure_leaves_nothing(con, tmp_path):
    (tmp_path / "bad.csv").write_text("user_id,item_id,ts\n" + "u,a,1\n" * 30000 + 'u,"a"x,1,2,3\n')
    items = pl.DataFrame({"item_id": ["a", None]})
    tables = ("events", "items", "rejected_rows", "load_batches")
    with pytest.raises(SchemaError, match="events: loading stopped, nothing was loaded"):
        load(con, items=items, events=tmp_path / "bad.csv")
    assert [con.execute(f"select count(*) from m6.{table}").fetchone() for table in tables] == [(0,)] * 4
    assert counts(load(con, items=items), "items") == (2, 1, 1, 0)


def test_a_failure_between_tables_leaves_nothing(con, monkeypatch):
    module = importlib.import_module("m6rec_udf.load")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "raise_scale", stop)
    with pytest.raises(KeyboardInterrupt):
        load(con, items=pl.DataFrame({"item_id": ["a"]}), events=EVENTS)
    assert con.execute("select (select count(*) from m6.events) + (select count(*) from m6.items)").fetchone() == (0,)
    assert con.execute("select count(*) from duckdb_tables() where temporary").fetchone() == (0,)


def test_empty_frames(con):
    report = load(con, events=EVENTS.head(0), items=pl.DataFrame({"item_id": []}, schema={"item_id": pl.String}))
    assert counts(report) == (0, 0, 0, 0)
    assert con.execute("select count(*) from m6.load_batches").fetchone() == (0,)


def test_report_reads_like_a_mapping(con):
    report = load(con, events=EVENTS, items=pl.DataFrame({"item_id": ["a", None]}))
    assert isinstance(report, LoadReport)
    assert list(report) == ["items", "events"] == list(report.tables)
    assert report["events"]["loaded"] == 4
    assert "1 rejected: item_id is empty" in str(report)
    with pytest.raises(KeyError):
        report["events"]["count"]
    assert con.execute(
        "select table_name, given, loaded, rejected, already_there from m6.load_batches order by 1"
    ).fetchall() == [
        ("events", 4, 4, 0, 0),
        ("items", 2, 1, 1, 0),
    ]


def test_column_names_are_only_names(con):
    name = "x\"; drop table m6.users; --'"
    load(con, users=pl.DataFrame({name: ["u"], "o'ther\"": [1]}), columns={"users": {name: "user_id"}})
    assert con.execute("select user_id, attributes ->> 'o''ther\"' from m6.users").fetchall() == [("u", "1")]


def test_read_only(tmp_path):
    with duckdb.connect(tmp_path / "x.duckdb") as con:
        migrate(con)
        assert counts(load(con, events=EVENTS)) == (4, 4, 0, 0)
    with (
        duckdb.connect(tmp_path / "x.duckdb", read_only=True) as con,
        pytest.raises(ParameterError, match="read-only connection"),
    ):
        load(con, events=EVENTS)


def test_settings_of_the_caller_stay(con):
    con.execute("set preserve_insertion_order = false")
    load(con, events=EVENTS)
    rows = con.execute("select current_setting('preserve_insertion_order'), current_setting('TimeZone')").fetchall()
    assert rows == [(False, "Asia/Tokyo")]


def test_many_rows_keep_the_order_of_time(con):
    frame = con.sql(
        "select 'u' || hash(i) % 1000 as user_id, 'i' || hash(i + 1) % 1000 as item_id, hash(i) % 100000000 as ts "
        "from range(300000) as r(i)"
    )
    assert counts(load(con, events=frame.pl())) == (300_000, 300_000, 0, 0)
    out_of_order = con.execute(
        "select count(*) from (select event_seq, rowid, happened_at, lag(event_seq) over (order by rowid) as before, "
        "lag(happened_at) over (order by rowid) as earlier from m6.events) "
        "where event_seq <> before + 1 or happened_at < earlier"
    ).fetchall()
    assert out_of_order == [(0,)]
