"""Input that once ended in a crash, a traceback or a wrong answer."""

from __future__ import annotations

import hashlib

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import m6rec_udf as m6
from m6rec_udf import models, project
from m6rec_udf.connection import migrate
from m6rec_udf.errors import SchemaError


def broken_text() -> pa.Array:
    """Arrow text whose bytes are not UTF-8."""
    parts = pa.array([b"\xff\xfe", b"u2"], pa.binary())
    return pa.StringArray.from_buffers(2, parts.buffers()[1], parts.buffers()[2])


def broken_events() -> pa.Table:
    return pa.table({"user_id": broken_text(), "item_id": ["i1", "i2"], "happened_at": ["2024-01-01", "2024-01-02"]})


@pytest.mark.parametrize("form", ["table", "batches", "stream", "polars", "pandas"])
def test_arrow_text_that_is_not_utf8_is_refused_and_the_database_lives(form):
    events = broken_events()
    given = {
        "table": lambda: events,
        "batches": lambda: pa.RecordBatchReader.from_batches(events.schema, events.to_batches()),
        "stream": lambda: Stream(events),
        "polars": lambda: pl.from_arrow(events),
        "pandas": lambda: events.to_pandas(types_mapper=__import__("pandas").ArrowDtype),
    }[form]()
    with duckdb.connect() as con:
        migrate(con)
        with pytest.raises(SchemaError, match="UTF"):
            m6.load(con, events=given)
        assert con.execute("select count(*) from m6.events").fetchall() == [(0,)]


