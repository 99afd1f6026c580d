"""Which moments a build looks back from, and what it may keep between them."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import numpy as np
import pytest

from m6rec_udf import models, moment, training
from m6rec_udf.event_log import Log, read_log

SHIPPED = models.with_satisfaction(models.collect(), "graded")
GRADED = {"stg_actions", "stg_behaviour", "satisfaction_in_force"}


def log_of(events: int) -> Log:
    nothing = np.zeros(events, np.int64)
    return Log(*[nothing] * 4, np.arange(events, dtype=np.float64), np.asarray(["*"], object), np.zeros(events, bool))


@pytest.mark.parametrize(("events", "windows"), [(40, 0), (1000, 6), (400_000, 4), (3_000_000, 2)])
def test_small_logs_look_back_more_often_than_large_ones(events, windows):
    found = training.cuts(log_of(events))
    assert len(found) == windows
    assert found == sorted(found, reverse=True)


def test_an_own_feature_and_what_reads_it_are_answered_by_sql():
    assert moment.own_features(SHIPPED) == set()
    own = {**SHIPPED, "feat_user_item": replace(SHIPPED["feat_user_item"], path="/project/sql")}
    assert {"feat_user_item", "feat_item_transitions", "feat_user_terms"} <= moment.own_features(own)
    assert "feat_item_activity" not in moment.own_features(own)


def test_a_log_that_is_not_sorted_is_sorted():
    con = duckdb.connect()
    con.execute("create table stg_users as select unnest([0, 1]) as user_idx, '*' as segment")
    con.execute(
        "create table stg_events as select * from (values (1, 5, 1.0, 0.5, timestamp '2024-01-02', true), "
        "(0, 7, 1.0, 0.5, timestamp '2024-01-03', false), (1, 2, 1.0, 0.1, timestamp '2024-01-01', false), "
        "(1, 1, 1.0, 0.1, timestamp '2024-01-02', true)) "
        "as t(user_idx, item_idx, interest, satisfaction, happened_at, is_positive)"
    )
    log = read_log(con)
    assert log.item.tolist() == [7, 2, 1, 5]
    assert log.is_positive.tolist() == [False, False, True, True]
    assert log.behaviour(np.array([1, 0]), log.happened_at[1], ["*"]).item.tolist() == [2]
    assert log.by_pair.tolist() == [0, 2, 1, 3]


def test_shipped_models_grade_behaviour_once():
    assert moment.lasting(SHIPPED) == {"stg_items", "stg_users"} | GRADED


@pytest.mark.parametrize("name", ["stg_actions", "stg_behaviour", "satisfaction_in_force", "stg_events"])
def test_an_own_grade_or_staging_is_run_at_every_moment(name):
    own = {**SHIPPED, name: replace(SHIPPED[name], path="/project/sql")}
    assert moment.lasting(own) == {"stg_items", "stg_users"}


def test_an_own_model_that_reads_behaviour_never_sees_what_came_later():
    """Behaviour graded at the build holds everything up to it: an earlier moment would read the future."""
    own = models.Model("feat_own", "features", "-- one row\nselect count(*) as n from stg_behaviour", "/project/sql")
    assert moment.lasting({**SHIPPED, "feat_own": own}) == {"stg_items", "stg_users"}


@pytest.mark.parametrize(
    ("name", "is_kept"), [("graded", True), ("click", True), ("purchase", True), ("rating", True), ("dwell", False)]
)
def test_grades_are_kept_where_they_say_the_same_at_every_moment(name, is_kept):
    """What is usual at the build was not known before: a grade by it is made anew at each moment."""
    found = models.with_satisfaction(models.collect(), name)
    assert (models.IN_FORCE in moment.lasting(found)) == is_kept


def test_a_satisfaction_function_that_is_not_in_force_changes_nothing():
    own = models.Model("sat_own", "satisfaction", "select * from stg_behaviour", "/project/sql")
    assert moment.lasting({**SHIPPED, "sat_own": own}) == moment.lasting(SHIPPED)
