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

from m6rec_udf.kernels.listing import BLENDED_BIT, take_slots

if TYPE_CHECKING:
    from m6rec_udf.history import Profile


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
    drawn = np.zeros((0, 0)) if uniform is None else np.ascontiguousarray(uniform)
    own = np.ascontiguousarray(weights, np.float64)
    return Slots(*take_slots(order, first, supporters, is_seen, own, k, drawn, uniform is not None))


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
