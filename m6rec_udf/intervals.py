"""Intervals of means over users, by resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def bootstrap(
    values: NDArray[np.float64], *, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval of the mean of every column (Efron and Tibshirani, 1993, chapter 13).

    All columns share the resampled users, so a column of differences gives the paired interval.

    Args:
        values: one row per user, one column per figure.
        seed: seed of the resampling.
        draws: number of resamples.
        level: coverage of the interval.

    Returns:
        Lower and upper ends, one per column.
    """
    import numpy as np

    n = len(values)
    rng = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    step = max(1, 2_000_000 // n)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picks = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n)
        means[start : start + size] = weights @ values / n
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high
