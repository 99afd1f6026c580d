"""Satisfaction functions compared on one outcome, and adopted."""

from __future__ import annotations

from datetime import timedelta

import pytest
import shop_world
from shop_world import rows

import m6rec_udf as m6
from m6rec_udf.errors import ParameterError, UnknownNameError

AS_OF = shop_world.START + timedelta(days=150)


@pytest.fixture(scope="module")
def compared(shop_frames):
    con = shop_world.fill(":memory:", shop_frames)
    before = shop_world.state(con)
    relation = m6.compare_satisfaction(con, functions=["graded", "click"], as_of=AS_OF)
    found = {(method, metric): value for _, method, piece, metric, value, *_ in relation.fetchall() if piece == "all"}
    yield con, found, before
    con.close()


def test_every_function_has_ranking_calibration_and_coverage(compared):
    _, found, _ = compared
    for name in ("graded", "click"):
        for metric in ("ndcg@10", "coverage@10", "gini@10", "auc", "log_loss", "calibration_error"):
            assert found[name, metric] is not None
        assert 0 <= found[name, "own_calibration_error"] < 0.2
    assert ("click", "ndcg@10 difference") in found
    difference = found["click", "ndcg@10"] - found["graded", "ndcg@10"]
    assert found["click", "ndcg@10 difference"] == pytest.approx(difference)


def test_a_function_that_any_click_satisfies_promises_more(compared):
    con, _, _ = compared
    means = dict(
        rows(
            con,
            "select function, sum(n * predicted) / sum(n) from satisfaction_reliability "
            "where outcome = 'common' group by function",
        )
    )
    assert means["click"] > means["graded"]


def test_all_are_judged_by_the_same_outcome(compared):
    con, _, _ = compared
    seen = rows(
        con,
        "select function, round(sum(n * observed), 6) from satisfaction_reliability where outcome = "
        "'common' group by 1",
    )
    hits = rows(
        con,
        "select count(distinct user_id) from m6.held_out(?, only_types := ['purchase', 'rating'])",
        [AS_OF],
    )[0][0]
    assert {name for name, _ in seen} == {"graded", "click"}
    assert all(observed > 0 for _, observed in seen)
    listed = dict(rows(con, "select function, count(distinct user_id) from satisfaction_lists group by 1"))
    assert listed == {"graded": hits, "click": hits}


def test_what_would_have_been_recommended_differently(compared):
    con, _, _ = compared
    a, b, users, same_items, same_first, same_lists = rows(con, "from satisfaction_changes")[0]
    assert (a, b) == ("click", "graded")
    assert users > 20
    assert 0 < same_lists <= same_first <= 1 or same_lists == 0
    assert 0 < same_items < 1
    overlap = rows(
        con,
        "select count(*) from satisfaction_lists a join satisfaction_lists b using (user_id, item_id) "
        "where a.function = 'click' and b.function = 'graded'",
    )[0][0]
    assert same_items == pytest.approx(overlap / (10 * users))


def test_nothing_of_it_is_seen_in_the_file(compared):
    con, _, before = compared
    assert shop_world.state(con) == before
    assert rows(con, "select count(*) from m6.models") == [(1,)]
    assert rows(con, "select kind, status from m6.runs") == [("compare_satisfaction", "done")]


def test_adopting_is_one_audited_statement_that_later_builds_keep(shop):
    report = m6.use_satisfaction(shop, "purchase")
    assert rows(shop, "select model_version from m6.active") == [(report.model_version,)]
    detail = rows(shop, "select detail ->> 'from', detail ->> 'to', detail ->> 'model_version' from m6.audit")
    assert detail == [("graded", "purchase", str(report.model_version))]
    views = rows(shop, "select distinct satisfaction from m6.behaviour where event_type = 'view'")
    assert views == [(0.0,)]
    m6.build(shop)
    kept = rows(shop, "select parameters ->> 'satisfaction' from m6.models order by model_version desc limit 1")
    assert kept == [("purchase",)]
    assert rows(shop, "select count(*) from m6.audit") == [(1,)]


@pytest.mark.parametrize(
    "verb", [m6.use_satisfaction, lambda con, name: m6.compare_satisfaction(con, functions=[name])]
)
def test_an_unknown_function_is_refused(reader, verb):
    with pytest.raises(UnknownNameError, match=r"(?s)'happy', expected one of click, dwell, graded.*Hint: "):
        verb(reader, "happy")


def test_without_an_outcome_there_is_nothing_to_judge_by(reader):
    with pytest.raises(ParameterError, match=r"(?s)no play worth.*expected some.*Hint: outcome_types, of .*view"):
        m6.compare_satisfaction(reader, outcome_types=["play"])


def test_no_functions_at_all_is_a_mistake(reader):
    with pytest.raises(ParameterError, match=r"(?s)functions is empty.*Hint: one of click"):
        m6.compare_satisfaction(reader, functions=[])
