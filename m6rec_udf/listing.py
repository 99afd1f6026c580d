"""Lists of a block of users, from behaviour to slots: candidates, satisfaction, mixing, evidence.

One user's list (m6_one_list) and those of many (m6_lists) are two entrances to ``lists_of``.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import Candidates, propose
from m6rec_udf.errors import ParameterError
from m6rec_udf.explain import evidence_of
from m6rec_udf.history import Behaviour, Profile
from m6rec_udf.kernels.listing import front_of, sort_front
from m6rec_udf.logistic import sigmoid
from m6rec_udf.quotas import plan, require_shares
from m6rec_udf.ranking import features
from m6rec_udf.satisfaction import Columns
from m6rec_udf.slate import calibrate, category_shares, diversify, drawn, mix_many, weights_of

USERS_AT_ONCE = 512  # of one block: users who look into the same cells read them once
FRONT = 150  # candidates of a user that the trees order
GREATEST_BOOST = 1e30  # a score times it is still a number that float32 holds
LONGEST = 1_000_000  # lines that one list may be asked for

__all__ = ["Lists", "Request", "boost_of", "drawn", "lists_of", "weights_of"]


@dataclass(frozen=True)
class Request:
    """What is asked for, the same for a block of users.

    Raises ParameterError: a figure that is missing or out of range.

    Attributes:
        k: lines of a list, 0 to ``LONGEST``; a list ends where the items do.
        allowed: bool ``[n]`` items that may be shown; None allows all.
        exclude_seen: leave out items of the user's history; None: as the build found fit.
        boost: float64 ``[n]`` factor of the score; None: no boosts.
        diversity, calibrated: in [0, 1], see ``slate``.
        quotas: share of the slots by domain, see ``quotas``; None: the domains compete with each other.
        everything: all candidates of a list of k as its lines, so that what comes after the last of them is seen;
            the supporters of a line are then all strategies that proposed it.
    """

    k: int = 10
    allowed: np.ndarray | None = None
    exclude_seen: bool | None = None
    boost: np.ndarray | None = None
    diversity: float = 0.0
    calibrated: float = 0.0
    quotas: Mapping[str, float] | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        require_length(self.k)
        for name in ("diversity", "calibrated"):
            value = getattr(self, name)
            if value is None or not 0 <= value <= 1:
                raise ParameterError(f"{name} is {value}, expected a number from 0 (no) to 1", f"{name} := 0.3")
        if self.quotas is not None:
            require_shares(self.quotas)

    @property
    def parts(self) -> int:
        """Lists that are made for each user: one, or one for each domain of the quotas."""
        return 1 if self.quotas is None else len(self.quotas)


def require_length(k: int | None) -> int:
    """``k``, where it can be the length of a list. Raises ParameterError: it cannot."""
    if k is None or not 0 <= k <= LONGEST:
        raise ParameterError(
            f"k is {'NULL' if k is None else k}, expected a whole number from 0 to {LONGEST:,}", "k := 10"
        )
    return k


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
    """Factors by item_id as float64 ``[n]``, 1 for all others; None where there are none.

    Raises ParameterError: a factor is NULL, NaN or infinite: such a score has no place in an order.
    """
    if not factors:
        return None
    out = np.ones(snapshot.n)
    for item_id, factor in factors.items():
        if item_id in snapshot.index:
            if factor is None or not abs(factor) <= GREATEST_BOOST:
                raise ParameterError(
                    f"boosts gives {item_id!r} the boost {factor}, expected a number up to {GREATEST_BOOST:g}",
                    "leave the item out of the table, or coalesce(boost, 1)",
                )
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
    """The lists of any number of users, in blocks that bound the memory, on all cores.

    Args:
        weights: float64 ``[parts, users, bits]`` by strategy bit; of each domain of the quotas, in their order.
        uniform: float64 ``[users, parts * k]`` in [0, 1), draws the strategy of each slot; None: deterministic.
        extra: (row, item, bit) of candidates computed beforehand.
    """
    request = replace(request, k=min(request.k, snapshot.n))
    step = USERS_AT_ONCE

    def block(start: int) -> Lists:
        stop = min(start + step, behaviour.users)
        own = None
        if extra is not None:
            inside = (extra[0] >= start) & (extra[0] < stop)
            own = (extra[0][inside] - start, extra[1][inside], extra[2][inside])
        profile = Profile(snapshot, behaviour.block(start, stop))
        drawn = None if uniform is None else uniform[start:stop]
        part = _block(snapshot, profile, request, weights[:, start:stop], drawn, own)
        part.row += start
        return part

    starts = range(0, behaviour.users, step)
    if len(starts) <= 1:
        return block(0)
    with _one_blas_thread(), ThreadPoolExecutor(min(os.cpu_count() or 1, len(starts))) as pool:
        parts = list(pool.map(block, starts))
    return Lists(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Lists)))


_limit_lock = threading.Lock()
_limits: list[Any] = []  # one entry for each batch at work, the first holds what was before


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Products on one thread each while blocks share the cores: threads of BLAS wait in a busy loop, blocks do not."""
    from threadpoolctl import threadpool_limits

    with _limit_lock:
        _limits.append(None if _limits else threadpool_limits(1, "blas"))
    try:
        yield
    finally:
        with _limit_lock:
            if len(_limits) == 1:
                _limits[0].restore_original_limits()
            _limits.pop()


