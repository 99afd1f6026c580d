"""The best of rows of scores, where products are rounded: a front with a margin, then its best."""

from __future__ import annotations

import numpy as np

FRONT_MARGIN = 1e-5  # of the largest score: wider than the rounding of a product
STRIPES = 64  # at most so many scores share the maximum that bounds the front from below


def fronts(
    scores: np.ndarray, wide: int, *, least: float = float(np.finfo(np.float32).tiny)
) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of the ``wide`` largest scores of each row and those that differ from them by rounding.

    Scores below ``least``, the smallest positive one, are left out.

    Where there are many, up to 64 scores share a part, and the ``wide``-th largest maximum of a part bounds the
    ``wide``-th largest score from below. In no order inside a row. A product of matrices and one of a
    matrix and a vector differ in the last bits: the front has a margin above that, and its scores are computed pair by
    pair. So one user alone and a batch get the same items.
    """
    users, n = scores.shape
    stripes = min(STRIPES, n // (6 * wide)) if wide > 0 else 0
    if not 0 < wide < n:
        row, column = np.nonzero(scores >= least)
        return row, column
    if stripes < 2:
        row, column = np.nonzero(scores >= _bound(scores, wide, least))
        return row, column
    parts = n // stripes
    striped = scores[:, : parts * stripes].reshape(users, stripes, parts)
    highest = striped.max(axis=1)
    from_ = _bound(highest, wide, least)
    row, part = np.nonzero(highest >= from_)
    at, stripe = np.nonzero(striped[row, :, part] >= from_[row])
    rest, last = np.nonzero(scores[:, parts * stripes :] >= from_)
    return np.concatenate([row[at], rest]), np.concatenate([stripe * parts + part[at], parts * stripes + last])


def _bound(scores: np.ndarray, wide: int, least: float) -> np.ndarray:
    """The ``wide``-th largest score of each row, less the rounding of a product; at least ``least``; ``[users, 1]``."""
    ordered = np.partition(scores, scores.shape[1] - wide, axis=1)[:, -wide:]
    largest = np.abs(ordered.max(axis=1))
    margin = FRONT_MARGIN * np.where(np.isfinite(largest), largest, 0.0)
    return np.asarray(np.maximum(least, ordered[:, 0] - margin))[:, None]


def best_of_rows(
    row: np.ndarray, item: np.ndarray, score: np.ndarray, users: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of the k best positive scores of each row, ties by item after rounding to 5 digits of the largest."""
    keep = score > 0
    row, item, value = row[keep].astype(np.int64), item[keep], score[keep].astype(np.float64)
    largest = np.zeros(users)
    np.maximum.at(largest, row, value)
    n, digits = int(item.max(initial=0)) + 1, 10**5
    behind = digits - np.rint(value / largest[row] * digits).astype(np.int64)
    key = np.sort((row * (digits + 1) + behind) * n + item)
    row = key // ((digits + 1) * n)
    first = np.searchsorted(row, np.arange(users))
    best = np.arange(len(key)) - first[row] < k
    return row[best], key[best] % n
