"""m6.data_quality: one ill data set per measure, and the shop, which is well."""

from __future__ import annotations

import pytest
import shop_world

import m6rec_udf as m6

ILL = {
    "items_with_text": "update m6.items set title = null, description = null where item_id > 'i10'",
    "words_per_item": "update m6.items set title = 'x', description = null, category = null, brand = null",
    "events_per_user": "delete from m6.events where event_seq % 20 > 0",
    "users_with_one_event": (
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select 'once' || x, 'i01', 'view', timestamp '2024-03-01 10:00:01' + to_hours(x) from range(200) as t(x)"
    ),
    "items_without_behaviour": "insert into m6.items (item_id, title) select 'dead' || x, 'a' from range(900) as t(x)",
    "events_without_item": "delete from m6.items where item_id < 'i30'",
    "items_never_available": "update m6.items set is_available = false where item_id > 'i20'",
    "tied_times": "update m6.events set happened_at = date_trunc('month', happened_at) + interval 1 hour",
    "whole_days": "update m6.events set happened_at = date_trunc('day', happened_at)",
    "longest_gap": "delete from m6.events where happened_at between '2024-02-01' and '2024-05-01'",
    "duplicates": (
        "insert into m6.events (user_id, item_id, event_type, value, happened_at) "
        "select user_id, item_id, event_type, value, happened_at from m6.events"
    ),
    "bots": (
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select 'bot', 'i01', 'view', timestamp '2024-03-01' + to_minutes(x) from range(1400) as t(x)"
    ),
    "types_without_meaning": "delete from m6.event_types where event_type = 'view'",
    "levels_of_satisfaction": "delete from m6.events where event_type <> 'view'",
    "values_missing": "update m6.events set value = null where event_type = 'rating'",
    "months": "delete from m6.events where happened_at > '2024-01-10'",
}


@pytest.fixture(scope="module")
def loaded(shop_frames):
    con = shop_world.connect(":memory:")
    m6.load(con, **shop_frames)
    yield con
    con.close()


def verdicts(con) -> dict[str, tuple[float, str]]:
    rows = con.execute("select measure, figure, verdict from m6.data_quality").fetchall()
    return {measure: (figure, verdict) for measure, figure, verdict in rows}


def test_the_shop_is_well(loaded):
    found = verdicts(loaded)
    assert {measure for measure, (_, verdict) in found.items() if verdict in ("poor", "unknown")} == set()
    assert found["items_with_text"] == (1.0, "good")
    assert found["bots"] == (0.0, "good")
    there = loaded.execute("select remedy is null from m6.data_quality where verdict = 'good'").fetchall()
    assert set(there) == {(True,)}


@pytest.mark.parametrize("measure", ILL)
def test_each_ailment_changes_its_verdict(loaded, measure):
    before = verdicts(loaded)[measure]
    loaded.execute("begin")
    try:
        loaded.execute(ILL[measure])
        after = verdicts(loaded)[measure]
        (remedy,) = loaded.execute("select remedy from m6.data_quality where measure = ?", [measure]).fetchall()[0]
    finally:
        loaded.execute("rollback")
    order = ["poor", "fair", "good"]
    assert order.index(after[1]) < order.index(before[1]), (before, after)
    assert remedy


def test_an_empty_file_has_no_figures():
    con = shop_world.connect(":memory:")
    assert {verdict for _, verdict in verdicts(con).values()} <= {"unknown", "poor"}
    con.close()
