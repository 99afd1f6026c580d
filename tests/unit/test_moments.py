"""Which moments a build looks back from, and what it may keep between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m6rec_udf import models, moment, training
from m6rec_udf.moment import Log

SHIPPED = models.with_satisfaction(models.collect(), "graded")
GRADED = {"stg_actions", "stg_behaviour", "satisfaction_in_force"}


def log_of(events: int) -> Log:
    nothing = np.zeros(events, np.int64)
    return Log(
        *[nothing] * 4, np.arange(events, dtype=np.float64), np.asarray(["*"], object), np.zeros(events, bool)
    )


@pytest.mark.parametrize(("events", "windows"), [(40, 0), (1000, 6), (400_000, 4), (3_000_000, 2)])
def test_small_logs_look_back_more_often_than_large_ones(events, windows):
    found = training.cuts(log_of(events))
    assert len(found) == windows
    assert found == sorted(found, reverse=True)


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


def test_a_satisfaction_function_that_is_not_in_force_changes_nothing():
    own = models.Model("sat_own", "satisfaction", "select * from stg_behaviour", "/project/sql")
    assert moment.lasting({**SHIPPED, "sat_own": own}) == moment.lasting(SHIPPED)
