"""A build after little has changed takes over what the version in force has learned, and says so."""

from __future__ import annotations

import shutil
from datetime import timedelta

import numpy as np
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import arrays, learned

NEW = world.START + timedelta(days=199)


@pytest.fixture
def con(tmp_path, built_file):
    con = world.connect(shutil.copy(built_file, tmp_path / "shop.duckdb"))
    yield con
    con.close()


def buy(con, times: int) -> None:
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select 'u' || lpad((n % 60)::varchar, 2, '0'), 'i70', 'purchase', ? + to_seconds(n) from range(?) as t(n)",
        [NEW, times],
    )


def taken_over(con) -> bool:
    """Whether the latest build learned nothing itself."""
    sql = "select value from m6.decisions where name = 'satisfaction_model' and model_version = ?"
    version = world.rows(con, "select max(model_version) from m6.models")[0][0]
    return world.rows(con, sql, [version]) == [("taken over",)]


def model_of(con, version: int) -> str:
    sql = "select content from m6.artefacts where name = 'satisfaction' and model_version = ?"
    return world.rows(con, sql, [version])[0][0].decode()


def test_few_new_events_are_counted_under_the_model_there_was(con):
    before = world.rows(con, "select events from m6.feat_item_activity where item_id = 'i70'")[0][0]
    buy(con, 3)
    report = m6.build(con)
    assert taken_over(con)
    assert (report.model_version, report.rows) == (2, 0)
    assert model_of(con, 2) == model_of(con, 1)
    assert world.rows(con, "select events from m6.feat_item_activity where item_id = 'i70'") == [(before + 3,)]
    reasons = world.rows(con, "select value, reason from m6.decisions where model_version = 2 order by name")
    assert all("version 1 learned it: behaviour has grown by" in why for value, why in reasons if value == "taken over")
    chosen = "select name, value from m6.decisions where name like 'item_item%' and model_version = ? order by 1"
    assert world.rows(con, chosen, [2]) == world.rows(con, chosen, [1]) != []


def test_the_next_build_counts_from_what_was_learned_not_from_the_build_before(con):
    events = world.rows(con, "select count(*) from m6.events")[0][0]
    for part in range(4):
        buy(con, round(0.02 * events))
        m6.build(con)
        assert taken_over(con) == (part in (0, 1, 3))


def test_a_rebuild_depends_on_the_file_alone(con, tmp_path):
    buy(con, 3)
    con.close()
    found = []
    for name in ("a", "b"):
        other = world.connect(shutil.copy(tmp_path / "shop.duckdb", tmp_path / f"{name}.duckdb"))
        m6.build(other)
        found.append(arrays.load(other, 2))
        other.close()
    np.testing.assert_allclose(found[0].item_item.toarray(), found[1].item_item.toarray(), atol=1e-6)
    assert found[0].model.to_json() == found[1].model.to_json()
    assert found[0].settings == found[1].settings


CHANGES = {
    "more behaviour": lambda con: buy(con, round(0.06 * world.rows(con, "select count(*) from m6.events")[0][0])),
    "an event is gone": lambda con: con.execute("delete from m6.events where event_seq = 1"),
    "an event was edited": lambda con: con.execute("update m6.events set value = 1 where event_seq = 1"),
    "a user is forgotten": lambda con: m6.forget_user(con, world.USERS[0]),
    "another grade": lambda con: con.execute("update m6.event_types set satisfaction = 0.9 where event_type = 'view'"),
    "many new items": lambda con: con.execute(
        "insert into m6.items (item_id, title) select 'new' || i, 'new ' || i from range(50) as t(i)"
    ),
    "a strategy less": lambda con: con.execute("update m6.strategies set is_enabled = false where strategy = 'fresh'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_longer_true_is_learned_again(con, change):
    CHANGES[change](con)
    m6.build(con)
    assert not taken_over(con)


def test_what_features_of_another_meaning_taught_is_learned_again(con, monkeypatch):
    monkeypatch.setattr(learned, "MEANING", learned.MEANING + 1)
    m6.build(con)
    assert not taken_over(con)
    m6.build(con)
    assert taken_over(con)


@pytest.mark.parametrize("options", [{"retrain": True}, {"seed": 7}, {"as_of": world.START + timedelta(days=150)}])
def test_asked_for_another_build_it_learns(con, options):
    buy(con, 3)
    m6.build(con, **options)
    assert not taken_over(con)


def test_a_version_not_in_force_is_not_taken_over(con):
    m6.build(con, seed=7, activate=False)
    m6.build(con, seed=7)
    assert not taken_over(con)
