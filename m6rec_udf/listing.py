"""Lists of a block of users, from behaviour to slots: candidates, satisfaction, mixing, evidence.

One user's list (m6_one_list) and those of many (m6_lists) are two entrances to ``lists_of``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import propose
from m6rec_udf.explain import evidence_of
from m6rec_udf.history import Behaviour, Profile
from m6rec_udf.ranking import features
from m6rec_udf.slate import calibrate, category_shares, diversify, drawn, mix_many, ranking_order, weights_of

CELLS_AT_ONCE = 6_000_000  # of one dense score matrix

__all__ = ["Lists", "Request", "boost_of", "drawn", "lists_of", "weights_of"]


@dataclass(frozen=True)
class Request:
    """What is asked for, the same for a block of users.

    Attributes:
        k: lines of a list.
        allowed: bool ``[n]`` items that may be shown; None allows all.
        exclude_seen: leave out items of the user's history; None: as the build found fit.
        boost: float64 ``[n]`` factor of the score; None: no boosts.
        diversity, calibrated: in [0, 1], see ``slate``.
    """

    k: int = 10
    allowed: np.ndarray | None = None
    exclude_seen: bool | None = None
    boost: np.ndarray | None = None
    diversity: float = 0.0
    calibrated: float = 0.0


@dataclass
class Lists:
    """Lines of the lists of a block of users, user by user, best first.

    Attributes:
        row, item: int ``[s]``, the user and item_idx.
        score, satisfaction: float64 ``[s]``.
        bit: int ``[s]`` of the strategy; -1: an item seen already, because nothing else is left.
        supporters, eligible: uint64 ``[s]`` bitmasks of strategies.
        propensity: float64 ``[s]``, NaN in a deterministic list.
        because: int ``[s]`` item_idx of the history item that speaks most for the line, -1 for none.
    """

    row: np.ndarray
    item: np.ndarray
    score: np.ndarray
    satisfaction: np.ndarray
    bit: np.ndarray
    supporters: np.ndarray
    eligible: np.ndarray
    propensity: np.ndarray
    because: np.ndarray

    def columns(self) -> tuple[np.ndarray, ...]:
        """Every column but ``row``."""
        return tuple(getattr(self, field.name) for field in fields(self)[1:])


def boost_of(snapshot: Snapshot, factors: Mapping[str, float] | None) -> np.ndarray | None:
    """Factors by item_id as float64 ``[n]``, 1 for all others; None where there are none."""
    if not factors:
        return None
    out = np.ones(snapshot.n)
    for item_id, factor in factors.items():
        if item_id in snapshot.index:
            out[snapshot.index[item_id]] = factor
    return out


def lists_of(
    snapshot: Snapshot,
    behaviour: Behaviour,
    request: Request,
    *,
    weights: np.ndarray,
    uniform: np.ndarray | None = None,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> Lists:
    """The lists of any number of users, in blocks that bound the memory.

    Args:
        weights: float64 ``[users, bits]`` by strategy bit.
        uniform: float64 ``[users, k]`` in [0, 1), draws the strategy of each slot; None: deterministic.
        extra: (row, item, bit) of candidates computed beforehand.
    """
    step = max(1, min(behaviour.users, CELLS_AT_ONCE // max(snapshot.n, 1)))
    parts = []
    for start in range(0, max(behaviour.users, 1), step):
        stop = min(start + step, behaviour.users)
        own = None
        if extra is not None:
            inside = (extra[0] >= start) & (extra[0] < stop)
            own = (extra[0][inside] - start, extra[1][inside], extra[2][inside])
        part = _block(
            snapshot,
            Profile(snapshot, behaviour.block(start, stop)),
            request,
            weights[start:stop],
            None if uniform is None else uniform[start:stop],
            own,
        )
        part.row += start
        parts.append(part)
    return Lists(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Lists)))


def _block(
    snapshot: Snapshot,
    profile: Profile,
    request: Request,
    weights: np.ndarray,
    uniform: np.ndarray | None,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Lists:
    assert snapshot.model is not None
    exclude = request.exclude_seen
    found = propose(
        snapshot,
        profile,
        allowed=request.allowed,
        exclude_seen=not snapshot.settings["repeats_allowed"] if exclude is None else exclude,
        at_least=request.k,
        extra=extra,
    )
    satisfaction = snapshot.model.predict(features(snapshot, profile, found))
    score = satisfaction if request.boost is None else satisfaction * request.boost[found.item]
    first = np.searchsorted(found.row, np.arange(profile.users + 1))
    order = _order(snapshot, profile, request, first, found.item, score)
    slots = mix_many(order, first, found.supporters, found.is_seen, weights, request.k, uniform)
    item = found.item[slots.candidate]
    return Lists(
        slots.row,
        item,
        score[slots.candidate],
        satisfaction[slots.candidate],
        slots.bit,
        slots.supporters,
        slots.eligible,
        slots.propensity,
        evidence_of(snapshot, profile, item, slots.row),
    )


def _order(
    snapshot: Snapshot, profile: Profile, request: Request, first: np.ndarray, item: np.ndarray, score: np.ndarray
) -> np.ndarray:
    """Candidate positions, user by user, best first; diversified and calibrated where that is asked for."""
    order = np.zeros(len(item), np.int64)
    shares = category_shares(profile) if request.calibrated > 0 else []
    for user in range(profile.users):
        a, b = first[user], first[user + 1]
        own = ranking_order(score[a:b], item[a:b])
        if request.diversity > 0:
            vectors = snapshot.text[item[a:b]]
            own = diversify(own, score[a:b], vectors, request.diversity, max(5 * request.k, 50))
        if request.calibrated > 0:
            category = snapshot.category[item[a:b]]
            own = calibrate(own, score[a:b], category, shares[user], request.calibrated, 2 * request.k)
        order[a:b] = own + a
    return order