class Stream:
    """Rows that are known by the Arrow protocol alone."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("question", ["recommend('u01', {})", "recommend_many('audience', {})", "serve('u01', {})"])
@pytest.mark.parametrize(
    "argument",
    ["k := -1", "k := 2000000000", "diversity := 'nan'", "diversity := -0.1", "diversity := null",
     "calibrated := 'inf'", "calibrated := 1.5"],
)  # fmt: skip
def test_figures_out_of_range_are_refused(reader, question, argument):
    with pytest.raises(duckdb.Error, match=r"expected a (whole )?number from 0"):
        reader.execute(f"from m6.{question.format(argument)}").fetchall()


@pytest.mark.parametrize("verb", ["search_items('drama', {})", "recommend_for_text('drama', {})"])
@pytest.mark.parametrize("argument", ["k := -2", "k := null"])
def test_searches_refuse_a_length_that_is_none(reader, verb, argument):
    with pytest.raises(duckdb.Error, match="expected a whole number from 0"):
        reader.execute(f"from m6.{verb.format(argument)}").fetchall()


def test_a_list_longer_than_the_catalogue_is_the_catalogue(reader):
    there = reader.execute("select count(*) from m6.available_items").fetchall()[0][0]
    for question in ("recommend('u01', k := 1000000)", "serve('u01', k := 1000000, seed := 3)"):
        assert len(reader.execute(f"from m6.{question}").fetchall()) == there
    served = "select item_id from m6.serve('u01', k := {}, seed := 3)"
    assert reader.execute(served.format(80)).fetchall() == reader.execute(served.format(1_000_000)).fetchall()


@pytest.mark.parametrize("boost", ["'nan'", "'inf'", "'-inf'", "null", "1e308"])
@pytest.mark.parametrize(
    "question", ["recommend('u01', boosts := 'odd')", "recommend_many('audience', boosts := 'odd')"]
)
def test_a_boost_that_is_no_number_is_refused(shop, boost, question):
    shop.execute(f"create table odd as select 'i03' as item_id, cast({boost} as double) as boost")
    with pytest.raises(duckdb.Error, match=r"boosts gives 'i03' the boost .* expected a number"):
        shop.execute(f"from m6.{question}").fetchall()


def test_functions_called_by_hand_say_what_they_expect(reader):
    for call in (
        "m6_user_vector([[1.0, 2.0], [1.0]], [1.0, 1.0])",
        "m6_user_vector([[1.0, null]], [null])",
        "m6_item_set(['a', 'b'], [1.0])",
        "m6_unpacked_history(1, 'abc'::blob)",
        "m6_unpacked_history(1, repeat('\\x7f', 20)::blob)",
    ):
        with pytest.raises(duckdb.Error, match="expected"):
            reader.execute(f"select {call}").fetchall()


@pytest.mark.parametrize("name", ["factors", "learned_users"])
def test_a_build_without_one_of_its_artefacts_is_refused(shop, name):
    shop.execute("delete from m6.artefact_names where name = ?", [name])
    with pytest.raises(duckdb.Error, match=rf"CorruptError.*{name}"):
        shop.execute("from m6.recommend('u01')").fetchall()


@pytest.mark.parametrize("name", ["settings", "satisfaction", "item_ids", "factors", "item_item.data"])
def test_a_flipped_bit_in_an_artefact_is_found_before_it_is_read(shop, name):
    ((content,),) = shop.execute("select content from m6.artefacts where name = ?", [name]).fetchall()
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 1
    assert hashlib.sha256(broken).digest() != hashlib.sha256(content).digest()
    shop.execute(
        "update m6.artefact_contents set content = ? "
        "where content_hash in (select content_hash from m6.artefact_names where name = ?)",
        [bytes(broken), name],
    )
    with pytest.raises(duckdb.Error, match=rf"CorruptError.*'{name}'.*does not match its hash"):
        shop.execute("from m6.recommend('u01')").fetchall()


def test_a_rebuild_does_not_take_over_a_damaged_model(shop):
    shop.execute(
        "update m6.artefact_contents set content = content || 'x'::blob "
        "where content_hash in (select content_hash from m6.artefact_names where name = 'satisfaction')"
    )
    report = m6.build(shop)
    assert "taken over" not in {value for _, value, _ in report.decisions}
    assert len(shop.execute("from m6.recommend('u01')").fetchall()) == 10


def test_project_files_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "sql" / "strategies").mkdir(parents=True)
    own = tmp_path / "sql" / "strategies" / "cand_mine.sql"
    own.write_bytes(b"select \xff")
    with pytest.raises(SchemaError, match="UTF-8"):
        models.collect(tmp_path)
    (tmp_path / "m6rec.toml").write_bytes(b"database = '\xff'")
    with pytest.raises(SchemaError, match="UTF-8"):
        project.settings(tmp_path)
    own.write_text("select * from cand_other")
    own.with_name("cand_other.sql").write_text("select * from cand_mine")
    with pytest.raises(SchemaError, match=r"in a circle.*\n?Hint:"):
        models.ordered(models.collect(tmp_path))


def test_a_price_beyond_float32_does_not_reach_the_model_as_infinity(shop):
    shop.execute("update m6.items set price = 1e308 where item_id = 'i05'")
    m6.build(shop)
    assert len(shop.execute("from m6.recommend('u01')").fetchall()) == 10


def test_an_apostrophe_or_a_hash_in_a_csv_joins_and_drops_no_rows(tmp_path):
    path = tmp_path / "relations.csv"
    names = ["", "a", "'; drop table m6.events; --", "',", "", "# not a comment", "_", 'say "x"', "'", "#"]
    rows = [f"u{n},{name if chr(34) not in name else chr(34) + name.replace(chr(34), chr(34) * 2) + chr(34)}"
            for n, name in enumerate(name.replace(",", ";") for name in names)]  # fmt: skip
    path.write_text("\r\n".join(["user_id,other_user_id", *rows]) + "\r\n")
    with duckdb.connect() as con:
        migrate(con)
        report = m6.load(con, relations=str(path))["relations"]
        assert (report.given, report.rejected) == (len(names), 2)
        stored = {row[0] for row in con.execute("select other_user_id from m6.relations").fetchall()}
        assert stored == {name.replace(",", ";") for name in names if name}


def test_a_list_of_nothing_is_empty_whatever_the_mix(reader):
    assert reader.execute("from m6.recommend('u01', k := 0, calibrated := 1.0, diversity := 1.0)").fetchall() == []
    assert reader.execute("from m6.recommend_many('audience', k := 0, calibrated := 1.0)").fetchall() == []


@pytest.mark.parametrize("as_of", ["yesterday", "", "2024-13-01"])
def test_a_moment_that_is_none_is_refused(reader, as_of):
    with pytest.raises(m6.M6Error, match="Hint:"):
        m6.reweight(reader, as_of=as_of)


@pytest.mark.parametrize("until", ["9999-12-31 23:59:59.999999", "200000-01-01", "0001-01-01", "1000-01-01 (BC)"])
def test_a_moment_at_the_end_of_time_is_a_moment(reader, until):
    question = f"from m6.recommend('u01', in_domain := 'nowhere', until := timestamp '{until}')"
    assert reader.execute(question).fetchall() == []
