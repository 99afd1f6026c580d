"""Candidates: every strategy's proposals for a block of users, computed over arrays.

The definitions are sql/strategies/cand_*.sql; tests/contract compares the two strategy by strategy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Profile

PER_STRATEGY = 60
ROWS_PER_PRODUCT = 8  # the same product shape for one user and for a batch: the same last bits
FRONT_BLOCK = 64  # scores whose maximum bounds the front from below
SPARE = 40  # looked at beyond the k best, so that ties after rounding are all seen
FRONT_MARGIN = 1e-5  # of the largest score: wider than the rounding of a product
WIDER = 4  # times as many cells where too few items are open
SCORED = ("covisitation", "item_item", "matrix_factorization", "semantic")
LISTED = ("popular", "trending", "fresh")


@dataclass
class Candidates:
    """Proposals of a block of users, sorted by (row, item).

    Attributes:
        row, item: int ``[c]``.
        supporters: uint64 ``[c]`` bitmask of the strategies that proposed the item.
        is_seen: bool ``[c]``, only there because the list would be too short.
        scores: name to float32 ``[c]``, raw scores of the scored strategies.
    """

    row: np.ndarray
    item: np.ndarray
    supporters: np.ndarray
    is_seen: np.ndarray
    scores: dict[str, np.ndarray]


class Scores:
    """Raw scores of the scored strategies for a block of users.

    Attributes:
        sparse: CSR ``[users, n]`` by strategy; nothing stored where there is nothing to say.
        left: float32 ``[users, d]`` by strategy, to be multiplied with ``right`` (``[n, d]``).
    """

    def __init__(self, snapshot: Snapshot, profile: Profile) -> None:
        self.trend = snapshot.trend_factor
        item_item = (profile.long @ snapshot.item_item).tocsr()
        item_item.data *= self.trend[item_item.indices]
        self.sparse = {"covisitation": (profile.short @ snapshot.transitions).tocsr(), "item_item": item_item}
        for matrix in self.sparse.values():
            matrix.sort_indices()
        vector = np.asarray(profile.long @ snapshot.text)
        length = np.sqrt((vector * vector).sum(1, keepdims=True))
        self.left = {
            "matrix_factorization": np.asarray(profile.long @ snapshot.fold_in),
            "semantic": vector / np.maximum(length, 1e-12),
        }
        self.right = {"matrix_factorization": snapshot.factors, "semantic": snapshot.text}

    def dense(self, name: str) -> np.ndarray:
        """All scores of a strategy of vectors, float32 ``[users, n]``."""
        scores = _product(self.left[name], self.right[name])
        if name == "matrix_factorization":
            scores *= self.trend
        return scores

    def best(self, name: str, open_: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of the k best positive open scores of a strategy of vectors, ties as in ``top_open``.

        The product only finds the front, with a margin above its rounding; the front is scored pair by pair. So one
        user alone (a matrix-vector product) and a batch (a product of matrices) get the same items.
        """
        if len(open_) == 1:
            product = (self.right[name] @ self.left[name][0])[None]
            if name == "matrix_factorization":
                product *= self.trend
        else:
            product = self.dense(name)
        rows, items = [], []
        for row, scores in enumerate(product):
            own = np.where(open_[row], scores, -np.inf)
            front = _front(own, min(len(own), k + SPARE))
            front = front[own[front] > 0]
            found = _best(self.of_pairs(name, np.full(len(front), row), front), front, k)
            rows.append(np.full(len(found), row))
            items.append(found)
        return np.concatenate(rows), np.concatenate(items)

    def of_pairs(self, name: str, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores of (row, item) pairs, float32 ``[c]``; 0 where there is nothing to say."""
        if name in self.sparse:
            matrix = self.sparse[name]
            n = matrix.shape[1]
            if not matrix.nnz:
                return np.zeros(len(row), np.float32)
            if matrix.shape[0] == 1:
                key, wanted = matrix.indices, item
            else:
                start = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * n
                key, wanted = start + matrix.indices, row.astype(np.int64) * n + item
            at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
            return np.where(key[at] == wanted, matrix.data[at], 0).astype(np.float32)
        out = np.empty(len(row), np.float32)
        for start in range(0, len(row), 20_000):
            part = slice(start, start + 20_000)
            out[part] = np.einsum("ij,ij->i", self.left[name][row[part]], self.right[name][item[part]])
        if name == "matrix_factorization":
            out = np.maximum(out, 0) * self.trend[item]
        return out


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right.T`` in products of one fixed shape."""
    rows = len(left)
    block = np.zeros((ROWS_PER_PRODUCT, left.shape[1]), np.float32)
    product = np.empty((len(right), ROWS_PER_PRODUCT), np.float32)
    out = np.empty((rows, len(right)), np.float32)
    for start in range(0, rows, ROWS_PER_PRODUCT):
        stop = min(start + ROWS_PER_PRODUCT, rows)
        block[: stop - start] = left[start:stop]
        np.dot(right, block.T, out=product)  # twice as fast as block @ right.T for so few rows
        out[start:stop] = product[:, : stop - start].T
    return out


def propose(
    snapshot: Snapshot,
    profile: Profile,
    *,
    allowed: np.ndarray | None = None,
    exclude_seen: bool = True,
    at_least: int = 10,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Candidates:
    """Proposals of every strategy after the filters; seen items only where a list would be too short.

    Args:
        allowed: bool ``[n]``; None allows all.
        exclude_seen: leave out items of the user's history.
        at_least: number of proposals a user should get.
        extra: (row, item, bit) of strategies computed beforehand.
    """
    in_sql = snapshot.settings.get("in_sql", ())
    bits = {name: bit for name, bit in snapshot.settings["strategies"].items() if name not in in_sql}
    mask = snapshot.is_known if allowed is None else snapshot.is_known & allowed
    scores = Scores(snapshot, profile)
    seen = np.zeros((profile.users, snapshot.n), bool)
    seen[profile.row, profile.item] = True
    open_ = ~seen & mask if exclude_seen else np.broadcast_to(mask, seen.shape)
    rows, items, marks = [], [], []

    def add(name: str, row: np.ndarray, item: np.ndarray) -> None:
        rows.append(row)
        items.append(item)
        marks.append(np.full(len(row), 1 << bits[name], np.uint64))

    for name, matrix in scores.sparse.items():
        if name in bits:
            add(name, *_best_sparse(matrix, open_, PER_STRATEGY))
    for name in scores.left:
        if name in bits:
            if name == "semantic" and snapshot.cells is not None:
                add(name, *_near(snapshot, scores.left[name], open_, None if exclude_seen else seen))
                continue
            unseen = open_ & ~seen if name == "semantic" and not exclude_seen else open_
            add(name, *scores.best(name, unseen, PER_STRATEGY))
    for name in LISTED:
        if name in bits:
            wanted = max(PER_STRATEGY, at_least) if name == "popular" else PER_STRATEGY
            add(name, *_first(snapshot, name, open_, wanted))
    if "segment_popular" in bits:
        add("segment_popular", *_segment(snapshot, profile, open_))
    if "buy_again" in bits and not exclude_seen:
        add("buy_again", *_buy_again(snapshot, profile, mask))
    if extra is not None and len(extra[0]):
        keep = open_[extra[0], extra[1]]
        rows.append(extra[0][keep])
        items.append(extra[1][keep])
        marks.append(np.left_shift(np.uint64(1), extra[2][keep].astype(np.uint64)))
    if "popular" not in bits:
        row, item = _filler(snapshot, open_, rows, items, at_least)
        rows.append(row)
        items.append(item)
        marks.append(np.zeros(len(row), np.uint64))
    return _merge(snapshot, profile, scores, (rows, items, marks), mask, at_least)


def _filler(
    snapshot: Snapshot, open_: np.ndarray, rows: list[np.ndarray], items: list[np.ndarray], at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of popular items for users with too few proposals, where the strategy is switched off."""
    n = max(snapshot.n, 1)
    keys = [row.astype(np.int64) * n + item for row, item in zip(rows, items, strict=True)]
    proposed = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    count = np.bincount(proposed // n, minlength=len(open_))
    row, item = _first(snapshot, "popular", open_, at_least)
    is_short = count[row] < at_least
    return row[is_short], item[is_short]


def _merge(
    snapshot: Snapshot,
    profile: Profile,
    scores: Scores,
    parts: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]],
    mask: np.ndarray,
    at_least: int,
) -> Candidates:
    n = snapshot.n
    key = np.concatenate(parts[0]).astype(np.int64) * n + np.concatenate(parts[1])
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    unique = key[order][first]
    supporters = np.zeros(0, np.uint64)
    if len(first):
        supporters = np.bitwise_or.reduceat(np.concatenate(parts[2])[order], first)
    count = np.bincount(unique // n, minlength=profile.users) if n else np.zeros(profile.users, int)
    short = np.flatnonzero(count < at_least)
    seen_key = unique[:0]
    if n and len(short):
        seen_key = np.setdiff1d(profile.pair_key[np.isin(profile.row, short) & mask[profile.item]], unique)
    everything = np.concatenate([unique, seen_key])
    if not len(seen_key):
        row, item = unique // max(n, 1), unique % max(n, 1)
        is_seen = np.zeros(len(unique), bool)
        return Candidates(row, item, supporters, is_seen, {name: scores.of_pairs(name, row, item) for name in SCORED})
    order = np.argsort(everything, kind="stable")
    row, item = everything[order] // max(n, 1), everything[order] % max(n, 1)
    supporters = np.concatenate([supporters, np.zeros(len(seen_key), np.uint64)])[order]
    is_seen = np.concatenate([np.zeros(len(unique), bool), np.ones(len(seen_key), bool)])[order]
    return Candidates(row, item, supporters, is_seen, {name: scores.of_pairs(name, row, item) for name in SCORED})


def top_open(scores: np.ndarray, open_: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of the k best positive open scores of each row; ties by item after rounding to 5 digits."""
    users, n = scores.shape
    if not n:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, items, everything = [], [], np.arange(n)
    for row in range(users):
        best = _best(np.where(open_[row], scores[row], -np.inf), everything, k)
        rows.append(np.full(len(best), row))
        items.append(best)
    return np.concatenate(rows), np.concatenate(items)


def _front(scores: np.ndarray, wide: int) -> np.ndarray:
    """Positions that hold the ``wide`` largest scores and those that differ from the last of them by rounding.

    Where there are many, the ``wide``-th largest maximum of a block bounds the ``wide``-th largest score from below.
    """
    if not 0 < wide < len(scores):
        return np.arange(len(scores))
    blocks = len(scores) // FRONT_BLOCK
    whole = scores[: blocks * FRONT_BLOCK].reshape(blocks, FRONT_BLOCK)
    highest = whole.max(axis=1) if blocks > 2 * wide else scores
    ordered = np.partition(highest, len(highest) - wide)[len(highest) - wide :]
    return np.flatnonzero(scores >= ordered[0] - FRONT_MARGIN * abs(float(ordered.max())))


def _best(scores: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """The k items with the best positive scores, ties by item after rounding to 5 digits of the largest."""
    front = _front(scores, min(len(scores), k + SPARE))
    item, value = item[front], scores[front].astype(np.float64)
    item, value = item[value > 0], value[value > 0]
    rounded = np.round(value / (value.max(initial=0.0) or 1.0), 5)
    return np.asarray(item[np.lexsort((item, -rounded))[:k]])


def _near(
    snapshot: Snapshot, vectors: np.ndarray, open_: np.ndarray, seen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of the open items nearest in text; more cells are looked through where too few are open."""
    assert snapshot.cells is not None
    cells = snapshot.cells
    to_centres = np.round(_product(vectors, cells.centres).astype(np.float64), 6)
    rows, items = [], []
    for row, vector in enumerate(vectors):
        order = np.lexsort((np.arange(len(cells.centres)), -to_centres[row]))
        probed, found = cells.probed, np.zeros(0, np.int64)
        while vector.any():
            item, score = cells.scan(vector, order[:probed], snapshot.text_in_cells)
            is_open = open_[row, item] if seen is None else open_[row, item] & ~seen[row, item]
            found = _best(score[is_open], item[is_open], PER_STRATEGY)
            if len(found) >= PER_STRATEGY or probed >= len(cells.centres):
                break
            probed *= WIDER
        rows.append(np.full(len(found), row))
        items.append(found)
    return np.concatenate(rows), np.concatenate(items)


def _best_sparse(scores: sp.csr_matrix, open_: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same over the stored entries of a sparse matrix."""
    rows, items = [], []
    for row in range(scores.shape[0]):
        a, b = scores.indptr[row], scores.indptr[row + 1]
        item, value = scores.indices[a:b], scores.data[a:b]
        keep = (value > 0) & open_[row, item]
        item, value = item[keep], value[keep]
        if len(value) > k + SPARE:
            head = np.flatnonzero(value >= np.partition(value, len(value) - k - SPARE)[len(value) - k - SPARE])
            item, value = item[head], value[head]
        rounded = np.round(value.astype(np.float64) / max(float(value.max(initial=0)), 1e-30), 5)
        best = np.lexsort((item, -rounded))[:k]
        rows.append(np.full(len(best), row))
        items.append(item[best])
    return np.concatenate(rows), np.concatenate(items).astype(np.int64)


def _first(snapshot: Snapshot, name: str, open_: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of the first k open items of a list that is the same for everybody."""
    order = getattr(snapshot, f"{name}_order")
    users = len(open_)
    rows, items = [], []
    for user in range(users):
        head = order[: 4 * k + 200]
        found = head[open_[user, head]][:k]
        if len(found) < k:
            found = order[open_[user, order]][:k]
        rows.append(np.full(len(found), user))
        items.append(found)
    return np.concatenate(rows), np.concatenate(items)


def _segment(snapshot: Snapshot, profile: Profile, open_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, items = [], []
    trends = snapshot.segment_trend
    for user, segment in enumerate(profile.segment):
        if segment < 0:
            continue
        a, b = trends.indptr[segment], trends.indptr[segment + 1]
        listed = trends.indices[a:b][np.lexsort((trends.indices[a:b], -np.round(trends.data[a:b], 5)))]
        found = listed[open_[user, listed]][:PER_STRATEGY]
        rows.append(np.full(len(found), user))
        items.append(found)
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(rows), np.concatenate(items)


def buy_again_score(snapshot: Snapshot, profile: Profile) -> np.ndarray:
    """Raw score of cand_buy_again for every (user, item) pair of the history; 0: not proposed."""
    rate = snapshot.column("repurchase_rate")[profile.item]
    rhythm = snapshot.column("repurchase_days")[profile.item].astype(np.float64)
    span = profile.span
    late = np.abs(profile.last_days - np.where(np.isnan(rhythm), 0.1 * span, rhythm))
    score = rate * np.log1p(profile.events) * np.exp(-late / (np.nan_to_num(rhythm) + 0.1 * span))
    return np.where(profile.interest > 0, score, 0.0)


def _buy_again(snapshot: Snapshot, profile: Profile, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = buy_again_score(snapshot, profile)
    keep = np.flatnonzero((score > 0) & mask[profile.item])
    order = keep[np.lexsort((profile.item[keep], -np.round(score[keep], 9), profile.row[keep]))]
    first = np.searchsorted(profile.row[order], np.arange(profile.users))
    best = order[np.arange(len(order)) - first[profile.row[order]] < PER_STRATEGY]
    return profile.row[best], profile.item[best]
