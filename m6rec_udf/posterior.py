"""The small solve of the feedback loop: hierarchical posterior of the strategies, target weights, step.

Formulas (9) to (14) of the loop: a strategy's advantage in a group is normal around a common advantage;
every period of a group has its own free level, because the baseline of an advantage moves when the
weights move. Target weights are the probabilities of being the best strategy (Thompson sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """Normal posterior of the advantage of each strategy.

    Attributes:
        means: [groups, strategies], in units of reward.
        covariances: [groups, strategies, strategies].
        new_mean: [strategies], for a group without data.
        new_covariance: [strategies, strategies].
    """

    means: Array
    covariances: Array
    new_mean: Array
    new_covariance: Array


def noise(statistics: Array) -> Array:
    """Residual variance of one impression per group (8), [groups].

    Args:
        statistics: [groups, periods, strategies, 5] with S1, S2, Sy, S2y, S2yy; zeros where nothing was shown.
    """
    s1, s2, sy, s2y, s2yy = np.moveaxis(statistics, -1, 0)
    mean = np.divide(sy, s1, out=np.zeros_like(sy), where=s1 > 0)
    residual = s2yy - 2 * mean * s2y + mean**2 * s2

    def ratio(top: Array, bottom: Array) -> Array:
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)

    overall = ratio(np.atleast_1d(residual.sum()), np.atleast_1d(s2.sum()))[0]
    per_group = ratio(residual.sum(axis=(1, 2)), s2.sum(axis=(1, 2)))
    # a group that never saw a reward looks noise-free: it borrows the noise of all
    return np.where(per_group > 1e-3 * overall, per_group, max(overall, 1e-12))


def posterior(
    statistics: Array, *, mean_reward: float, gamma: float = 0.9, tau_common: float = 0.8, tau_group: float = 0.6
) -> Posterior:
    """Posterior of the strategies' advantages (9) to (11), by elimination of one group at a time.

    Args:
        statistics: [groups, periods, strategies, 5], oldest period first.
        mean_reward: mean reward per impression; the unit of the two taus.
        gamma: discount per period.
        tau_common: prior standard deviation of a strategy's common advantage.
        tau_group: prior standard deviation of a group's deviation from it.
    """
    groups, periods, strategies, _ = statistics.shape
    s1, s2, sy = statistics[..., 0], statistics[..., 1], statistics[..., 2]
    mean = np.divide(sy, s1, out=np.zeros_like(sy), where=s1 > 0)
    count = np.divide(s1**2, s2, out=np.zeros_like(s1), where=s2 > 0)
    discount = gamma ** np.arange(periods - 1, -1, -1.0)
    weight = count * discount[None, :, None] / noise(statistics)[:, None, None]
    identity = np.eye(strategies)
    common, spread = (tau_common * mean_reward) ** 2, (tau_group * mean_reward) ** 2
    precision, right = identity / common, np.zeros(strategies)
    inverses, shrinks, rights = [], [], []
    for g in range(groups):
        block, target = np.zeros((strategies, strategies)), np.zeros(strategies)
        for p, m in zip(weight[g], mean[g], strict=True):
            total = p.sum()
            if total > 0:  # the level of the period is projected out
                block += np.diag(p) - np.outer(p, p) / total
                target += p * m - p * (p @ m) / total
        inverse = np.linalg.inv(block + identity / spread)
        shrink = inverse @ block
        precision = precision + block - block @ shrink
        right = right + target - block @ (inverse @ target)
        inverses.append(inverse)
        shrinks.append(shrink)
        rights.append(inverse @ target)
    covariance = np.linalg.inv(precision)
    alpha = covariance @ right
    means = np.empty((groups, strategies))
    covariances = np.empty((groups, strategies, strategies))
    for g in range(groups):
        keep = identity - shrinks[g]
        means[g] = keep @ alpha + rights[g]
        covariances[g] = keep @ covariance @ keep.T + inverses[g]
    return Posterior(means, covariances, alpha, covariance + identity * spread)


def probability_best(mean: Array, covariance: Array, *, draws: int = 4096, seed: int = 0) -> Array:
    """Probability of each strategy to be the best one (12), [strategies]; fixed draws for a fixed seed."""
    standard = np.random.default_rng(seed).standard_normal((draws, len(mean)))
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    samples = mean + standard @ root.T
    shares: Array = np.bincount(samples.argmax(axis=1), minlength=len(mean)) / draws
    return shares


def with_floor(weights: Array, floor: float) -> Array:
    """Mixture of ``weights`` with the floor (13): no strategy falls below ``floor``, the sum is 1."""
    floor = min(floor, 1.0 / len(weights))
    mixed: Array = (1 - len(weights) * floor) * weights / weights.sum() + floor
    return mixed


def step(current: Array, target: Array, *, max_kl: float = 2.0) -> Array:
    """Largest geometric step from ``current`` to ``target`` within ``max_kl`` nats of ``current`` (14)."""
    log_current, log_target = np.log(current), np.log(target)

    def at(beta: float) -> tuple[Array, float]:
        logits = (1 - beta) * log_current + beta * log_target
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        return weights, float(np.sum(weights * (np.log(weights) - log_current)))

    weights, divergence = at(1.0)
    if divergence <= max_kl:
        return weights
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] <= max_kl else (low, middle)
    return at(low)[0]
