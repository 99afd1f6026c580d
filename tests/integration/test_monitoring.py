"""Log lines and gauges: what a monitor reads, and that no person's id is in it."""

from __future__ import annotations

import io
import json
import logging
import re

import duckdb
import polars as pl
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf.errors import NotInstalledError, ParameterError
from m6rec_udf.logs import LOGGER

SAMPLE = re.compile(
    r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_]\w*="(\\.|[^"\\\n])*"(,[a-zA-Z_]\w*="(\\.|[^"\\\n])*")*\})? [-+0-9.e]+$'
)


@pytest.fixture
def lines():
    stream = io.StringIO()
    handler = m6.log_to(stream, as_json=True)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)


def test_verbs_say_what_they_did(shop, lines):
    event = pl.DataFrame({"user_id": ["u01"], "item_id": ["i01"], "happened_at": ["2024-07-01"]})
    m6.load(shop, events=event)
    m6.build(shop)
    m6.publish(shop)
    m6.forget_user(shop, "u01")
    found = {line["verb"]: line for line in lines()}
    assert set(found) == {"load", "build", "publish", "forget_user"}
    assert found["load"]["events"] == {"given": 1, "loaded": 1, "rejected": 0, "already_there": 0}
    assert found["build"]["model_version"] == 2
    for line in found.values():
        assert line["outcome"] == "done"
        assert line["seconds"] >= 0
        assert line["level"] == "info"
        assert line["time"].endswith("+00:00")
        assert "u01" not in json.dumps(line)


def test_a_failure_is_logged_without_what_somebody_typed(shop, lines):
    with pytest.raises(ParameterError):
        m6.load(shop, events="anna@example.org")
    ((line),) = lines()
    assert (line["outcome"], line["error"], line["level"]) == ("failed", "ParameterError", "error")
    assert "anna" not in json.dumps(line)


def test_a_second_handler_takes_the_place_of_the_first():
    first, second = io.StringIO(), io.StringIO()
    m6.log_to(first)
    handler = m6.log_to(second)
    LOGGER.info("hello")
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)
    assert first.getvalue() == ""
    assert "INFO hello" in second.getvalue()


def test_without_a_handler_nothing_is_printed(shop, capfd):
    m6.publish(shop)
    assert capfd.readouterr().err == ""


def test_gauges_are_prometheus_text(shop):
    shop.execute("update m6.strategy_weights set segment = 'a\"b\\c' || chr(10) || 'd' where strategy = 'popular'")
    text = m6.prometheus(shop)
    assert text.endswith("\n")
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in samples if not SAMPLE.match(line)] == []
    names = [line.split("{")[0].split(" ")[0] for line in samples]
    helped = re.findall(r"^# HELP (\S+) ", text, re.MULTILINE)
    assert helped == re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE) == list(dict.fromkeys(names))
    events = shop.execute("select count(*) from m6.events").fetchall()[0][0]
    assert f'm6_rows{{table="events"}} {events}' in samples
    assert "m6_model_version 1" in samples
    assert any(line.startswith('m6_file_bytes{file="database"} ') for line in samples)


def test_unbuilt_rows_are_counted(shop):
    shop.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u01', 'i01', 'view', '2024-07-19')"
    )
    assert 'm6_unbuilt_rows{table="events"} 1' in m6.prometheus(shop)


def test_gauges_need_a_dressed_connection():
    with pytest.raises(NotInstalledError, match="Hint:"):
        m6.prometheus(duckdb.connect())


def test_an_empty_file_has_gauges():
    con = shop_world.connect(":memory:")
    assert 'm6_rows{table="events"} 0' in m6.prometheus(con)
    con.close()
