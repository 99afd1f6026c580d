"""The loop on simulated logs: it learns, it is repeatable, it can be undone."""

from __future__ import annotations

import importlib
from datetime import timedelta

import duckdb
import numpy as np
import pytest
from loop_world import START, database, play, weights_of

from m6rec_udf import candidate_weights
from m6rec_udf.errors import ModelSqlError, NotBuiltError, ParameterError, UnknownNameError
from m6rec_udf.reweight import ensure_default_policy, period_seconds, reweight, rollback

module = importlib.import_module("m6rec_udf.reweight")
BETTER = [0.1, 0.1, 0.5, 0.1]


@pytest.fixture
def con():
    con = database()
    ensure_default_policy(con)
    return con


def state(con):
    """Everything a reweighting may change, in a comparable form."""
    return [
        con.execute(f"select * exclude (created_at) from {table} order by all").fetchall()
        if table == "m6.policy_versions"
        else con.execute(f"select * from {table} order by all").fetchall()
        for table in ("m6.policy_versions", "m6.strategy_weights", "m6.active")
    ]


def active(con):
    return con.execute("select policy_version from m6.active").fetchall()[0][0]


def test_default_policy_is_written_once(con):
    assert ensure_default_policy(con) == 1
    np.testing.assert_allclose(weights_of(con, 1), [0.92, 0.08 / 3, 0.08 / 3, 0.08 / 3])
    assert con.execute("select status from m6.policy_versions").fetchall() == [("champion",)]


def test_the_better_strategy_gains_weight_in_every_segment(con):
    for day in range(4):
        play(con, day=day, quality=BETTER)
        assert reweight(con)["status"] == "active"
    for segment in ("a", "b", "*"):
        weights = weights_of(con, active(con), segment)
        assert weights.argmax() == 2
        assert weights[2] > (0.5 if segment == "*" else 0.6)  # less is known of segments never shown
        assert weights.min() >= 0.005 - 1e-12
        assert weights.sum() == pytest.approx(1.0)


def test_a_null_world_keeps_mixing(con):
    for day in range(6):
        play(con, day=day, quality=[0.2] * 4)
        reweight(con)
    for segment in ("a", "b"):
        weights = weights_of(con, active(con), segment)
        assert weights.max() < 0.9
        assert np.exp(-(weights * np.log(weights)).sum()) > 1.5  # effective number of strategies


def test_running_twice_changes_nothing(con):
    play(con, day=0, quality=BETTER)
    first = reweight(con)
    before = state(con)
    again = reweight(con)
    assert (again["policy_version"], again["changed"]) == (first["policy_version"], False)
    assert state(con) == before


def test_bit_identical_whatever_the_row_order_and_threads():
    results = []
    for order, threads in (("impression_id", 1), ("hash(impression_id)", 2)):
        con = database()
        con.execute(f"set threads = {threads}")
        ensure_default_policy(con)
        for day in range(2):
            play(con, day=day, quality=BETTER, requests=200)
        for table in ("impressions", "feedback"):
            con.execute(f"create temp table kept as select * from m6.{table} order by {order}")
            con.execute(f"delete from m6.{table}")
            con.execute(f"insert into m6.{table} select * from kept order by {order}")
            con.execute("drop table kept")
        reweight(con)
        results.append(
            con.execute(
                "select w.*, p.input_hash, p.decision from m6.strategy_weights as w "
                "join m6.policy_versions as p using (policy_version) order by all"
            ).fetchall()
        )
    assert results[0] == results[1]


def test_more_feedback_in_the_same_period_starts_from_the_same_weights(con):
    play(con, day=0, quality=BETTER)
    first = reweight(con)
    con.execute(
        "insert into m6.feedback by name select 'x' || impression_id as feedback_id, impression_id, "
        "'like' as event_type, shown_at as happened_at, shown_at as ingested_at from m6.impressions where rank = 1"
    )
    second = reweight(con)
    assert second["policy_version"] == first["policy_version"] + 1
    parents = con.execute("select parent from m6.policy_versions where policy_version > 1").fetchall()
    assert parents == [(1,), (1,)]
    assert active(con) == second["policy_version"]


