"""From candidates to a list: mixing the strategies by their weights, drawn or deterministic.

Drawn (``serve``): per slot, independently, strategy s ~ w, then that strategy's best item not yet shown
(probabilistic multileaving with unequal team weights). The propensity of item i in slot k given the slots
above is the summed weight of the strategies whose next item is i, over the weight of the strategies with
items left. Deterministic (``recommend``): the strategy with the most credit takes the slot (smooth weighted
round-robin); with most of the weight on ``blended`` this is the order of satisfaction.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.history import Profile

BLENDED_BIT = 0


@dataclass
class Slot:
    """One slot of a list; propensity is None in a deterministic list."""

    candidate: int
    bit: int  # -1: filled up with seen items
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
    """Fill k slots: by the strategies, then what no weighted strategy proposed, best first, then seen items.

    Args:
        order: candidate positions, best first.
        supporters: bitmask per candidate position.
        is_seen: candidates that only fill up a list that would be too short.
        weights: weight by strategy bit.
        k: slots.
        generator: draws the strategy of each slot; None: deterministic.
    """
    fresh = order[~is_seen[order]]
    lists: dict[int, list[int]] = {}
    for bit in sorted(weights):
        if weights[bit] > 0:
            own = fresh if bit == BLENDED_BIT else fresh[(supporters[fresh] >> np.uint64(bit)) & np.uint64(1) > 0]
            lists[bit] = own[: k + 1].tolist()  # k slots cannot exhaust more
    if not lists:
        lists[BLENDED_BIT] = fresh.tolist()
        weights = {BLENDED_BIT: 1.0}
    at = dict.fromkeys(lists, 0)
    credit = dict.fromkeys(lists, 0.0)
    shown: set[int] = set()
    slots: list[Slot] = []
    while len(slots) < k:
        upcoming = {}
        for bit, own in lists.items():
            position = at[bit]
            while position < len(own) and own[position] in shown:
                position += 1
            at[bit] = position
            if position < len(own):
                upcoming[bit] = own[position]
        if not upcoming:
            break
        total = sum(weights[bit] for bit in upcoming)
        bit = _draw(upcoming, weights, total, generator) if generator is not None else _owed(upcoming, weights, credit)
        choice = upcoming[bit]
        backing = [other for other, candidate in upcoming.items() if candidate == choice]
        slots.append(
            Slot(
                choice,
                bit,
                sum(1 << other for other in backing),
                sum(1 << other for other in upcoming),
                sum(weights[other] for other in backing) / total if generator is not None else None,
            )
        )
        shown.add(choice)
    left = [candidate for candidate in fresh.tolist() if candidate not in shown][: k - len(slots)]
    slots += [Slot(candidate, BLENDED_BIT, 0, 0, 1.0 if generator is not None else None) for candidate in left]
    for candidate in order[is_seen[order]].tolist()[: k - len(slots)]:
        slots.append(Slot(candidate, -1, 0, 0, 1.0 if generator is not None else None))
    return slots


def _draw(
    upcoming: dict[int, int], weights: dict[int, float], total: float, generator: np.random.Generator
) -> int:
    target = generator.random() * total
    reached = 0.0
    for bit in upcoming:
        reached += weights[bit]
        if target < reached:
            return bit
    return next(reversed(upcoming))


def _owed(upcoming: dict[int, int], weights: dict[int, float], credit: dict[int, float]) -> int:
    for bit in upcoming:
        credit[bit] += weights[bit]
    bit = max(upcoming, key=lambda b: (round(credit[b], 9), -b))
    credit[bit] -= sum(weights[other] for other in upcoming)
    return bit


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
    if not shares or not len(order):
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


def slate_of(
    snapshot: Snapshot,
    own: dict[str, np.ndarray],
    weights: dict[int, float],
    boost: dict[str, float] | None,
    k: int,
    diversity: float,
    calibrated: tuple[dict[int, float], float],
    generator: np.random.Generator | None,
) -> list[dict[str, Any]]:
    """The slots of one user's candidates as rows: ordered by satisfaction times boost, diversified, calibrated, mixed.

    Args:
        own: ``item``, ``supporters``, ``is_seen``, ``satisfaction``, one entry per candidate.
        weights: weight by strategy bit.
        boost: factor by item_id; None: no boosts.
        calibrated: the user's shares of categories and how strongly the list keeps them.
        generator: draws the strategy of each slot; None: deterministic.
    """
    ids = [snapshot.item_ids[i] for i in own["item"]]
    factor = np.asarray([boost.get(i, 1.0) for i in ids]) if boost else 1.0
    score = own["satisfaction"] * factor
    order = ranking_order(score, own["item"])
    if diversity > 0 and len(order):
        order = diversify(order, score, snapshot.text[own["item"]], diversity, max(5 * k, 50))
    if calibrated[1] > 0:
        order = calibrate(order, score, snapshot.category[own["item"]], *calibrated, 2 * k)
    slots = mix(order, own["supporters"], own["is_seen"], weights, k, generator=generator)
    return [
        {
            "item_id": ids[slot.candidate],
            "rank": rank,
            "score": float(score[slot.candidate]),
            "satisfaction": float(own["satisfaction"][slot.candidate]),
            "bit": slot.bit,
            "supporters": slot.supporters,
            "eligible": slot.eligible,
            "propensity": slot.propensity,
        }
        for rank, slot in enumerate(slots, 1)
    ]


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
