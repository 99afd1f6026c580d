"""The solve of the loop against a dense solve written from the formulas, and the invariants of the weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec_udf.posterior import noise, posterior, probability_best, step, with_floor


def made_up(groups=3, periods=5, strategies=4, seed=0):
    rng = np.random.default_rng(seed)
    s1 = rng.uniform(50, 500, (groups, periods, strategies))
    s2 = s1 * rng.uniform(2, 20, s1.shape)
    m = rng.normal(0, 0.05, s1.shape)
    return np.stack([s1, s2, m * s1, m * s2, s2 * (m**2 + 0.04)], axis=-1)


def dense(statistics, mean_reward, gamma, tau_common, tau_group):
    """Formulas (8) to (11) as one (S + G S) system."""
    groups, periods, count, _ = statistics.shape
    s1, s2, sy, s2y, s2yy = np.moveaxis(statistics, -1, 0)
    m, n = sy / s1, s1**2 / s2
    sigma2 = (s2yy - 2 * m * s2y + m**2 * s2).sum((1, 2)) / s2.sum((1, 2))
    size = count * (1 + groups)
    precision, right = np.zeros((size, size)), np.zeros(size)
    precision[:count, :count] = np.eye(count) / (tau_common * mean_reward) ** 2
    for g in range(groups):
        block, target = np.zeros((count, count)), np.zeros(count)
        for t in range(periods):
            p = n[g, t] * gamma ** (periods - 1 - t) / sigma2[g]
            block += np.diag(p) - np.outer(p, p) / p.sum()
            target += p * m[g, t] - p * (p @ m[g, t]) / p.sum()
        own = slice(count * (g + 1), count * (g + 2))
        precision[:count, :count] += block
        precision[:count, own] += block
        precision[own, :count] += block
        precision[own, own] += block + np.eye(count) / (tau_group * mean_reward) ** 2
        right[:count] += target
        right[own] += target
    covariance = np.linalg.inv(precision)
    solution = covariance @ right
    means, covariances = [], []
    for g in range(groups):
        pick = np.zeros((count, size))
        pick[:, :count] = np.eye(count)
        pick[:, count * (g + 1) : count * (g + 2)] = np.eye(count)
        means.append(pick @ solution)
        covariances.append(pick @ covariance @ pick.T)
    return np.array(means), np.array(covariances)


def test_elimination_equals_the_dense_solve():
    statistics = made_up()
    found = posterior(statistics, mean_reward=0.1, gamma=0.8, tau_common=0.5, tau_group=0.4)
    means, covariances = dense(statistics, 0.1, 0.8, 0.5, 0.4)
    np.testing.assert_allclose(found.means, means, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.covariances, covariances, rtol=1e-9, atol=1e-15)


def test_a_period_that_is_better_for_everyone_changes_nothing():
    statistics = made_up()
    shifted = statistics.copy()
    shift = 0.3
    s1, s2, sy, s2y, s2yy = (shifted[:, 2, :, n].copy() for n in range(5))
    shifted[:, 2, :, 2] = sy + shift * s1
    shifted[:, 2, :, 3] = s2y + shift * s2
    shifted[:, 2, :, 4] = s2yy + 2 * shift * s2y + shift**2 * s2
    before, after = (posterior(x, mean_reward=0.1).means for x in (statistics, shifted))
    np.testing.assert_allclose(before, after, atol=1e-10)


def test_nothing_shown_gives_the_prior():
    found = posterior(np.zeros((2, 3, 4, 5)), mean_reward=0.1)
    np.testing.assert_allclose(found.means, 0.0)
    np.testing.assert_allclose(probability_best(found.new_mean, found.new_covariance), 0.25, atol=0.03)


def test_a_group_without_reward_borrows_the_noise():
    statistics = made_up()
    statistics[1, :, :, 2:] = 0.0
    assert noise(statistics)[1] == pytest.approx(np.mean(noise(statistics)), rel=1.0)
    assert np.isfinite(posterior(statistics, mean_reward=0.1).means).all()


def test_old_periods_count_less():
    statistics = made_up(groups=1, periods=2)
    statistics[0, 0, 0, 2] += 0.5 * statistics[0, 0, 0, 0]
    flipped = statistics[:, ::-1]
    old, new = (posterior(x, mean_reward=0.1, gamma=0.3).means[0, 0] for x in (statistics, flipped))
    assert old < new


@settings(max_examples=60, deadline=None)
@given(
    current=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=9),
    target_seed=st.integers(0, 1000),
    max_kl=st.floats(0.01, 2.0),
)
def test_a_step_keeps_the_floor_the_sum_and_the_budget(current, target_seed, max_kl):
    floor = 0.005
    count = len(current)
    start = with_floor(np.array(current), floor)
    target = with_floor(np.random.default_rng(target_seed).dirichlet(np.full(count, 0.1)), floor)
    weights = step(start, target, max_kl=max_kl)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= floor - 1e-12
    assert float(np.sum(weights * np.log(weights / start))) <= max_kl + 1e-9


def test_probability_best_is_repeatable_and_finds_the_best():
    mean, covariance = np.array([0.0, 0.1, 0.5]), np.eye(3) * 0.001
    first = probability_best(mean, covariance, seed=3)
    np.testing.assert_array_equal(first, probability_best(mean, covariance, seed=3))
    assert first[2] == 1.0
