"""What a build learns about baskets, against its definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from m6rec_udf import basket_learning as learning
from m6rec_udf import baskets
from m6rec_udf.event_log import Log
from m6rec_udf.history import Behaviour


def log_of(rows: list[tuple[int, float, int, bool]]) -> Log:
    """(user, moment, item, is success), in the order of a log."""
    user, moment, item, good = (np.asarray(column) for column in zip(*sorted(rows), strict=True))
    satisfaction = np.where(good, 1.0, 0.2).astype(np.float32)
    segment = np.full(int(user.max()) + 1, "*", object)
    return Log(user, item, np.ones(len(user), np.float32), satisfaction, moment.astype(float), segment, good)


def test_a_basket_is_what_one_user_took_at_one_moment():
    log = log_of(
        [
            *[(0, 1.0, item, True) for item in (2, 0, 2)],  # twice the same is once
            (0, 1.0, 3, False),  # looked at
            (1, 1.0, 1, True),  # alone, another user
            (1, 2.0, 1, True),
            (1, 2.0, 3, True),
            (0, 3.0, 0, True),
            (0, 3.0, 1, True),  # later than asked for
        ]
    )
    found, share = learning.find(log, -np.inf, 2.5, 4)
    assert found.user.tolist() == [0, 1]
    assert found.moment.tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(found.x.toarray(), [[1, 0, 1, 0], [0, 1, 0, 1]])
    assert share == pytest.approx(4 / 5)
    later, _ = learning.find(log, 2.5, 3.0, 4)
    np.testing.assert_array_equal(later.x.toarray(), [[1, 1, 0, 0]])


def test_weights_are_the_closed_form_of_decayed_baskets():
    rng = np.random.default_rng(0)
    x = sp.csr_matrix((rng.random((300, 12)) < 0.3).astype(np.float32))
    moment = np.sort(rng.uniform(0, 100 * 86400.0, 300))
    got = learning.weights_of(
        learning.Baskets(np.zeros(300, int), moment, x), until=moment[-1], span_days=100.0, regularisation=5.0
    ).toarray()
    count = 0.5 ** ((moment[-1] - moment) / 86400.0 / 25.0)
    p = np.linalg.inv(x.T @ (x.toarray() * count[:, None]) + 5.0 * np.eye(12))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(got, np.where(expected > 1e-6, expected, 0), atol=1e-4)


def test_questions_hide_one_known_item_of_each_basket():
    x = sp.csr_matrix(np.asarray([[1, 1, 1, 0], [1, 0, 0, 1], [0, 1, 1, 1]], np.float32))
    found = learning.Baskets(np.arange(3), np.arange(3.0), x)
    asked = learning.questions_of(found, np.asarray([True, True, True, False]), seed=0)
    assert asked.user.tolist() == [0, 2]  # of the second basket one known item is left
    whole = asked.given.toarray()
    whole[np.arange(2), asked.target] += 1
    np.testing.assert_array_equal(whole, [[1, 1, 1, 0], [0, 1, 1, 0]])


def test_the_mix_finds_what_the_choices_followed():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 8, 2))
    chosen = (x @ [1.5, -0.7] + rng.gumbel(size=(4000, 8))).argmax(axis=1)
    x[np.arange(4000), 0], x[np.arange(4000), chosen] = x[np.arange(4000), chosen], x[np.arange(4000), 0].copy()
    weights = learning._softmax_regression(x.reshape(-1, 2), np.arange(4000) * 8)
    np.testing.assert_allclose(weights, [1.5, -0.7], atol=0.1)


def test_times_and_days_count_moments_of_success():
    at = np.asarray([1.0, 1.0, 3.0, 2.0, 2.0]) * 86400
    items, satisfaction = np.asarray([5, 5, 5, 1, 2]), np.asarray([1, 1, 1, 1, 0.2])
    behaviour = Behaviour(2, np.asarray([0, 0, 0, 1, 1]), items, np.ones(5), satisfaction, at, np.zeros(2, int))
    taken = baskets.Taken.of(behaviour, np.asarray([10.0, 10.0]) * 86400, 0.75)
    assert (taken.row.tolist(), taken.item.tolist(), taken.times.tolist()) == ([0, 1], [5, 1], [2, 1])
    np.testing.assert_allclose(taken.days_since, [7, 8])


def test_equal_values_go_by_item_and_the_best_come_first():
    value = np.asarray([0.1, 0.3, 0.3, 0.0, 0.2])
    open_ = np.asarray([True, True, True, True, False])
    assert baskets.best(value, open_, 3).tolist() == [1, 2, 0]
    assert baskets.best(value, open_, 10).tolist() == [1, 2, 0, 3]
    assert baskets.best(value, open_, 0).tolist() == []
    assert baskets.best(-value, open_, 2).tolist() == [3, 0]
    assert baskets.best(value, np.zeros(5, bool), 2).tolist() == []
