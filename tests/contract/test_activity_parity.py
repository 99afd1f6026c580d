"""sql/features is the definition; what a build computes from the log in memory equals it at every moment."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from m6rec_udf import activity, models, moment
from m6rec_udf.activity import Activity
from m6rec_udf.event_log import Log, read_log

FEATURES = {"feat_item_activity", "feat_item_transitions", "feat_segment_item", "feat_user_item"}


@pytest.fixture(params=[0, 30, 90], ids=lambda days: f"{days} days before")
def at(request, world):
    """(cursor with the SQL models run at a moment, activity from the log of everything, catalogue, users)."""
    con = world.con.cursor()
    found = models.with_satisfaction(models.collect(), "graded")
    staging = {name for name, model in found.items() if model.layer == "staging"}
    moment.run_models(con, found, world.bound, wanted=staging)
    log, items = read_log(con), moment.catalogue(con)
    when = world.as_of - timedelta(days=request.param)
    bound = moment.parameters(con, when, world.bound["positive_at"])
    moment.run_models(con, found, bound, wanted=FEATURES, keep=moment.lasting(found))
    yield con, Activity(log, moment.seconds(when), bound["span_days"], len(items["item_ids"])), items, log
    con.close()


def columns(con, sql: str) -> dict[str, np.ndarray]:
    found = con.execute(sql).fetchnumpy()
    return {name: np.ma.filled(np.ma.asarray(column, np.float64), np.nan) for name, column in found.items()}


def test_activity_of_items(at):
    con, found, items, _ = at
    wanted = columns(con, f"select {', '.join(activity.ACTIVITY_COLUMNS)} from feat_item_activity order by item_idx")
    got = found.items(items["created_at"]) | {"price": items["price"]}
    assert (wanted["repurchase_days"] > 0).any() or (wanted["events"] > 1).any()
    for name in activity.ACTIVITY_COLUMNS:
        np.testing.assert_allclose(got[name].astype(float), wanted[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_pairs(at):
    con, found, _, log = at
    sql = "select user_idx, item_idx, epoch(last_at) as last_at, last_days, interest from feat_user_item "
    wanted = columns(con, f"{sql} where interest > 0 order by all")
    got = found.pairs()
    last_at = log.happened_at[got.place]
    for name, column in (("user_idx", got.user), ("item_idx", got.item), ("last_at", last_at)):
        np.testing.assert_array_equal(column, wanted[name], err_msg=name)
    assert found.n != 80 or len(set(wanted["interest"])) > 1  # in the shop: views, ratings, purchases
    np.testing.assert_allclose(got.interest, wanted["interest"], rtol=1e-6)
    last_days = (np.floor(found.as_of) - np.floor(last_at)) / activity.DAY
    np.testing.assert_allclose(last_days, wanted["last_days"], atol=1e-9)


@pytest.mark.parametrize("longest", [None, 3])
def test_transitions(at, longest, monkeypatch):
    con, found, _, log = at
    model = models.collect()["feat_item_transitions"]
    if longest:
        monkeypatch.setattr(activity, "LEAST_POSITIONS", longest)
        monkeypatch.setattr(activity, "POSITIONS", 1.0)
        short = models.Model(model.name, model.layer, model.sql.replace("5.0, 2500000.0", "3.0, 1.0"), "shipped")
        models.run(con, short, {"span_days": found.span_days}, temporary=True)
    wanted = columns(con, "from feat_item_transitions order by item_idx, next_item_idx")
    got = activity.transitions_table(found.transitions(found.pairs(), log.users))
    assert len(wanted["weight"]) > 50
    for name in ("item_idx", "next_item_idx", "neighbour_rank"):
        np.testing.assert_array_equal(got[name].to_numpy(), wanted[name], err_msg=name)
    np.testing.assert_allclose(got["weight"].to_numpy(), wanted["weight"], rtol=1e-9)


def test_segment_trends(at):
    con, found, _, log = at
    names, code = np.unique(log.segment.astype(str), return_inverse=True)
    trend = found.segment_trend(np.where(names[code] == "*", -1, code), len(names)).tocoo()
    got = {(str(names[s]), int(i)): t for s, i, t in zip(trend.row, trend.col, trend.data, strict=True)}
    wanted = {(s, i): t for s, i, t in con.execute("select segment, item_idx, trend from feat_segment_item").fetchall()}
    assert len(wanted) > 20
    assert got == pytest.approx(wanted, rel=1e-9)


def test_nothing_has_happened(world):
    nothing = np.zeros(0, np.int32)
    grades = np.zeros(0, np.float32)
    log = Log(nothing, nothing, grades, grades, np.zeros(0), np.asarray(["*"], object), np.zeros(0, bool))
    found = Activity(log, 0.0, 1.0, 3)
    items = found.items(np.asarray([np.nan, -86400.0, 86400.0]))
    assert items["events"].tolist() == items["users"].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(items["age_days"], [np.nan, 1.0, np.nan])
    assert found.transitions(found.pairs(), 1).nnz == found.segment_trend(np.zeros(1, int), 1).nnz == 0