def _block(
    snapshot: Snapshot,
    profile: Profile,
    request: Request,
    weights: np.ndarray,
    uniform: np.ndarray | None,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Lists:
    """The lists of a block: one of each user, or those of the domains of the quotas dealt out into one."""
    if request.quotas is None:
        return _ranked(snapshot, profile, request, weights[0], uniform, extra)
    parts = []
    for at, domain in enumerate(request.quotas):
        inside = snapshot.in_domain(domain)
        allowed = inside if request.allowed is None else inside & request.allowed
        own = replace(request, allowed=allowed, quotas=None)
        drawn = None if uniform is None else uniform[:, at * request.k : (at + 1) * request.k]
        parts.append(_ranked(snapshot, profile, own, weights[at], drawn, extra))
    return _dealt(parts, np.asarray(list(request.quotas.values())), profile.users, request.k)


def _dealt(parts: list[Lists], shares: np.ndarray, users: int, k: int) -> Lists:
    """Lists of several domains as one list of each user, slot by slot as ``quotas.plan`` says."""
    first = np.stack([np.searchsorted(part.row, np.arange(users)) for part in parts])
    length, unseen = (
        np.stack([np.bincount(part.row[keep(part)], minlength=users) for part in parts], axis=1)
        for keep in (lambda part: slice(None), lambda part: part.bit >= 0)
    )
    chosen, place = plan(length, unseen, shares, k)
    row, slot = np.nonzero(chosen >= 0)
    part = chosen[row, slot]
    before = np.cumsum([0] + [len(each.row) for each in parts])[:-1]
    at = before[part] + first[part, row] + place[row, slot]
    return Lists(*(np.concatenate([getattr(each, f.name) for each in parts])[at] for f in fields(Lists)))


def _ranked(
    snapshot: Snapshot,
    profile: Profile,
    request: Request,
    weights: np.ndarray,
    uniform: np.ndarray | None,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Lists:
    exclude = request.exclude_seen
    found = propose(
        snapshot,
        profile,
        allowed=request.allowed,
        exclude_seen=not snapshot.settings["repeats_allowed"] if exclude is None else exclude,
        at_least=request.k,
        extra=extra,
    )
    first = np.searchsorted(found.row, np.arange(profile.users + 1))
    ranking = _Ranking(snapshot, profile, found, request, first)
    lines = int(np.diff(first).max(initial=0)) if request.everything else request.k
    slots = mix_many(ranking.order, first, found.supporters, found.is_seen, weights, lines, uniform)
    item, satisfaction = found.item[slots.candidate], ranking.satisfaction(slots.candidate)
    return Lists(
        slots.row,
        item,
        satisfaction if request.boost is None else satisfaction * request.boost[item],
        satisfaction,
        slots.bit,
        found.supporters[slots.candidate] if request.everything else slots.supporters,
        slots.eligible,
        slots.propensity,
        evidence_of(snapshot, profile, item, slots.row),
    )


class _Ranking:
    """The order of a block's candidates: by satisfaction times boost, diversified and calibrated if asked for.

    The trees are the dearest part of an answer. The logistic score they start from orders all candidates of a user,
    the trees the FRONT of that order; the rest stays behind it. Of a list that is diversified or calibrated, which may
    take an item from far behind, all is the front.

    Attributes:
        order: candidate positions, user by user, best first.
    """

    def __init__(
        self, snapshot: Snapshot, profile: Profile, found: Candidates, request: Request, first: np.ndarray
    ) -> None:
        assert snapshot.model is not None
        self._snapshot, self._profile, self._found, self._model = snapshot, profile, found, snapshot.model
        self._x = Columns(features(snapshot, profile, found))
        self._start, self._coefficient = snapshot.model.start(self._x)
        self._satisfaction = np.full(len(found.row), np.nan)
        is_rearranged = request.diversity > 0 or request.calibrated > 0
        boost = None if request.boost is None else request.boost[found.item]
        front = self.order = np.arange(len(found.row))
        if not is_rearranged:
            everything = len(front)
            sort_front(first, _boosted(sigmoid(self._start), boost), everything, self.order)
        depth = len(front) if is_rearranged else FRONT
        self.satisfaction(front_of(first, depth, self.order))
        sort_front(first, _boosted(self._satisfaction, boost), depth, self.order)
        if is_rearranged:
            self.order = self._rearranged(request, first, _boosted(self._satisfaction, boost))

    def satisfaction(self, at: np.ndarray) -> np.ndarray:
        """Calibrated satisfaction at candidate positions, float64."""
        missing = at[np.isnan(self._satisfaction[at])]
        if len(missing):
            odds = self._model.with_trees(self._start, self._coefficient, self._x, missing)
            self._satisfaction[missing] = sigmoid(odds)
        return np.asarray(self._satisfaction[at])

    def _rearranged(self, request: Request, first: np.ndarray, score: np.ndarray) -> np.ndarray:
        snapshot, profile, item = self._snapshot, self._profile, self._found.item
        shares = category_shares(profile) if request.calibrated > 0 else []
        order = self.order.copy()
        for user, (a, b) in enumerate(itertools.pairwise(first.tolist())):
            own, value = order[a:b] - a, score[a:b]
            if request.diversity > 0:
                own = diversify(own, value, snapshot.text[item[a:b]], request.diversity, max(5 * request.k, 50))
            if request.calibrated > 0:
                category = snapshot.category[item[a:b]]
                own = calibrate(own, value, category, shares[user], request.calibrated, 2 * request.k)
            order[a:b] = own + a
        return order


def _boosted(satisfaction: np.ndarray, boost: np.ndarray | None) -> np.ndarray:
    return satisfaction if boost is None else satisfaction * boost