def test_an_error_half_way_leaves_the_old_version(con, monkeypatch):
    play(con, day=0, quality=BETTER)
    before = state(con)

    def broken(*args, **kwargs):
        raise RuntimeError("killed")

    monkeypatch.setattr(module, "activate", broken)
    with pytest.raises(RuntimeError, match="killed"):
        reweight(con)
    assert state(con) == before
    monkeypatch.undo()
    assert reweight(con)["changed"]


def test_a_failing_model_says_which(con, monkeypatch):
    play(con, day=0, quality=BETTER, requests=50)
    monkeypatch.setattr(module.resources, "read_sql", lambda folder, name: "select * from no_such_table")
    with pytest.raises(ModelSqlError, match=r"sql/feedback/fb_impressions\.sql failed"):
        reweight(con)
    assert active(con) == 1


def test_rollback_restores_and_is_not_undone_by_the_same_log(con):
    play(con, day=0, quality=BETTER)
    done = reweight(con)
    result = rollback(con)
    assert result == {"policy_version": 1, "rolled_back": done["policy_version"], "changed": True}
    assert active(con) == 1
    statuses = dict(con.execute("select policy_version, status from m6.policy_versions").fetchall())
    assert statuses == {1: "champion", done["policy_version"]: "rolled_back"}
    assert con.execute("select action from m6.audit").fetchall() == [("rollback",)]
    again = reweight(con)
    assert (again["status"], again["changed"], active(con)) == ("rolled_back", False, 1)


def test_rollback_to_a_version_and_its_errors(con):
    with pytest.raises(NotBuiltError, match="no version before"):
        rollback(con)
    with pytest.raises(UnknownNameError, match="99"):
        rollback(con, to=99)
    for day in range(2):
        play(con, day=day, quality=BETTER)
        reweight(con)
    assert rollback(con, to=2)["policy_version"] == 2
    assert active(con) == 2


def test_empty_period_and_no_feedback_do_nothing(con):
    assert reweight(con)["status"] == "nothing"
    play(con, day=0, quality=[0, 0, 0, 0], requests=60)
    before = state(con)
    assert "feedback" in reweight(con)["reason"]
    play(con, day=1, quality=BETTER)
    result = reweight(con, as_of=START + timedelta(days=5))
    assert result["status"] == "nothing"
    assert "empty" in result["reason"]
    assert state(con) == before


def test_as_of_hides_what_was_ingested_later(con):
    play(con, day=0, quality=BETTER)
    as_of = START + timedelta(hours=5)
    baseline = database()
    ensure_default_policy(baseline)
    play(baseline, day=0, quality=BETTER)
    for c in (con, baseline):
        if c is con:
            play(c, day=3, quality=[0.9, 0, 0, 0])
        reweight(c, as_of=as_of)
    assert state(con) == state(baseline)


def test_an_outage_of_the_click_event_freezes(con):
    for day in range(3):
        play(con, day=day, quality=[0.4] * 4)
        reweight(con)
    version = active(con)
    play(con, day=3, quality=[0.4] * 4, click_scale=0.02)
    result = reweight(con)
    assert result["status"] == "frozen"
    assert "reaction rate" in result["reason"]
    assert active(con) == version


def test_wrong_propensities_freeze(con):
    play(con, day=0, quality=BETTER)
    con.execute("update m6.impressions set propensity = 0.5, segment = '*'")
    result = reweight(con)
    assert result["status"] == "frozen"
    assert "propensities" in result["reason"]
    assert active(con) == 1


