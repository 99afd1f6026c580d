"""Candidates: every strategy's proposals for a block of users, computed over arrays.

The definitions are sql/strategies/cand_*.sql; tests/contract compares the two strategy by strategy. The loops over
users and items are compiled: kernels/proposing.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m6rec_udf.arrays import PEOPLE, Snapshot
from m6rec_udf.history import Profile
from m6rec_udf.kernels import proposing

PER_STRATEGY = 60
SPARE = 40  # looked at beyond the k best where products are rounded, so that ties after rounding are all seen
SCORES_AT_ONCE = 20_000_000  # of users and all items, at four bytes each
FEW = 3  # users who are answered before the texts stand in the order of the cells, each item by itself
WIDER = 4  # times as many cells where too few items are open
SCORED = ("covisitation", "item_item", "matrix_factorization", "semantic")
STRATEGIES = (*SCORED, "popular", "trending", "fresh", "segment_popular", "buy_again")  # in the order of the kernel
BARRED = 126  # in place of a strategy's bit: a person that is not to be shown to this user (m6.proposals)

Extra = tuple[np.ndarray, np.ndarray, np.ndarray]  # (row, item, bit) of candidates computed beforehand


@dataclass
class Candidates:
    """Proposals of a block of users, sorted by (row, item).

    Attributes:
        row, item: int64 ``[c]``.
        supporters: uint64 ``[c]`` bitmask of the strategies that proposed the item.
        is_seen: bool ``[c]``, only there because the list would be too short.
        scores: float32 ``[len(SCORED), c]``, raw scores of the scored strategies.
    """

    row: np.ndarray
    item: np.ndarray
    supporters: np.ndarray
    is_seen: np.ndarray
    scores: np.ndarray


class Scores:
    """What the scored strategies say to a block of users.

    Attributes:
        factors, text: float32 ``[users, d]``, the user's vectors: to be multiplied with an item's.
    """

    def __init__(self, snapshot: Snapshot, profile: Profile) -> None:
        self.snapshot, self.profile = snapshot, profile
        own = (profile.first, profile.item), profile.long_weight
        self.factors = proposing.folded(*own, snapshot.fold_in)
        self.text = proposing.of_length_one(proposing.folded(*own, snapshot.text))

    @property
    def vectors(self) -> tuple[np.ndarray, ...]:
        """(factors of the users, of the items, text vectors of the users, of the items)."""
        return self.factors, self.snapshot.factors, self.text, self.snapshot.text

    def of_pairs(self, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores of (row, item) pairs, rows ascending, float32 ``[len(SCORED), pairs]``; 0 for nothing to say."""
        snapshot, profile = self.snapshot, self.profile
        users, weights = (profile.first, profile.item), (profile.long_weight, profile.short_weight)
        links = snapshot.following, snapshot.linked, snapshot.trend_factor
        return np.asarray(proposing.scores_of(users, weights, links, self.vectors, (row, item)))


def propose(
    snapshot: Snapshot,
    profile: Profile,
    *,
    allowed: np.ndarray | None = None,
    exclude_seen: bool = True,
    at_least: int = 10,
    extra: Extra | None = None,
) -> Candidates:
    """Proposals of every strategy after the filters; seen items only where a list would be too short.

    Args:
        allowed: bool ``[n]``; None allows all.
        exclude_seen: leave out items of the user's history.
        at_least: number of proposals a user should get.
        extra: (row, item, bit) of strategies computed beforehand; the bit BARRED: not to be proposed at all.
    """
    in_sql = snapshot.settings.get("in_sql", ())
    enabled = {name: bit for name, bit in snapshot.settings["strategies"].items() if name not in in_sql}
    bits = np.asarray([enabled.get(name, -1) for name in STRATEGIES], np.int64)
    mask = snapshot.is_known if allowed is None else snapshot.is_known & allowed
    persons = _by_user(profile.users, *barred(snapshot, extra))
    more = _by_user(profile.users, *_proposals(extra))
    scores = Scores(snapshot, profile)
    near = _near(snapshot, profile, scores.text, mask, persons) if "semantic" in enabled else _none(profile)
    with snapshot.workspace() as work:
        found = proposing.proposed(
            (profile.first, profile.item),
            (profile.long_weight, profile.short_weight, profile.buy_again),
            persons,
            more,
            mask,
            (snapshot.following, snapshot.linked, snapshot.trend_factor),
            scores.vectors,
            snapshot.factors_by_length,
            near,
            (snapshot.popular_order, snapshot.trending_order, snapshot.fresh_order),
            _segments(snapshot, profile),
            bits,
            exclude_seen,
            at_least,
            PER_STRATEGY,
            work,
        )
    return Candidates(*found)


