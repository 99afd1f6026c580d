"""Metrics as SQL over lists and held-out events, and two builds compared on the same users."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import lightgbm
import numpy as np
import pytest
import shop_world
from shop_world import rows

import m6rec_udf as m6
from m6rec_udf.arrays import of_version
from m6rec_udf.comparisons import randomization_test
from m6rec_udf.ranking import FEATURES
from m6rec_udf.registry import context_of

AS_OF = shop_world.START + timedelta(days=150)


@pytest.fixture(scope="module")
def two(shop_frames):
    """The shop with two builds of an earlier moment: another seed, and behaviour of 30 days less."""
    con = shop_world.connect(":memory:")
    m6.load(con, **shop_frames)
    m6.build(con, as_of=AS_OF)
    m6.build(con, as_of=AS_OF - timedelta(days=30), activate=False)
    yield con
    con.close()


@pytest.fixture(scope="module")
def evaluated(two):
    """eval_lists, eval_user_metrics and eval_list_metrics of a baseline, and its lists as a table."""
    m6.evaluate(
        two,
        as_of=AS_OF,
        methods=["popular"],
        recommender=lambda *_: two.sql("select '' as user_id, '' as item_id, 1 as rank where false"),
    )
    two.execute(
        "create or replace table popular_lists as select user_id, item_id, rank from eval_lists where "
        "method = 'popular'"
    )
    return two


def test_metrics_of_users_are_those_of_evaluate(evaluated):
    names = 'user_id, ndcg, recall, "precision", map, mrr, hit_rate, novelty'
    expected = rows(evaluated, f"select {names} from eval_user_metrics where method = 'popular' order by 1")
    found = rows(
        evaluated,
        f"select {names} from m6.user_metrics('popular_lists', ?) where group_kind = 'all' order by 1",
        [AS_OF],
    )
    assert len(expected) > 20
    assert found == expected


def test_coverage_and_gini_are_those_of_evaluate(evaluated):
    expected = rows(
        evaluated, "select coverage, gini from eval_list_metrics where method = 'popular' and slice = 'all'"
    )[0]
    found = dict(
        rows(
            evaluated,
            "select metric, value from m6.catalogue_metrics('popular_lists', ?) where group_kind = 'all'",
            [AS_OF],
        )
    )
    assert (found["coverage"], found["gini"]) == pytest.approx(expected)


def test_how_personal_lists_are_is_one_less_the_mean_overlap_of_pairs(two):
    two.execute(
        "create or replace table three as select * from (values ('u01','i00',1), ('u01','i01',2), "
        "('u02','i00',1), ('u02','i02',2), ('u03','i03',1), ('u03','i04',2)) as t(user_id, item_id, rank)"
    )
    found = dict(
        rows(two, "select metric, value from m6.catalogue_metrics('three', ?) where group_kind = 'all'", [AS_OF])
    )
    assert found["personalization"] == pytest.approx(1 - (1 / 2 + 0 + 0) / 3)


def test_a_group_of_items_keeps_its_own_items_in_lists_and_targets(two):
    wanted = rows(
        two,
        "select h.user_id, h.item_id from m6.held_out(?) h join m6.items i using (item_id) where "
        "i.domain = 'books' order by 1, 2",
        [AS_OF],
    )
    user, item = wanted[0]
    two.execute(
        "create or replace table one as select * from (values (?, 'i00', 1), (?, 'i01', 2), (?, ?, 3)) "
        "as t(user_id, item_id, rank)",
        [user, user, user, item],
    )
    found = {
        kind + name: mrr
        for kind, name, mrr in rows(
            two, "select group_kind, group_name, mrr from m6.user_metrics('one', ?) where user_id = ?", [AS_OF, user]
        )
    }
    assert found["domainbooks"] == 1.0
    assert found["all*"] in (1 / 3, 1 / 2, 1.0)
    warm = rows(two, "select count(*) >= 5 from m6.events where item_id = ? and happened_at <= ?", [item, AS_OF])[0][0]
    assert f"item{'warm' if warm else 'cold'}" in found


def test_diversity_is_one_less_the_mean_cosine_of_pairs(two):
    two.execute(
        "create or replace table pair as select * from (values ('u00', 'i00', 1), ('u00', 'i41', 2)) as "
        "t(user_id, item_id, rank)"
    )
    user = rows(two, "select user_id from m6.held_out(?) order by 1", [AS_OF])[0][0]
    two.execute("update pair set user_id = ?", [user])
    a, b = (
        np.array(rows(two, "select vector from m6.item_vectors where item_id = ?", [item])[0][0])
        for item in ("i00", "i41")
    )
    found = rows(
        two, "select diversity from m6.user_metrics('pair', ?) where group_kind = 'all' and user_id = ?", [AS_OF, user]
    )
    assert found[0][0] == pytest.approx(1 - a @ b, abs=1e-5)


def test_means_over_users_have_intervals_and_every_group(evaluated):
    found = rows(
        evaluated, "select group_kind, metric, value, low, high from m6.list_metrics('popular_lists', ?)", [AS_OF]
    )
    assert {kind for kind, *_ in found} == {"all", "domain", "item", "user", "segment"}
    metrics = {metric for kind, metric, *_ in found if kind == "all"}
    assert metrics == {
        "ndcg",
        "recall",
        "precision",
        "map",
        "mrr",
        "hit_rate",
        "novelty",
        "diversity",
        "coverage",
        "gini",
        "personalization",
    }
    assert all(low <= value <= high for _, _, value, low, high in found if low is not None)


def test_metrics_of_predictions(two):
    rng = np.random.default_rng(0)
    z, y = rng.uniform(0.05, 0.95, 200).round(2), rng.integers(0, 2, 200).astype(float)
    two.execute(
        "create or replace table predicted as select cast(n as varchar) as user_id, 'i00' as item_id, "
        "'books' as domain, '*' as segment, z as satisfaction, y as outcome from (select "
        "unnest(range(200)) as n, unnest($1::double[]) as z, unnest($2::double[]) as y)",
        [z.tolist(), y.tolist()],
    )
    found = {
        metric: value
        for kind, metric, value in rows(two, "select group_kind, metric, value from m6.prediction_metrics('predicted')")
        if kind == "all"
    }
    wins = (z[y == 1][:, None] > z[y == 0]) + 0.5 * (z[y == 1][:, None] == z[y == 0])
    assert found["auc"] == pytest.approx(wins.mean(), abs=1e-9)
    assert found["log_loss"] == pytest.approx(-np.mean(y * np.log(z) + (1 - y) * np.log(1 - z)), abs=1e-9)
    assert found["brier"] == pytest.approx(np.mean((y - z) ** 2), abs=1e-9)
    assert 0 < found["calibration_error"] < 1


def test_two_builds_are_compared_on_the_same_users(two):
    found = {
        (kind, metric): rest
        for kind, metric, *rest in rows(
            two,
            "select group_kind, metric, a, b, difference, low, high, p_value, n, verdict from "
            "m6.compare_versions(1, 2) where group_kind = 'all'",
        )
    }
    two.execute("create or replace table wanting as select distinct user_id from m6.held_out(?)", [AS_OF])
    values = {}
    for version in (1, 2):
        two.execute(
            f"create or replace table lists_{version} as from m6.recommend_many('wanting', exclude_seen "
            f":= true, until := ?, version := {version})",
            [AS_OF],
        )
        values[version] = np.array(
            rows(
                two,
                f"select ndcg from m6.user_metrics('lists_{version}', ?) where group_kind = 'all' order by user_id",
                [AS_OF],
            )
        )[:, 0]
    a, b, difference, low, high, p_value, n, _ = found["all", "ndcg"]
    assert (a, b, n) == (pytest.approx(values[1].mean()), pytest.approx(values[2].mean()), len(values[1]))
    assert difference == pytest.approx((values[2] - values[1]).mean())
    assert low < difference < high
    assert 0 < p_value <= 1
    assert found["all", "coverage"][-1] == "not tested"


def test_a_build_does_not_differ_from_itself(two):
    found = rows(
        two,
        "select difference, low, high, p_value, verdict from m6.compare_versions(1, 'version_1') where "
        "p_value is not null",
    )
    assert found
    assert set(found) == {(0.0, 0.0, 0.0, 1.0, "no difference shown")}


def test_comparing_twice_gives_the_same_figures(two):
    def figures():  # sums of several threads differ in the last bits
        found = rows(two, "from m6.compare_versions(1, 2, max_users := 20)")
        return sorted(tuple(round(v, 9) if isinstance(v, float) else v for v in row) for row in found)

    assert figures() == figures()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("from m6.compare_versions(1, 77)", "there is no build 77, expected one of version_1"),
        ("from m6.recommend_diff('u00', 1, 77)", "there is no build 77, expected one of version_1"),
        ("from m6.compare_versions(1, 2, after := timestamp '2024-01-01')", "expected no earlier than"),
        ("from m6.compare_versions(1, 2, after := timestamp '2030-01-01')", "nobody liked an item new to them"),
    ],
)
def test_what_cannot_be_compared_is_said(two, sql, message):
    with pytest.raises(duckdb.Error, match=f"(?s){message}.*Hint: "):
        rows(two, sql)


def test_lists_of_one_user_side_by_side(two):
    found = rows(two, "select item_id, rank_a, rank_b, status, moved from m6.recommend_diff('u05', 1, 2)")
    for version, at in ((1, 1), (2, 2)):
        expected = rows(two, f"select item_id, rank from m6.recommend('u05', version := {version})")
        assert {(row[0], row[at]) for row in found if row[at]} == set(expected)
    for _, a, b, status, moved in found:
        assert status == (
            "only in b" if a is None else "only in a" if b is None else "up" if b < a else "down" if b > a else "same"
        )
        assert moved == (None if a is None or b is None else a - b)
    assert set(rows(two, "select status from m6.recommend_diff('nobody', 1, 1)")) == {("same",)}


def test_the_training_curve_is_what_the_model_keeps(two):
    for version in (1, 2):
        model = of_version(context_of(two), version).model
        for name, part in model.parts.items():
            found = rows(
                two,
                "select trees, cross_entropy from m6.training_curve where model_version = ? and part = ? "
                "order by trees",
                [version, name],
            )
            assert found == list(enumerate(getattr(part, "curve", []), 1))
    assert rows(two, "select count(*) > 10 from m6.training_curve")[0][0]


def test_feature_importance_is_what_lightgbm_says(two):
    model = of_version(context_of(two), 1).model
    booster = model.new.booster()
    assert isinstance(booster, lightgbm.Booster)
    found = {
        feature: (splits, gain)
        for feature, splits, gain in rows(
            two, "select feature, splits, gain from m6.feature_importance where model_version = 1 and part = 'new'"
        )
    }
    splits, gains = booster.feature_importance("split"), booster.feature_importance("gain")
    assert {name: n for name, n in zip(FEATURES, splits.tolist(), strict=True) if n} == {
        name: n for name, (n, _) in found.items()
    }
    for name, gain in zip(FEATURES, gains.tolist(), strict=True):
        assert found.get(name, (0, 0.0))[1] == pytest.approx(gain, rel=1e-4)


def test_signs_drawn_at_random_find_a_difference_and_only_then():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 200)
    assert randomization_test(noise - noise.mean()) > 0.9
    assert randomization_test(noise + 0.5) < 0.01
    assert randomization_test(np.zeros(5)) == 1.0
    assert randomization_test(np.array([1.0])) == 1.0
