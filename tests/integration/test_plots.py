"""Charts hold the rows they show."""

from __future__ import annotations

from datetime import timedelta

import pytest
import shop_world
from shop_world import rows

import m6rec_udf as m6
from m6rec_udf.errors import MissingExtraError, ParameterError, UnknownNameError

altair = pytest.importorskip("altair", reason="needs the extra plots")
from m6rec_udf import plots  # noqa: E402

AS_OF = shop_world.START + timedelta(days=150)


@pytest.fixture(scope="module")
def drawn(shop_frames):
    con = shop_world.connect(":memory:")
    m6.load(con, **shop_frames)
    m6.build(con, as_of=AS_OF)
    con.execute("create table mine as from m6.recommend_many('m6.known_users', until := $at)", {"at": AS_OF})
    yield con
    con.close()


def layers(chart):
    """The rows of every layer."""
    spec = chart.to_dict()
    assert chart.to_json()
    return [part["data"]["values"] for part in spec.get("layer", [spec]) if "data" in part] or [spec["data"]["values"]]


def test_reliability(drawn):
    m6.calibration(drawn, as_of=AS_OF, version=1).fetchall()
    found = layers(plots.reliability_curve(drawn, bins=5))[-1]
    expected = rows(drawn, "select bin, n, predicted, observed from m6.calibration(bins := 5) where group_kind = 'all'")
    assert [tuple(row.values()) for row in found] == expected


def test_weights_over_time(drawn):
    found = layers(plots.weights_over_time(drawn))[-1]
    expected = dict(rows(drawn, "select strategy, weight from m6.strategy_weights_active where domain = '*'"))
    assert {row["strategy"]: row["weight"] for row in found} == expected


def test_metric_by_segment(drawn):
    found = layers(plots.metric_by_segment(drawn, "mine", AS_OF, metric="recall"))[-1]
    assert {row["group_name"] for row in found} == {"new", "loyal"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in found)


def test_score_distribution(drawn):
    found = layers(plots.score_distribution(drawn, "mine", bins=8))[-1]
    assert sum(row["n"] for row in found) == rows(drawn, "select count(*) from mine")[0][0]
    assert len(found) <= 8


def test_catalogue_map(drawn):
    found = layers(plots.catalogue_map(drawn))[-1]
    assert {row["item_id"] for row in found} == set(shop_world.ITEMS)
    assert {row["color"] for row in found} == set(shop_world.CATEGORIES)
    assert len(layers(plots.catalogue_map(drawn, most=10))[-1]) == 10
    titles = {row["color"] for row in layers(plots.catalogue_map(drawn, color="title"))[-1]}
    assert len(titles) == plots.MOST_COLOURS + 1
    assert "other" in titles


def test_coverage_curve(drawn):
    found = layers(plots.coverage_curve(drawn, "mine"))[-1]
    values = [row["coverage"] for row in found]
    assert values == sorted(values)
    assert values[-1] == rows(drawn, "select count(distinct item_id) / 80 from mine")[0][0]


def test_feature_importance(drawn):
    found = layers(plots.feature_importance(drawn, most=5))[-1]
    assert len({row["feature"] for row in found}) == 5


def test_policy_value(shop):
    shop.execute("insert into m6.impressions by name from m6.serve_many('audience', k := 5, seed := 1)")
    shop.execute(
        "insert into m6.feedback (impression_id, event_type, happened_at) "
        "select impression_id, 'click', shown_at from m6.impressions where rank = 1"
    )
    found = layers(plots.policy_value(shop, [1]))[-1]
    assert {row["policy"] for row in found} == {"1"}
    assert {"estimator", "value", "low", "high"} <= set(found[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda con: plots.reliability_curve(con, "no_such_table"),
        lambda con: plots.weights_over_time(con, segment="nobody"),
        lambda con: plots.metric_by_segment(con, "mine", AS_OF, metric="luck"),
        lambda con: plots.feature_importance(con, 99),
        lambda con: plots.policy_value(con, []),
        lambda con: plots.coverage_curve(con, "no_such_table"),
    ],
)
def test_nothing_to_draw_is_said(drawn, draw):
    with pytest.raises(ParameterError, match=r"(?s)expected .*Hint: |expected some"):
        draw(drawn)


def test_a_column_that_is_none_is_refused(drawn):
    with pytest.raises(UnknownNameError, match="no column 'shape', expected one of item_id"):
        plots.catalogue_map(drawn, color="shape")


def test_without_the_library_the_extra_is_named(drawn, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "altair", None)
    with pytest.raises(MissingExtraError, match=r"Hint: pip install 'm6rec\[plots\]'"):
        plots.coverage_curve(drawn, "mine")
