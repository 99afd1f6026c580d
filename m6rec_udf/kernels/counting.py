"""The loops of a build over behaviour: what comes after what (``activity``)."""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import FLOAT64, INT32, INT64, compiled, given, made, types

BLOCK = 1 << 16
FINE = 46  # bits of a number that its bin leaves out: 64 bins between a power of two and the next
LOWEST = 1022 << (52 - FINE)  # the bin of 0.5
BINS = 64 << (52 - FINE)  # up to 2 to the power 63


@compiled()
def _least(key, count, k, bins, front):
    """The k-th largest of more than k whole numbers from 0 on: bins by size, then the numbers of the best bins."""
    bins[:] = 0
    bits = key[:count].view(np.int64)
    for at in range(count):
        bins[min(max((bits[at] >> FINE) - LOWEST, 0), BINS - 1)] += 1
    lowest, above = BINS, 0
    while above < k:
        lowest -= 1
        above += bins[lowest]
    found = 0
    for at in range(count):
        front[found] = key[at]
        found += min(max((bits[at] >> FINE) - LOWEST, 0), BINS - 1) >= lowest
    return np.partition(front[:found], found - k)[found - k]


@compiled()
def _kept(weight, column, count, k, digits, key, bins, front, out):
    """The k largest of ``count`` weights after rounding, equal ones by the lower column; columns in ``out``, sorted."""
    if count <= k:
        out[:count] = column[:count]
        out[:count].sort()
        return count
    for at in range(count):
        key[at] = np.rint(weight[column[at]] * digits)
    least = _least(key, count, k, bins, front)
    found, ties = 0, 0
    for at in range(count):
        if key[at] > least:
            out[found] = column[at]
            found += 1
        elif key[at] == least:
            ties += 1
    tied = np.empty(ties, np.int32)
    ties = 0
    for at in range(count):
        if key[at] == least:
            tied[ties] = column[at]
            ties += 1
    tied.sort()
    out[found:k] = tied[: k - found]
    out[:k].sort()
    return k


@compiled(
    types.Tuple((made(INT64), made(INT32), made(FLOAT64)))(
        given(INT32), given(INT32), given(FLOAT64), given(FLOAT64), given(FLOAT64), INT64, FLOAT64, INT64, FLOAT64
    )
)
def steps(user, item, recency, own, following, distances, backwards, k, digits):
    """Rows of the k best next items of each item, as (indptr, indices, data) of CSR ``[n, n]``.

    Args:
        user, item: int32 ``[p]``, user by user, the latest first; no user has an item twice.
        recency: float64 ``[p]`` above 0, what a step to that place weighs.
        own, following: float64 ``[n]`` above 0, factors of the item and of the next one.
        distances: how many places a step spans at most; its weight is divided by the places.
        backwards: share that a step counts in the other direction.
        digits: weights are told apart after rounding to 1 / digits.
    """
    n = len(own)
    first = np.zeros(n + 1, np.int64)
    for at in range(len(item)):
        first[item[at] + 1] += 1
    for row in range(n):
        first[row + 1] += first[row]
    place, filled = np.empty(len(item), np.int32), first[:-1].copy()
    for at in range(len(item)):
        place[filled[item[at]]] = at
        filled[item[at]] += 1
    shares = 1.0 / np.arange(1, distances + 1)
    total, touched, best = np.zeros(n, np.float64), np.empty(n + 1, np.int32), np.empty(n, np.int32)
    key, front, bins = np.empty(n, np.float64), np.empty(n + 1, np.float64), np.empty(BINS, np.int64)
    indptr = np.zeros(n + 1, np.int64)
    indices, data = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.float64)
    stored = 0
    for row in range(n):
        count = 0
        for line in range(first[row], first[row + 1]):
            at = place[line]
            for distance in range(1, distances + 1):
                earlier = at + distance
                if earlier >= len(item) or user[earlier] != user[at]:
                    break
                touched[count] = item[earlier]
                count += total[item[earlier]] == 0  # whatever is added is above 0
                total[item[earlier]] += backwards * recency[at] * shares[distance - 1]
            for distance in range(1, distances + 1):
                later = at - distance
                if later < 0 or user[later] != user[at]:
                    break
                touched[count] = item[later]
                count += total[item[later]] == 0
                total[item[later]] += recency[later] * shares[distance - 1]
        for at in range(count):
            total[touched[at]] *= own[row] * following[touched[at]]
        kept = _kept(total, touched, count, k, digits, key, bins, front, best)
        if stored + kept > len(indices):
            more = np.empty(max(len(indices), kept), np.int32)
            indices, data = np.concatenate((indices, more)), np.concatenate((data, more.astype(np.float64)))
        for at in range(kept):
            indices[stored] = best[at]
            data[stored] = total[best[at]]
            stored += 1
        indptr[row + 1] = stored
        for at in range(count):
            total[touched[at]] = 0
    return indptr, indices[:stored].copy(), data[:stored].copy()