def barred(snapshot: Snapshot, extra: Extra | None) -> tuple[np.ndarray, np.ndarray]:
    """(row, item) of the persons that are not to be shown; items of other domains are nobody."""
    nothing = np.zeros(0, np.int64)
    inside = snapshot.in_domain(PEOPLE)
    if extra is None or inside is None:
        return nothing, nothing
    keep = (extra[2] == BARRED) & inside[extra[1]]
    return extra[0][keep].astype(np.int64), extra[1][keep].astype(np.int64)


def _by_user(users: int, row: np.ndarray, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where each user's entries start, int64 ``[users + 1]``, and the columns user by user."""
    order = np.argsort(row, kind="stable")
    return np.searchsorted(row[order], np.arange(users + 1)), *(column[order].astype(np.int64) for column in columns)


def _proposals(extra: Extra | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, item, bit) of what was proposed beforehand."""
    if extra is None:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    keep = extra[2] != BARRED
    return extra[0][keep], extra[1][keep], extra[2][keep]


def _segments(snapshot: Snapshot, profile: Profile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each user's place among the segments of the block, -1 for none; where their lists start; the lists."""
    codes, place = np.unique(profile.segment, return_inverse=True)
    lists = [snapshot.segment_order(code) if code >= 0 else np.zeros(0, np.int64) for code in codes.tolist()]
    start = np.cumsum([0, *map(len, lists)])
    joined = lists[0] if len(lists) == 1 else np.concatenate([np.zeros(0, np.int64), *lists])
    return np.where(profile.segment >= 0, place, -1), start, joined


def _none(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((profile.users, 0), np.int64), np.zeros(profile.users, np.int64)


def _near(
    snapshot: Snapshot, profile: Profile, vectors: np.ndarray, mask: np.ndarray, persons: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The items nearest in text that the user has not had, int64 ``[users, PER_STRATEGY]``, and how many there are.

    A matrix product and a matrix-vector product differ in the last bits: they only select a front with a margin.
    """
    near, found = np.zeros((profile.users, PER_STRATEGY), np.int64), np.zeros(profile.users, np.int64)
    asked, cells = np.flatnonzero(vectors.any(axis=1)), snapshot.cells
    if cells is None:
        start, at_once = np.asarray([0, snapshot.n], np.int32), max(1, SCORES_AT_ONCE // max(snapshot.n, 1))
        for some in (asked[a : a + at_once] for a in range(0, len(asked), at_once)):
            every = np.zeros((len(some), 1), np.int64), start, snapshot.every_item
            own = (vectors[some], mask, _of(some, profile.first, profile.item), _of(some, *persons))
            near[some], found[some], _ = _nearest(snapshot, vectors[some] @ snapshot.text.T, every, *own)
        return near, found
    order = np.argsort(-proposing.products(vectors, cells.centres), axis=1, kind="stable")
    probed = cells.probed
    while len(asked):
        nearest = np.ascontiguousarray(order[asked, :probed])
        line = np.zeros((len(asked), 0), np.float32)
        text = snapshot.text_in_cells_if_made() if len(asked) <= FEW else snapshot.text_in_cells
        if text is not None:
            line = cells.scan(vectors[asked], nearest, text).score
        own = (vectors[asked], mask, _of(asked, profile.first, profile.item), _of(asked, *persons))
        near[asked], found[asked], open_ = _nearest(snapshot, line, (nearest, cells.start, cells.order), *own)
        asked = asked[open_ < PER_STRATEGY] if probed < len(cells.centres) else asked[:0]
        probed *= WIDER
    return near, found


def _nearest(
    snapshot: Snapshot,
    line: np.ndarray,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
    vectors: np.ndarray,
    mask: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    persons: tuple[np.ndarray, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best of some cells (nearest ones, where each starts, items): items, how many, how many were open."""
    own = (mask, pairs, persons, PER_STRATEGY, PER_STRATEGY + SPARE)
    with snapshot.workspace() as work:
        items, found, open_ = proposing.nearest_of(line, cells, vectors, snapshot.text, *own, work)
    return items, found, open_


def _of(users: np.ndarray, first: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands user by user of some of them."""
    if len(users) == len(first) - 1:
        return first, item
    keep = np.repeat(np.isin(np.arange(len(first) - 1), users), np.diff(first))
    return np.concatenate([[0], np.cumsum(np.diff(first)[users])]), item[keep]