def test_few_lists_keep_their_weights(con):
    play(con, day=0, quality=BETTER, requests=40)
    result = reweight(con)
    assert result["status"] == "candidate"
    assert {row["status"] for row in result["groups"]} == {"insufficient_support"}
    assert active(con) == 1


def test_the_gate_holds_a_sabotaged_learner(con, monkeypatch):
    for day in range(4):
        play(con, day=day, quality=BETTER)
        reweight(con)
    good = candidate_weights.candidate_weights

    def reverse(*args, **kwargs):
        return [{g: w[::-1].copy() if w.argmax() == 2 else w for g, w in c.items()} for c in good(*args, **kwargs)]

    monkeypatch.setattr(module, "candidate_weights", reverse)
    for day in range(4, 8):
        play(con, day=day, quality=BETTER)
        reweight(con)
    assert weights_of(con, active(con), "a")[2] > 0.6
    assert weights_of(con, active(con), "b")[2] > 0.6


def test_apprentice_stays_in_shadow(con):
    play(con, day=0, quality=BETTER)
    result = reweight(con, parameters={"apprentice": True})
    assert result["status"] == "shadow"
    assert active(con) == 1
    assert len(weights_of(con, result["policy_version"])) == 4


def test_a_strategy_added_later_gets_the_floor_then_learns(con):
    play(con, day=0, quality=BETTER)
    con.execute("insert into m6.strategies values ('social', 4, true, '')")
    weights = weights_of(con, reweight(con)["policy_version"], "a")
    assert len(weights) == 5
    assert weights.min() >= 0.0049
    assert weights.sum() == pytest.approx(1.0)


def test_a_segment_that_is_not_shown_keeps_its_weights(con):
    play(con, day=0, quality=BETTER)
    reweight(con)
    before = weights_of(con, active(con), "b")
    play(con, day=20, quality=BETTER, segments=("a",))
    reweight(con)
    np.testing.assert_allclose(weights_of(con, active(con), "b"), before)


def test_pinned_slots_are_left_out(con):
    play(con, day=0, quality=BETTER)
    other = database()
    ensure_default_policy(other)
    play(other, day=0, quality=BETTER)
    other.execute(
        "insert into m6.impressions by name select 'pin' || request_id as impression_id, request_id, user_id, "
        "'ad' as item_id, 9 as rank, 'pinned' as strategy, 0::ubigint as supporters, 0::ubigint as eligible, "
        "1.0 as propensity, any_value(segment) as segment, any_value(shown_at) as shown_at "
        "from m6.impressions group by all"
    )
    results = [reweight(c) for c in (con, other)]
    assert results[0]["groups"] == results[1]["groups"]


def test_mistakes_are_named(con):
    with pytest.raises(ParameterError, match="unknown parameter gama"):
        reweight(con, parameters={"gama": 1})
    with pytest.raises(ParameterError, match="period is '1 day'"):
        reweight(con, period="1 day")
    assert period_seconds("12h") == 43200


def test_two_runs_at_once_do_no_harm(tmp_path):
    con = database()
    ensure_default_policy(con)
    play(con, day=0, quality=BETTER, requests=100)
    other = con.cursor()
    other.execute("begin")
    other.execute("update m6.active set policy_version = 1")
    with pytest.raises(duckdb.Error):
        reweight(con)
    other.execute("commit")
    assert active(con) == 1
    assert reweight(con)["status"] == "active"


def test_late_purchases_are_forecast(con):
    """A strategy whose value arrives days later is not punished for it."""
    for day in range(6):
        play(con, day=day, quality=[0.2, 0.2, 0.5, 0.2], late_days=4)
        until = START + timedelta(days=day + 1)
        con.execute("create temp table late as from m6.feedback where happened_at > ?", [until])
        con.execute("delete from m6.feedback where feedback_id in (select feedback_id from late)")
        reweight(con)
        con.execute("insert into m6.feedback select * from late")
        con.execute("drop table late")
    assert weights_of(con, active(con), "a").argmax() == 2
