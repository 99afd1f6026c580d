"""Candidates: every strategy's proposals for a block of users, computed over arrays.

The definitions are sql/strategies/cand_*.sql; tests/contract compares the two strategy by strategy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from m6rec_udf.arrays import PEOPLE, Snapshot
from m6rec_udf.history import Profile

PER_STRATEGY = 60
SPARE = 40  # looked at beyond the k best, so that ties after rounding are all seen
WIDE = PER_STRATEGY + SPARE
FRONT_MARGIN = 1e-5  # of the largest score: wider than the rounding of a product
STRIPES = 64  # at most so many scores share the maximum that bounds the front from below
CHUNK = 4096  # item vectors looked at first, the longest ones
PAIRS_AT_ONCE = 1000  # whose vectors stay in the processor's cache
WIDER = 4  # times as many cells where too few items are open
SCORED = ("covisitation", "item_item", "matrix_factorization", "semantic")
LISTED = ("popular", "trending", "fresh")
SHUT, SEEN, ASKED = 1, 2, 4  # marks of a pair: not to be proposed to anybody, in the user's history, asked for
NOBODY = 127  # in place of a strategy's bit
BARRED = 126  # the same: the item is a person that is not to be shown to this user (m6.proposals)

Found = list[tuple[np.ndarray, np.ndarray, "np.ndarray | int"]]  # (row, item, bit) of each strategy


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
        self.users, self.n = profile.users, snapshot.n
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

    @cached_property
    def marks(self) -> np.ndarray:
        """A byte for notes about each pair, uint8 ``[users * n]``."""
        return np.zeros(self.users * self.n, np.uint8)

    @cached_property
    def stored(self) -> dict[str, np.ndarray]:
        """Place in ``marks`` of each entry of a sparse strategy."""
        start = np.arange(self.users) * self.n
        return {name: np.repeat(start, np.diff(own.indptr)) + own.indices for name, own in self.sparse.items()}

    def may_be_shown(self, pair: np.ndarray) -> np.ndarray:
        """Whether nothing but having been seen speaks against row * n + item, once ``marks`` are set."""
        return np.asarray((self.marks[pair] & SHUT) == 0)

    def dense(self, name: str) -> np.ndarray:
        """All scores of a strategy, float32 ``[users, n]``; those of vectors to the last bits of a product."""
        if name in self.sparse:
            return np.asarray(self.sparse[name].toarray())
        product = np.asarray(self.left[name] @ self.right[name].T)
        return product * self.trend if name == "matrix_factorization" else product

    def of_pairs(self, name: str, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores of (row, item) pairs, float32 ``[c]``; 0 where there is nothing to say.

        The same bits for one user and for a block: products of vectors are computed pair by pair. The pairs of a
        sparse strategy are ascending, none comes twice.
        """
        if name in self.sparse:
            return self._of_sparse(name, row.astype(np.int64) * self.n + item)
        left, right = self.left[name], self.right[name]
        out = np.empty(len(row), np.float32)
        for user, start, stop in _runs(row, PAIRS_AT_ONCE):
            np.einsum("ij,j->i", right[item[start:stop]], left[user], out=out[start:stop])
        if name == "matrix_factorization":
            out = np.maximum(out, 0) * self.trend[item]
        return out

    def _of_sparse(self, name: str, pair: np.ndarray) -> np.ndarray:
        out, stored = np.zeros(len(pair), np.float32), self.stored[name]
        self.marks[pair] |= ASKED
        found = np.flatnonzero(self.marks[stored] & ASKED)
        self.marks[pair] &= ~np.uint8(ASKED)
        out[np.searchsorted(pair, stored[found])] = self.sparse[name].data[found]
        return out


def _runs(row: np.ndarray, most: int) -> Iterator[tuple[int, int, int]]:
    """(value, start, stop) of what is equal and stands together, at most so many at once."""
    begin = np.flatnonzero(np.diff(row, prepend=-1)).tolist()
    for start, stop in itertools.pairwise([*begin, len(row)]):
        for at in range(start, stop, most):
            yield int(row[start]), at, min(at + most, stop)


