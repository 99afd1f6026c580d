"""Means of paired differences over users: interval and significance, as one SQL function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from m6rec_udf.registry import Context, Function

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 2000
CELLS = 4_000_000  # of signs drawn at once


def randomization_test(differences: NDArray[np.float64], *, seed: int = 0, draws: int = DRAWS) -> float:
    """Two-sided p-value of the mean of paired differences: signs drawn at random (Fisher; Smucker et al., CIKM 2007).

    Args:
        differences: one per user, ``[n]``; users without a difference change nothing.
    """
    import numpy as np

    apart = differences[differences != 0]
    if not len(apart):
        return 1.0
    rng = np.random.default_rng(seed)
    least = abs(apart.sum()) - 1e-12
    extreme, step = 0, max(1, CELLS // len(apart))
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, (min(step, draws - start), len(apart)), dtype=np.int8)
        extreme += int((np.abs((2.0 * signs - 1.0) @ apart) >= least).sum())
    return (extreme + 1) / (draws + 1)


def _make_resampled(_: Context) -> Callable[..., Any]:
    def m6_resampled(differences: Any, seed: Any) -> Any:
        """Mean, 95 % bootstrap interval and p-value of each list of one figure per user."""
        import numpy as np
        import pyarrow as pa

        from m6rec_udf.intervals import bootstrap

        out: list[dict[str, float] | None] = []
        for own, number in zip(differences.to_pylist(), seed.to_pylist(), strict=True):
            values = np.asarray(own or [], np.float64)
            if not len(values):
                out.append(None)
                continue
            low, high = bootstrap(values[:, None], seed=number)
            p_value = randomization_test(values, seed=number)
            out.append({"mean": values.mean(), "low": low[0], "high": high[0], "p_value": p_value})
        kinds = [(name, pa.float64()) for name in ("mean", "low", "high", "p_value")]
        return pa.array(out, pa.struct(kinds))

    return m6_resampled


RESAMPLED = Function(
    "m6_resampled",
    _make_resampled,
    ("DOUBLE[]", "BIGINT"),
    "STRUCT(mean DOUBLE, low DOUBLE, high DOUBLE, p_value DOUBLE)",
)
