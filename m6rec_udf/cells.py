"""Search by text above the size where an exact product costs more: items in cells, the nearest cells looked through.

An inverted file (Sivic and Zisserman 2003; Jegou, Douze and Schmid 2011) over spherical k-means. Scores inside the
cells are exact; a user alone and a user in a batch run the same products, so their candidates are the same.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LEAST_ITEMS = 20_000  # fewer: the exact product is as fast
SAMPLE = 40_000
ROUNDS = 8
PROBED = 0.05  # share of the cells looked through first
USUAL_ITEMS = 100_000  # from here on the share falls: with ten times the items, three times as many are looked at


@dataclass
class Cells:
    """Items grouped by the nearest centre.

    Attributes:
        centres: float32 ``[c, d]``, unit length.
        order: int32 ``[n]`` item_idx, cell by cell, ascending inside.
        start: int32 ``[c + 1]`` where each cell starts in ``order``.
    """

    centres: Floats
    order: NDArray[np.int32]
    start: NDArray[np.int32]

    @cached_property
    def probed(self) -> int:
        """Cells looked through first."""
        share = PROBED * min(1.0, math.sqrt(USUAL_ITEMS / max(len(self.order), 1)))
        return max(8, round(share * len(self.centres)))

    def scan(self, left: Floats, nearest: NDArray[np.int64], vectors: Floats) -> Lines:
        """Scores of every item in some cells, one line per user.

        Args:
            left: float32 ``[users, d]``.
            nearest: cells of each, ``[users, cells]``.
            vectors: the items' in the order of the cells.
        """
        users, probed = nearest.shape
        size = np.diff(self.start).astype(np.int64)[nearest]
        offset = np.cumsum(size, axis=1) - size
        score = np.full((users, int(size.sum(axis=1).max(initial=0))), -np.inf, np.float32)
        by_cell = np.argsort(nearest.ravel(), kind="stable")
        cell_of, column = nearest.ravel()[by_cell], np.arange(score.shape[1])
        flat, base = score.ravel(), (offset + np.arange(users)[:, None] * score.shape[1]).ravel()
        begin = np.flatnonzero(np.diff(cell_of, prepend=-1))
        for cell, (first, last) in zip(
            cell_of[begin].tolist(), itertools.pairwise([*begin.tolist(), len(by_cell)]), strict=True
        ):
            own = by_cell[first:last]
            a, b = int(self.start[cell]), int(self.start[cell + 1])
            product = left[own // probed] @ vectors[a:b].T
            if len(own) == 1:
                flat[base[own[0]] : base[own[0]] + b - a] = product[0]
            else:
                flat[base[own][:, None] + column[: b - a]] = product
        return Lines(self, nearest, offset, score)


@dataclass
class Lines:
    """What was found in some cells, user by user.

    Attributes:
        nearest, offset: ``[users, cells]`` cells of each user and where each starts in the line.
        score: float32 ``[users, w]``, -inf behind the last item.
    """

    cells: Cells
    nearest: NDArray[np.int64]
    offset: NDArray[np.int64]
    score: Floats

    def item(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
        """item_idx of what stands in a column of a user's line."""
        probe = (self.offset[row] <= column[:, None]).sum(axis=1) - 1
        place = self.cells.start[self.nearest[row, probe]] + column - self.offset[row, probe]
        return np.asarray(self.cells.order[place].astype(np.int64))


def make_cells(text: Floats, *, seed: int) -> Cells | None:
    """Cells of unit vectors ``[n, d]``; None below LEAST_ITEMS. The same vectors and seed give the same cells."""
    n = len(text)
    if n < LEAST_ITEMS:
        return None
    generator = np.random.default_rng(seed)
    filled = np.flatnonzero(text.any(axis=1))
    if len(filled) < LEAST_ITEMS:
        return None
    sample = text[np.sort(generator.choice(filled, min(SAMPLE, len(filled)), replace=False))]
    count = round(float(np.sqrt(n)))
    centres = sample[np.sort(generator.choice(len(sample), count, replace=False))].copy()
    for _ in range(ROUNDS):
        nearest = _nearest(sample, centres)
        order = np.argsort(nearest, kind="stable")
        used, first = np.unique(nearest[order], return_index=True)
        centres[used] = np.add.reduceat(sample[order], first, axis=0)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    cell = _nearest(text, centres)
    by_cell = np.argsort(cell, kind="stable")
    start = np.searchsorted(cell[by_cell], np.arange(count + 1))
    return Cells(centres.astype(np.float32), by_cell.astype(np.int32), np.asarray(start).astype(np.int32))


def _nearest(vectors: Floats, centres: Floats) -> NDArray[np.int64]:
    blocks = [np.argmax(vectors[a : a + 8192] @ centres.T, axis=1) for a in range(0, len(vectors), 8192)]
    return np.concatenate(blocks)