class Shut:
    """What may not be proposed to a block of users: items outside ``mask``, and pairs of users and items.

    Attributes:
        mask: bool ``[n]``, items that may be proposed to anybody.
        row, item: int ``[p]`` pairs that may not, by user position.
        marks: SHUT and SEEN noted for each pair, uint8 ``[users * n]``.
        reasons: the marks that shut a pair.
    """

    def __init__(self, mask: np.ndarray, row: np.ndarray, item: np.ndarray, marks: np.ndarray, reasons: int) -> None:
        self.mask, self.row, self.item, self.marks, self.reasons = mask, row, item, marks, np.uint8(reasons)

    def is_open(self, pair: np.ndarray) -> np.ndarray:
        """Whether row * n + item may be proposed."""
        return np.asarray((self.marks[pair] & self.reasons) == 0)

    def first(self, order: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of the first k open items of a list that is the same for all users of ``rows``."""
        row, position, head = np.zeros(0, np.int64), np.zeros(0, np.int64), order
        for head in (order[: 4 * k + 200], order):
            open_ = self.is_open((rows * len(self.mask))[:, None] + head)
            open_ &= np.cumsum(open_, axis=1) <= k
            row, position = np.nonzero(open_)
            if len(head) == len(order) or len(row) == len(rows) * k:
                break
        return rows[row], head[position]


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
        extra: (row, item, bit) of strategies computed beforehand; the bit BARRED: not to be proposed at all.
    """
    in_sql = snapshot.settings.get("in_sql", ())
    bits = {name: bit for name, bit in snapshot.settings["strategies"].items() if name not in in_sql}
    mask = snapshot.is_known if allowed is None else snapshot.is_known & allowed
    scores, users = Scores(snapshot, profile), np.arange(profile.users)
    scores.marks.reshape(len(users), -1)[:] = (~mask).view(np.uint8)  # SHUT
    persons = barred(snapshot, extra)
    scores.marks[profile.pair_key] |= SEEN
    scores.marks[persons[0] * snapshot.n + persons[1]] |= SHUT
    row, item = np.concatenate([profile.row, persons[0]]), np.concatenate([profile.item, persons[1]])
    seen = Shut(mask, row, item, scores.marks, SHUT | SEEN)
    shut = seen if exclude_seen else Shut(mask, *persons, scores.marks, SHUT)
    found: Found = []
    for name in SCORED:
        if name in bits:
            front = _front(snapshot, scores, name, seen if name == "semantic" else shut)
            found.append((*best_of_rows(*front, len(users), PER_STRATEGY), bits[name]))
    for name in LISTED:
        if name in bits:
            wanted = max(PER_STRATEGY, at_least) if name == "popular" else PER_STRATEGY
            found.append((*shut.first(getattr(snapshot, f"{name}_order"), users, wanted), bits[name]))
    if "segment_popular" in bits:
        for segment in np.unique(profile.segment[profile.segment >= 0]).tolist():
            own = np.flatnonzero(profile.segment == segment)
            found.append((*shut.first(snapshot.segment_order(segment), own, PER_STRATEGY), bits["segment_popular"]))
    if "buy_again" in bits and not exclude_seen:
        found.append((*_buy_again(snapshot, profile, scores.may_be_shown), bits["buy_again"]))
    if extra is not None and len(extra[0]):
        keep = shut.is_open(extra[0] * snapshot.n + extra[1]) & (extra[2] != BARRED)
        found.append((extra[0][keep], extra[1][keep], extra[2][keep]))
    if "popular" not in bits:
        found.append((*_filler(snapshot, shut, found, users, at_least), NOBODY))
    return _merge(snapshot, profile, scores, found, at_least)


def barred(
    snapshot: Snapshot, extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of the persons that are not to be shown; items of other domains are nobody."""
    nothing = np.zeros(0, np.int64)
    inside = snapshot.in_domain(PEOPLE)
    if extra is None or inside is None:
        return nothing, nothing
    keep = (extra[2] == BARRED) & inside[extra[1]]
    return extra[0][keep].astype(np.int64), extra[1][keep].astype(np.int64)


def _front(snapshot: Snapshot, scores: Scores, name: str, shut: Shut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, item, score) of a front of the open items of a strategy."""
    if name in scores.sparse:
        return _front_of_sparse(scores, name, shut)
    if name == "matrix_factorization":
        front = _front_by_length(snapshot, scores.left[name], shut)
    elif snapshot.cells is not None:
        front = _near(snapshot, scores.left[name], shut)
    else:
        every = scores.dense(name)
        every[:, ~shut.mask] = -np.inf
        every[shut.row, shut.item] = -np.inf
        front = fronts(every, WIDE)
    return (*front, scores.of_pairs(name, *front))


def _front_of_sparse(scores: Scores, name: str, shut: Shut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of what is stored, one line of it per user."""
    own, stored = scores.sparse[name], scores.stored[name]
    length = np.diff(own.indptr)
    lines = np.zeros((scores.users, int(length.max(initial=0))), np.float32)
    shift = np.arange(scores.users) * lines.shape[1] - own.indptr[:-1]
    lines.ravel()[np.arange(len(stored)) + np.repeat(shift, length)] = np.where(shut.is_open(stored), own.data, 0)
    row, at = fronts(lines, WIDE)
    return row, own.indices[own.indptr[row] + at].astype(np.int64), lines[row, at]


def _front_by_length(snapshot: Snapshot, left: np.ndarray, shut: Shut) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of a front of the items whose vectors, times their trend, have the largest products with a user's.

    The longest vectors come first: no product is larger than the product of the lengths, so the search ends where that
    cannot reach the front any more. Exact.
    """
    order, vectors, length = snapshot.factors_by_length
    place = snapshot.place_by_length[shut.item]
    reach = np.sqrt((left * left).sum(1)) * (1 + FRONT_MARGIN)
    rows, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    asked = np.flatnonzero(reach > 0)
    best = np.zeros((len(asked), 0), np.float32)
    start = 0
    while len(asked) and start < len(order):
        stop = min(2 * start + CHUNK, len(order))
        product = left[asked] @ vectors[start:stop].T
        product[:, ~shut.mask[order[start:stop]]] = -np.inf
        inside = (place >= start) & (place < stop)
        at = np.searchsorted(asked, shut.row[inside])
        is_asked = asked[np.minimum(at, len(asked) - 1)] == shut.row[inside]
        product[at[is_asked], place[inside][is_asked] - start] = -np.inf
        together = np.concatenate([best, product], axis=1)
        row, column = fronts(together, WIDE)
        new = column >= best.shape[1]
        rows.append(asked[row[new]])
        items.append(order[start + column[new] - best.shape[1]])
        start = stop
        best = together
        if together.shape[1] > WIDE:
            best = np.partition(together, together.shape[1] - WIDE, axis=1)[:, -WIDE:]
            lowest = best[:, 0] - FRONT_MARGIN * np.abs(best).max(axis=1)
            is_left = reach[asked] * length[min(start, len(length) - 1)] >= np.maximum(lowest, 0)
            asked, best = asked[is_left], best[is_left]
    return np.concatenate(rows), np.concatenate(items)


def _filler(
    snapshot: Snapshot, shut: Shut, found: Found, users: np.ndarray, at_least: int
) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of popular items for users with too few proposals, where the strategy is switched off."""
    n = max(snapshot.n, 1)
    keys = [row.astype(np.int64) * n + item for row, item, _ in found]
    proposed = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    count = np.bincount(proposed // n, minlength=len(users))
    row, item = shut.first(snapshot.popular_order, users, at_least)
    is_short = count[row] < at_least
    return row[is_short], item[is_short]


def _merge(snapshot: Snapshot, profile: Profile, scores: Scores, found: Found, at_least: int) -> Candidates:
    n, width = max(snapshot.n, 1), NOBODY + 1
    nothing = np.zeros(0, np.int64)
    mine = [(row.astype(np.int64) * n + item) * width + bit for row, item, bit in found]
    proposals = np.sort(np.concatenate([nothing, *mine]))
    pair, bit = proposals // width, proposals % width
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    key = pair[first]
    supporters = np.zeros(0, np.uint64)
    if len(first):
        flag = np.where(bit < NOBODY, np.left_shift(np.uint64(1), bit.astype(np.uint64)), np.uint64(0))
        supporters = np.bitwise_or.reduceat(flag, first)
    is_seen = np.zeros(len(key), bool)
    short = np.flatnonzero(np.bincount(key // n, minlength=profile.users) < at_least)
    if snapshot.n and len(short):
        seen = np.setdiff1d(profile.pair_key[np.isin(profile.row, short) & scores.may_be_shown(profile.pair_key)], key)
        key = np.concatenate([key, seen])
        order = np.argsort(key)
        key = key[order]
        supporters = np.concatenate([supporters, np.zeros(len(seen), np.uint64)])[order]
        is_seen = np.concatenate([is_seen, np.ones(len(seen), bool)])[order]
    row, item = key // n, key % n
    return Candidates(row, item, supporters, is_seen, {name: scores.of_pairs(name, row, item) for name in SCORED})


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


def _near(snapshot: Snapshot, vectors: np.ndarray, shut: Shut) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of a front of the items nearest in text; more cells are looked through where too few are open."""
    assert snapshot.cells is not None
    cells = snapshot.cells
    to_centres = np.round(np.einsum("ij,kj->ik", vectors, cells.centres).astype(np.float64), 6)
    order = np.argsort(-to_centres, axis=1, kind="stable")
    asked, probed = np.flatnonzero(vectors.any(axis=1)), cells.probed
    rows, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    while len(asked):
        lines = cells.scan(vectors[asked], order[asked, :probed], snapshot.text_in_cells, shut.mask)
        at = np.minimum(np.searchsorted(asked, shut.row), len(asked) - 1)
        is_asked = asked[at] == shut.row
        lines.close(at[is_asked], snapshot.place_in_cells[shut.item[is_asked]])
        row, column = fronts(lines.score, WIDE)
        is_done = np.bincount(row, minlength=len(asked)) >= PER_STRATEGY
        if probed >= len(cells.centres):
            is_done[:] = True
        keep = is_done[row]
        rows.append(asked[row[keep]])
        items.append(lines.item(row[keep], column[keep]))
        asked, probed = asked[~is_done], probed * WIDER
    return np.concatenate(rows), np.concatenate(items)


def buy_again_score(snapshot: Snapshot, profile: Profile) -> np.ndarray:
    """Raw score of cand_buy_again for every (user, item) pair of the history; 0: not proposed."""
    rate = snapshot.column("repurchase_rate")[profile.item]
    rhythm = snapshot.column("repurchase_days")[profile.item].astype(np.float64)
    span = profile.span
    late = np.abs(profile.last_days - np.where(np.isnan(rhythm), 0.1 * span, rhythm))
    score = rate * np.log1p(profile.events) * np.exp(-late / (np.nan_to_num(rhythm) + 0.1 * span))
    return np.where(profile.interest > 0, score, 0.0)


def _buy_again(
    snapshot: Snapshot, profile: Profile, is_open: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    score = buy_again_score(snapshot, profile)
    keep = np.flatnonzero((score > 0) & is_open(profile.pair_key))
    order = keep[np.lexsort((profile.item[keep], -np.round(score[keep], 9), profile.row[keep]))]
    first = np.searchsorted(profile.row[order], np.arange(profile.users))
    best = order[np.arange(len(order)) - first[profile.row[order]] < PER_STRATEGY]
    return profile.row[best], profile.item[best]
