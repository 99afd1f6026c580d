"""Trees as serving asks them: what LightGBM says, to the last bit."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from m6rec_udf.forest import Forest


def grown(seed, *, leaves=15, trees=20, missing=0.2, zero_as_missing=False, categories=()):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(3000, 6)).astype(np.float32)
    x[generator.random(x.shape) < missing] = np.nan
    x[generator.random(x.shape) < 0.2] = 0
    for column in categories:
        x[:, column] = generator.integers(0, 9, len(x))
    signal = np.nan_to_num(x[:, 0], nan=1.5) * (np.nan_to_num(x[:, 1], nan=-1) > 0) + np.isnan(x[:, 2])
    y = 1 / (1 + np.exp(-signal - generator.normal(size=len(x))))
    settings = {"objective": "cross_entropy", "num_leaves": leaves, "verbose": -1, "zero_as_missing": zero_as_missing}
    data = lightgbm.Dataset(x, y, categorical_feature=list(categories))
    return lightgbm.train(settings, data, num_boost_round=trees), x


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("leaves", [2, 15, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_sum_of_the_leaves_is_that_of_lightgbm(seed, leaves, missing):
    booster, x = grown(seed, leaves=leaves, missing=missing)
    x = np.concatenate([x, np.full((1, 6), np.nan, np.float32), np.zeros((1, 6), np.float32)])
    forest = Forest.of(booster.model_to_string())
    np.testing.assert_array_equal(forest.predict(x), booster.predict(x, raw_score=True))
    at = np.random.default_rng(seed).permutation(len(x))[:201]
    np.testing.assert_array_equal(forest.predict(x, at), booster.predict(x[at], raw_score=True))
    assert len(np.unique(forest.predict(x))) > 2


def test_a_value_at_the_threshold_goes_where_lightgbm_sends_it():
    booster, _ = grown(3)
    forest = Forest.of(booster.model_to_string())
    exact = [float(value) for value in forest.threshold]
    x = np.zeros((3 * len(exact), 6), np.float32)
    for node, value in enumerate(exact):
        own = np.float32(value)
        for step, near in enumerate((own, np.nextafter(own, np.float32(9)), np.nextafter(own, np.float32(-9)))):
            x[3 * node + step, forest.feature[node]] = near
    np.testing.assert_array_equal(forest.predict(x), booster.predict(x, raw_score=True))


def test_a_model_without_a_split_and_one_without_trees():
    booster = lightgbm.train(
        {"objective": "cross_entropy", "min_data_in_leaf": 10_000, "verbose": -1},
        lightgbm.Dataset(np.zeros((50, 2)), np.full(50, 0.3)),
        num_boost_round=2,
    )
    x = np.zeros((5, 2), np.float32)
    np.testing.assert_array_equal(Forest.of(booster.model_to_string()).predict(x), booster.predict(x, raw_score=True))
    assert Forest.of("").predict(x).tolist() == [0.0] * 5


@pytest.mark.parametrize("given", [{"leaves": 65, "trees": 3}, {"zero_as_missing": True}, {"categories": (3,)}])
def test_what_only_lightgbm_can_answer_is_left_to_it(given):
    booster, _ = grown(0, **given)
    assert Forest.of(booster.model_to_string()) is None
