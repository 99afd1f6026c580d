"""What trees add up to, many rows at once.

Lucchese et al. 2016, "Exploiting CPU SIMD extensions to speed-up document scoring with tree ensembles".
"""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import BOOL, FLOAT32, FLOAT64, INT64, UINT64, compiled, given, types

ROWS = 128  # at once: a column of them and their leaves stay in the processor's nearest cache
MOST_LEAVES = 64
ZERO = np.float32(1e-35)  # what LightGBM takes for 0
_DE_BRUIJN = np.uint64(0x022FDD63CC95386D)
_PLACE = np.zeros(64, np.int64)
for _bit in range(64):
    _PLACE[((1 << _bit) * int(_DE_BRUIJN) & (2**64 - 1)) >> 58] = _bit


@compiled(
    types.Array(FLOAT64, 1, "C")(
        given(FLOAT32, 2),
        given(INT64),
        given(INT64),
        given(INT64),
        given(FLOAT32),
        given(BOOL),
        given(UINT64),
        given(INT64),
        given(FLOAT64),
    )
)
def added_up(x, at, node_start, feature, threshold, is_nan_left, left_out, leaf_start, leaf_value):
    """Sum of the leaves that the rows ``at`` of ``x`` reach, float64; the arrays are those of ``forest.Forest``.

    Every node that sends a row to the right strikes out the leaves to its left; the first one left is reached.
    """
    out = np.zeros(len(at), np.float64)
    columns = np.empty((x.shape[1], ROWS), np.float32)
    left = np.empty(ROWS, np.uint64)
    everything, one = ~np.uint64(0), np.uint64(1)
    for begin in range(0, len(at), ROWS):
        rows = min(ROWS, len(at) - begin)
        for row in range(rows):
            for column in range(x.shape[1]):
                value = x[at[begin + row], column]
                columns[column, row] = np.float32(0) if abs(value) <= ZERO else value
        for tree in range(len(node_start) - 1):
            left[:] = everything
            for node in range(node_start[tree], node_start[tree + 1]):
                own, bound, kept = columns[feature[node]], threshold[node], left_out[node]
                if is_nan_left[node]:
                    for row in range(rows):
                        left[row] &= kept if own[row] > bound else everything
                else:
                    for row in range(rows):
                        left[row] &= everything if own[row] <= bound else kept
            first = leaf_start[tree]
            for row in range(rows):
                lowest = left[row] & (~left[row] + one)
                out[begin + row] += leaf_value[first + _PLACE[(lowest * _DE_BRUIJN) >> np.uint64(58)]]
    return out
