"""From candidates to a list: mixing the strategies by their weights, drawn or deterministic.

Drawn (``serve``): per slot, independently, strategy s ~ w, then that strategy's best item not yet shown
(probabilistic multileaving with unequal team weights). The propensity of item i in slot k given the slots
above is the summed weight of the strategies whose next item is i, over the weight of the strategies with
items left. Deterministic (``recommend``): the strategy with the most credit takes the slot (smooth weighted
round-robin); with most of the weight on ``blended`` this is the order of satisfaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from m6rec_udf.history import Profile

BLENDED_BIT = 0


@dataclass
class Slots:
    """Slots of the lists of a block of users, user by user, in the order of each list.

    Attributes:
        row, candidate: int ``[s]``, the user and the candidate position.
        bit: int ``[s]`` of the strategy; -1: filled up with seen items.
        supporters, eligible: uint64 ``[s]`` bitmasks of the strategies whose next item it was, and that had one.
        propensity: float64 ``[s]``, NaN in a deterministic list.
    """

    row: np.ndarray
    candidate: np.ndarray
    bit: np.ndarray
    supporters: np.ndarray
    eligible: np.ndarray
    propensity: np.ndarray


@dataclass
class Slot:
    """One slot of one user's list; propensity is None in a deterministic list."""

    candidate: int
    bit: int
    supporters: int
    eligible: int
    propensity: float | None


