"""Candidates: every strategy's proposals for a block of users, computed over arrays.

The definitions are sql/strategies/cand_*.sql; tests/contract compares the two strategy by strategy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Profile

PER_STRATEGY = 60
STRIPES = 64  # scores whose maximum bounds the front from below
SPARE = 40  # looked at beyond the k best, so that ties after rounding are all seen
FRONT_MARGIN = 1e-5  # of the largest score: wider than the rounding of a product
PAIRS_AT_ONCE = 1000  # whose vectors stay in the processor's cache
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
        vector = np.asarray(profile.long @ snapshot.text)
        length = np.sqrt((vector * vector).sum(1, keepdims=True))
        self.left = {
            "matrix_factorization": np.asarray(profile.long @ snapshot.fold_in),
            "semantic": vector / np.maximum(length, 1e-12),
        }
        self.right = {"matrix_factorization": snapshot.factors, "semantic": snapshot.text}
        self._dense: dict[str, np.ndarray] = {}

    def dense(self, name: str) -> np.ndarray:
        """All scores of a strategy, float32 ``[users, n]``; those of vectors to the last bits of a product."""
        if name not in self._dense:
            if name in self.sparse:
                self._dense[name] = self.sparse[name].toarray()
            else:
                self._dense[name] = self.left[name] @ self.right[name].T
                if name == "matrix_factorization":
                    self._dense[name] *= self.trend
        return self._dense[name]

    def of_pairs(self, name: str, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores of (row, item) pairs, float32 ``[c]``; 0 where there is nothing to say.

        The same bits for one user and for a block: products of vectors are computed pair by pair.
        """
        if name in self.sparse:
            return np.asarray(self.dense(name)[row, item])
        out = np.empty(len(row), np.float32)
        for start in range(0, len(row), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            out[part] = np.einsum("ij,ij->i", self.left[name][row[part]], self.right[name][item[part]])
        if name == "matrix_factorization":
            out = np.maximum(out, 0) * self.trend[item]
        return out


@dataclass
class Shut:
    """What may not be proposed to a block of users: items outside ``mask``, and pairs.

    Attributes:
        mask: bool ``[n]``, items that may be proposed to anybody.
        row, item: int ``[p]`` pairs that may not, by user position.
    """

    mask: np.ndarray
    row: np.ndarray
    item: np.ndarray

    def out(self, scores: np.ndarray) -> np.ndarray:
        """A copy of scores ``[users, n]``, -inf where shut."""
        own = scores + np.where(self.mask, np.float32(0), np.float32(-np.inf))
        own[self.row, self.item] = -np.inf
        return own

    def first(self, order: np.ndarray, users: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of the first k open items of a list that is the same for all ``users``."""
        for head in (order[: 4 * k + 200], order):
            place = np.full(len(self.mask), -1)
            place[head] = np.arange(len(head))
            open_ = np.repeat(self.mask[head][None], users, axis=0)
            at = place[self.item]
            open_[self.row[at >= 0], at[at >= 0]] = False
            open_ &= np.cumsum(open_, axis=1) <= k
            row, position = np.nonzero(open_)
            if len(head) == len(order) or len(row) == users * k:
                break
        return row, head[position]

    def of_rows(self, rows: np.ndarray) -> Shut:
        """What is shut for some users, ascending positions, numbered anew."""
        place = np.full(int(max(rows.max(initial=-1), self.row.max(initial=-1))) + 1, -1)
        place[rows] = np.arange(len(rows))
        keep = place[self.row] >= 0
        return Shut(self.mask, place[self.row[keep]], self.item[keep])


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
    scores, users = Scores(snapshot, profile), profile.users
    seen = Shut(mask, profile.row, profile.item)
    shut = seen if exclude_seen else Shut(mask, profile.row[:0], profile.item[:0])
    rows, items, marks = [], [], []

    def add(name: str, row: np.ndarray, item: np.ndarray) -> None:
        rows.append(row)
        items.append(item)
        marks.append(np.full(len(row), 1 << bits[name], np.uint64))

    for name in SCORED:
        if name in bits:
            own = seen if name == "semantic" else shut
            if name == "semantic" and snapshot.cells is not None:
                front = _near(snapshot, scores.left[name], own)
            else:
                front = fronts(own.out(scores.dense(name)), PER_STRATEGY + SPARE)
            add(name, *best_of_rows(*front, scores.of_pairs(name, *front), users, PER_STRATEGY))
    for name in LISTED:
        if name in bits:
            wanted = max(PER_STRATEGY, at_least) if name == "popular" else PER_STRATEGY
            add(name, *shut.first(getattr(snapshot, f"{name}_order"), users, wanted))
    if "segment_popular" in bits:
        add("segment_popular", *_segment(snapshot, profile, shut))
    if "buy_again" in bits and not exclude_seen:
        add("buy_again", *_buy_again(snapshot, profile, mask))
    if extra is not None and len(extra[0]):
        keep = mask[extra[1]]
        if exclude_seen:
            keep &= ~profile.find(extra[0], extra[1])[1]
        rows.append(extra[0][keep])
        items.append(extra[1][keep])
        marks.append(np.left_shift(np.uint64(1), extra[2][keep].astype(np.uint64)))
    if "popular" not in bits:
        row, item = _filler(snapshot, shut, users, (rows, items), at_least)
        rows.append(row)
        items.append(item)
        marks.append(np.zeros(len(row), np.uint64))
    return _merge(snapshot, profile, scores, (rows, items, marks), mask, at_least)


def _filler(
    snapshot: Snapshot, shut: Shut, users: int, found: tuple[list[np.ndarray], list[np.ndarray]], at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of popular items for users with too few proposals, where the strategy is switched off."""
    n = max(snapshot.n, 1)
    keys = [row.astype(np.int64) * n + item for row, item in zip(*found, strict=True)]
    proposed = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    count = np.bincount(proposed // n, minlength=users)
    row, item = shut.first(snapshot.popular_order, users, at_least)
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


def fronts(
    scores: np.ndarray, wide: int, *, least: float = float(np.finfo(np.float32).tiny)
) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of the ``wide`` largest scores of each row and those that differ from them by rounding.

    Scores below ``least``, the smallest positive one, are left out.

    Where there are many, each 64-th score goes with the others of its part, and the ``wide``-th largest maximum of a
    part bounds the ``wide``-th largest score from below. In no order inside a row. A product of matrices and one of a
    matrix and a vector differ in the last bits: the front has a margin above that, and its scores are computed pair by
    pair. So one user alone and a batch get the same items.
    """
    users, n = scores.shape
    parts = n // STRIPES
    if not 0 < wide < n:
        return np.nonzero(scores >= least)
    if parts <= 2 * wide:
        return np.nonzero(scores >= _bound(scores, wide, least))
    striped = scores[:, : parts * STRIPES].reshape(users, STRIPES, parts)
    highest = striped.max(axis=1)
    from_ = _bound(highest, wide, least)
    row, part = np.nonzero(highest >= from_)
    stripe, at = np.nonzero((striped[row, :, part] >= from_[row]).T)
    rest, last = np.nonzero(scores[:, parts * STRIPES :] >= from_)
    return np.concatenate([row[at], rest]), np.concatenate([stripe * parts + part[at], parts * STRIPES + last])


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
    row, item, value = row[keep], item[keep], score[keep].astype(np.float64)
    largest = np.zeros(users)
    np.maximum.at(largest, row, value)
    rounded = np.round(value / largest[row], 5)
    order = np.lexsort((item, -rounded, row))
    first = np.searchsorted(row[order], np.arange(users))
    best = order[np.arange(len(order)) - first[row[order]] < k]
    return row[best], item[best]


def _near(snapshot: Snapshot, vectors: np.ndarray, shut: Shut) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of a front of the items nearest in text; more cells are looked through where too few are open."""
    assert snapshot.cells is not None
    cells = snapshot.cells
    to_centres = np.round(np.einsum("ij,kj->ik", vectors, cells.centres).astype(np.float64), 6)
    order = np.argsort(-to_centres, axis=1, kind="stable")
    asked, probed = np.flatnonzero(vectors.any(axis=1)), cells.probed
    rows, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    while len(asked):
        own = shut.of_rows(asked)
        row, item = _front_of_cells(snapshot, vectors[asked], order[asked, :probed], own)
        is_done = np.bincount(row, minlength=len(asked)) >= PER_STRATEGY
        if probed >= len(cells.centres):
            is_done[:] = True
        keep = is_done[row]
        rows.append(asked[row[keep]])
        items.append(item[keep])
        asked, probed = asked[~is_done], probed * WIDER
    return np.concatenate(rows), np.concatenate(items)


def _front_of_cells(
    snapshot: Snapshot, vectors: np.ndarray, nearest: np.ndarray, shut: Shut
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of a front of the open items in the cells of each user."""
    assert snapshot.cells is not None
    if len(vectors) == 1:  # only what lies in the cells
        item, score = snapshot.cells.scan(vectors[0], nearest[0], snapshot.text_in_cells)
        own = np.where(shut.mask[item] & ~np.isin(item, shut.item), score, -np.inf)
        row, at = fronts(own[None], PER_STRATEGY + SPARE)
        return row, item[at]
    place, order = snapshot.place_in_cells, snapshot.cells.order
    in_cells = Shut(shut.mask[order], shut.row, place[shut.item])
    scores = snapshot.cells.scan_many(vectors, nearest, snapshot.text_in_cells)
    row, at = fronts(in_cells.out(scores), PER_STRATEGY + SPARE)
    return row, order[at].astype(np.int64)


def _segment(snapshot: Snapshot, profile: Profile, shut: Shut) -> tuple[np.ndarray, np.ndarray]:
    rows, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for segment in np.unique(profile.segment[profile.segment >= 0]):
        users = np.flatnonzero(profile.segment == segment)
        row, item = shut.of_rows(users).first(snapshot.segment_order(int(segment)), len(users), PER_STRATEGY)
        rows.append(users[row])
        items.append(item)
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