def ranking_order(score: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Best score first, ties by item after rounding to 9 digits."""
    return np.lexsort((item, -np.round(score, 9)))


def mix(
    order: np.ndarray,
    supporters: np.ndarray,
    is_seen: np.ndarray,
    weights: dict[int, float],
    k: int,
    *,
    generator: np.random.Generator | None = None,
) -> list[Slot]:
    """The slots of one user: ``mix_many`` of a block of one.

    Args:
        weights: weight by strategy bit.
        generator: draws the strategy of each slot; None: deterministic.
    """
    uniform = None if generator is None else generator.random((1, k))
    found = mix_many(order, np.asarray([0, len(order)]), supporters, is_seen, weights_of([weights]), k, uniform)
    columns = (found.candidate, found.bit, found.supporters, found.eligible, found.propensity)
    return [
        Slot(candidate, bit, backing, eligible, None if generator is None else propensity)
        for candidate, bit, backing, eligible, propensity in zip(*(c.tolist() for c in columns), strict=True)
    ]


def weights_of(weights: Sequence[dict[int, float]]) -> np.ndarray:
    """Weight by strategy bit of each user as float64 ``[users, bits]``."""
    out = np.zeros((len(weights), max((bit for own in weights for bit in own), default=BLENDED_BIT) + 1))
    for row, own in enumerate(weights):
        for bit, weight in own.items():
            out[row, bit] = weight
    return out


def mix_many(
    order: np.ndarray,
    first: np.ndarray,
    supporters: np.ndarray,
    is_seen: np.ndarray,
    weights: np.ndarray,
    k: int,
    uniform: np.ndarray | None = None,
) -> Slots:
    """Fill k slots of each user: by the strategies, then what no weighted strategy proposed, then seen items.

    Args:
        order: candidate positions, user by user, best first.
        first: int ``[users + 1]``, where each user's candidates start in ``order``.
        supporters: bitmask per candidate position.
        is_seen: candidates that only fill up a list that would be too short.
        weights: float64 ``[users, bits]`` by strategy bit, 0 for none.
        k: slots.
        uniform: float64 ``[users, k]`` in [0, 1), draws the strategy of each slot; None: deterministic.
    """
    bits = np.flatnonzero((weights > 0).any(axis=0))
    weights = weights[:, bits]
    if not (weights > 0).any(axis=1).all():  # without weights the list is blended
        bits, weights = _with_blended(bits, weights)
    table = _upcoming(order, first, supporters, is_seen, bits, weights > 0, k)
    chosen, taken = _take_slots(table, weights, k, uniform)
    users = len(weights)
    row, at = np.nonzero(chosen >= 0)
    flags = np.left_shift(np.uint64(1), bits.astype(np.uint64))
    candidate = order[first[row] + chosen[row, at]]
    backing, eligible, pick, propensity = (part[row, at] for part in taken)
    slots = Slots(
        row,
        candidate,
        bits[pick],
        (backing * flags).sum(axis=1, dtype=np.uint64),
        (eligible * flags).sum(axis=1, dtype=np.uint64),
        propensity,
    )
    full = np.minimum(k, np.diff(first))
    short = np.flatnonzero(np.bincount(row, minlength=users) < full)
    return _filled_up(slots, order, first, is_seen, short, k, uniform is not None) if len(short) else slots


def _with_blended(bits: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, all the weight on ``blended`` where a user has none."""
    if BLENDED_BIT not in bits:
        bits, weights = np.append(BLENDED_BIT, bits), np.column_stack([np.zeros(len(weights)), weights])
    weights = weights.copy()
    weights[~(weights > 0).any(axis=1), 0] = 1.0
    return bits, weights


def _upcoming(
    order: np.ndarray,
    first: np.ndarray,
    supporters: np.ndarray,
    is_seen: np.ndarray,
    bits: np.ndarray,
    is_weighted: np.ndarray,
    k: int,
) -> np.ndarray:
    """Each strategy's own list: places in the user's order, int ``[users, bits, k + 2]``, -1 behind the last one.

    k slots cannot use up more than k + 1 of them.
    """
    users = len(first) - 1
    table = np.full((users, len(bits), k + 2), -1, np.int32)
    fresh = np.flatnonzero(~is_seen[order])
    row = np.repeat(np.arange(users), np.diff(first))[fresh]
    own = (supporters[order[fresh]] >> bits.astype(np.uint64)[:, None]) & np.uint64(1) > 0
    own[bits == BLENDED_BIT] = True
    if not is_weighted.all():
        own &= is_weighted[row].T
    before = np.concatenate([np.zeros((len(bits), 1), np.int32), np.cumsum(own, axis=1, dtype=np.int32)], axis=1)
    depth = before[:, :-1] - before[:, np.searchsorted(row, np.arange(users))][:, row]
    column, at = np.nonzero(own & (depth <= k))
    table[row[at], column, depth[column, at]] = (fresh - first[row])[at]
    return table


def _take_slots(
    table: np.ndarray, weights: np.ndarray, k: int, uniform: np.ndarray | None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The strategy and the place of every slot.

    Returns (place ``[users, k]``, -1 for none; (backing, eligible, both bool ``[users, k, bits]``, column of the
    strategy, propensity, both ``[users, k]``)).
    """
    users, width, depth = table.shape
    rows, line = np.arange(users), table.ravel()
    at = np.arange(users * width).reshape(users, width) * depth  # where each strategy stands in its list
    shown = np.zeros((users, int(table.max(initial=-1)) + 2), bool)  # the last column stands for the end of a list
    flags, start = shown.ravel(), (rows * shown.shape[1])[:, None]
    credit = np.zeros((users, width))
    next_ones = np.full((users, k, width), -1)
    chosen, pick = np.full((users, k), -1), np.zeros((users, k), np.int64)
    for slot in range(k):
        upcoming = line[at]
        while (passed := flags[start + upcoming] & (upcoming >= 0)).any():
            at += passed
            upcoming = line[at]
        is_left = upcoming >= 0
        if not is_left.any():
            break
        live = weights * is_left
        if uniform is None:
            credit += live
            best = np.where(is_left, np.round(credit, 9), -np.inf).argmax(axis=1)
            credit[rows, best] -= np.cumsum(live, axis=1)[:, -1]
        else:
            reached = np.cumsum(live, axis=1)
            hit = is_left & ((uniform[:, slot] * reached[:, -1])[:, None] < reached)
            last = width - 1 - is_left[:, ::-1].argmax(axis=1)
            best = np.where(hit.any(axis=1), hit.argmax(axis=1), last)
        choice = upcoming[rows, best]
        next_ones[:, slot], chosen[:, slot], pick[:, slot] = upcoming, choice, best
        shown[rows, choice] = choice >= 0
    eligible = next_ones >= 0
    backing = eligible & (next_ones == chosen[:, :, None])
    propensity = np.full((users, k), np.nan)
    if uniform is not None:
        backed, total = (np.cumsum(weights[:, None] * part, axis=2)[:, :, -1] for part in (backing, eligible))
        propensity = backed / np.where(total > 0, total, 1.0)
    return chosen, (backing, eligible, pick, propensity)


def _filled_up(
    slots: Slots, order: np.ndarray, first: np.ndarray, is_seen: np.ndarray, short: np.ndarray, k: int, is_drawn: bool
) -> Slots:
    """The same with what no weighted strategy proposed, best first, then seen items, where lists are too short."""
    rows, candidates, bits = [slots.row], [slots.candidate], [slots.bit]
    start = np.searchsorted(slots.row, np.arange(len(first)))
    for user in short.tolist():
        own = slots.candidate[start[user] : start[user + 1]]
        line = order[first[user] : first[user + 1]]
        left = line[~is_seen[line] & ~np.isin(line, own)]
        more = np.concatenate([left, line[is_seen[line]]])[: k - len(own)]
        rows.append(np.full(len(more), user))
        candidates.append(more)
        bits.append(np.where(is_seen[more], -1, BLENDED_BIT))
    row, filled = np.concatenate(rows), sum(len(part) for part in rows[1:])
    nothing = np.zeros(filled, np.uint64)
    found = (
        row,
        np.concatenate(candidates),
        np.concatenate(bits),
        np.concatenate([slots.supporters, nothing]),
        np.concatenate([slots.eligible, nothing]),
        np.concatenate([slots.propensity, np.full(filled, 1.0 if is_drawn else np.nan)]),
    )
    by_user = np.argsort(row, kind="stable")
    return Slots(*(column[by_user] for column in found))


def diversify(order: np.ndarray, score: np.ndarray, vectors: np.ndarray, diversity: float, depth: int) -> np.ndarray:
    """Maximal marginal relevance (Carbonell and Goldstein 1998) over the first ``depth`` positions.

    Args:
        order: candidate positions, best first.
        score: per candidate position.
        vectors: unit vectors per candidate position.
        diversity: 0 keeps the order, 1 looks only at what is unlike the items above.
    """
    head, tail = order[:depth].tolist(), order[depth:]
    if not head:
        return order
    place = {candidate: position for position, candidate in enumerate(head)}
    top = max(float(score[head[0]]), 1e-12)
    nearest = dict.fromkeys(head, 0.0)

    def marginal(candidate: int) -> tuple[float, int]:
        relevance = (1 - diversity) * float(score[candidate]) / top
        return round(relevance - diversity * nearest[candidate], 9), -place[candidate]

    chosen: list[int] = []
    while head:
        best = max(head, key=marginal)
        head.remove(best)
        chosen.append(best)
        for other in head:
            nearest[other] = max(nearest[other], float(vectors[other] @ vectors[best]))
    return np.concatenate([np.asarray(chosen, np.int64), tail])


SMOOTHING = 0.01


def calibrate(
    order: np.ndarray, score: np.ndarray, category: np.ndarray, shares: dict[int, float], strength: float, depth: int
) -> np.ndarray:
    """Keep the user's own mix of categories (Steck 2018, "Calibrated recommendations") over the first positions.

    Greedily, the next item is the one with the largest (1 - strength) * sum of scores - strength * KL(p || q), q the
    mix of the list so far with it, smoothed by 0.01 p; scores are relative to the best one.

    Args:
        order: candidate positions, best first.
        score: per candidate position.
        category: code per candidate position, -1 for none.
        shares: p, the share of each category in the user's interest; sums to 1.
        strength: 0 keeps the order, 1 looks only at the mix.
        depth: positions that are put in a new order; the rest follows as it was.
    """
    if not shares or not len(order) or not depth:
        return order
    head, tail = order[: 10 * depth].tolist(), order[10 * depth :]
    top = max(float(score[head[0]]), 1e-12)
    codes, p = list(shares), np.asarray(list(shares.values()))
    column = {code: at for at, code in enumerate(codes)}
    counts = np.zeros(len(codes) + 1)  # the last one: categories the user does not have
    chosen: list[int] = []
    while head and len(chosen) < depth:
        size = len(chosen) + 1
        best_of: dict[int, int] = {}  # head is ordered: the first of a category is its best
        for candidate in head:
            best_of.setdefault(column.get(int(category[candidate]), len(codes)), candidate)
        value = {}
        for at, candidate in best_of.items():
            mix = counts.copy()
            mix[at] += 1
            q = (1 - SMOOTHING) * mix[:-1] / size + SMOOTHING * p
            distance = float((p * np.log(p / q)).sum())
            value[at] = round((1 - strength) * float(score[candidate]) / top - strength * distance, 9)
        at = max(best_of, key=lambda a: (value[a], -head.index(best_of[a])))
        chosen.append(best_of[at])
        head.remove(best_of[at])
        counts[at] += 1
    return np.concatenate([np.asarray([*chosen, *head], np.int64), tail])


def category_shares(profile: Profile) -> list[dict[int, float]]:
    """Share of each category code in every user's positive, time-decayed interest; empty where there is none."""
    code = profile.snapshot.category[profile.item]
    keep = (profile.long_weight > 0) & (code >= 0)
    shares: list[dict[int, float]] = [{} for _ in range(profile.users)]
    for user, category, weight in zip(profile.row[keep], code[keep], profile.long_weight[keep], strict=True):
        shares[user][int(category)] = shares[user].get(int(category), 0.0) + float(weight)
    return [{c: w / sum(own.values()) for c, w in sorted(own.items())} for own in shares]


def seed_of(seed: int, user_id: str) -> int:
    """Seed of one user's draw, the same for one user and for a batch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{user_id}".encode()).digest()[:8], "big")


def drawn(seeds: Sequence[int | None], users: Sequence[str], k: int) -> np.ndarray | None:
    """What draws the strategy of each slot, float64 ``[users, k]`` in [0, 1); None where no user has a seed."""
    if all(seed is None for seed in seeds):
        return None
    return np.stack(
        [
            np.random.default_rng(seed_of(seed, user)).random(k)
            for seed, user in zip(seeds, users, strict=True)
            if seed is not None
        ]
    )
