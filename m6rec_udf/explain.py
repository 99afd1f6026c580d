"""Why an item: the history item that speaks most for it, and the parts of its satisfaction score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Behaviour, Profile

if TYPE_CHECKING:
    from m6rec_udf.candidates import Candidates
    from m6rec_udf.satisfaction import SatisfactionModel


PAIRS_AT_ONCE = 1_000_000
EVIDENCE = 3  # items of the history that an explanation names


def evidence_of(snapshot: Snapshot, profile: Profile, item: np.ndarray, row: np.ndarray) -> np.ndarray:
    """item_idx of the history item that says most for each of the items of a block of users, -1 for none.

    Item-item weights and transitions speak first; where they are silent, the nearest text (cosine above 0.3).

    Args:
        item: int ``[t]`` item_idx, -1 for items the build does not know.
        row: int ``[t]`` the user of each item, ascending.
    """
    first = np.searchsorted(profile.row, np.arange(profile.users + 1))
    count = np.where(item >= 0, first[row + 1] - first[row], 0)
    total = np.concatenate([[0], np.cumsum(count)])
    best = np.full(len(item), -1)
    start = 0
    while start < len(item):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + PAIRS_AT_ONCE, "right")) - 1)
        part = slice(start, stop)
        best[part] = _strongest(snapshot, profile, item[part], first[row[part]], count[part])
        start = stop
    return best


def _strongest(
    snapshot: Snapshot, profile: Profile, item: np.ndarray, first: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """item_idx of the evidence for each target item, -1 for none; its user's pairs start at ``first``."""
    out = np.full(len(item), -1)
    target, own, weight = _spoken(snapshot, profile, item, first, count)
    if not len(target):
        return out
    begin = np.flatnonzero(np.diff(target, prepend=-1))
    end = np.append(begin[1:], len(target))
    rounded = np.round(weight, 9)
    largest = np.repeat(np.maximum.reduceat(rounded, begin), end - begin)
    is_best = np.flatnonzero(rounded == largest)
    is_best = is_best[np.flatnonzero(np.diff(target[is_best], prepend=-1))]
    speaks = is_best[weight[is_best] > 0]
    out[target[speaks]] = profile.item[own[speaks]]
    return out


def _speaking(snapshot: Snapshot, profile: Profile, item: int) -> list[tuple[int, float]]:
    """(item_idx, share) of the history items of one user that say most for an item; the first one as evidence_of."""
    one, start = np.full(1, item), np.zeros(1, np.int64)
    _, own, weight = _spoken(snapshot, profile, one, start, np.full(1, len(profile.item)))
    total = weight[weight > 0].sum()
    order = np.argsort(-np.round(weight, 9), kind="stable")[:EVIDENCE]
    return [(int(profile.item[own[at]]), float(weight[at] / total)) for at in order if weight[at] > 0]


def _spoken(
    snapshot: Snapshot, profile: Profile, item: np.ndarray, first: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(target, own pair of the profile, what it says for the target), pairs of a target next to each other."""
    target = np.repeat(np.arange(len(item)), count)
    own = np.arange(len(target)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    keep = (profile.interest[own] > 0) & (profile.item[own] != item[target])
    target, own = target[keep], own[keep]
    if not len(target):
        return target, own, np.zeros(0)
    linked = _cells(snapshot.item_item, profile.item[own], item[target]) + _cells(
        snapshot.transitions, profile.item[own], item[target]
    )
    weight = linked * profile.long_weight[own]
    begin = np.flatnonzero(np.diff(target, prepend=-1))
    end = np.append(begin[1:], len(target))
    for at in np.flatnonzero(np.maximum.reduceat(weight, begin) <= 0).tolist():
        a, b = begin[at], end[at]
        cosine = snapshot.text[profile.item[own[a:b]]] @ snapshot.text[item[target[a]]]
        weight[a:b] = np.where(cosine > 0.3, cosine * np.maximum(profile.long_weight[own[a:b]], 1e-9), 0.0)
    return target, own, weight


def _cells(matrix: sp.csr_matrix, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Entries (row, column) of a CSR matrix by binary search inside the rows, 0 where nothing is stored."""
    if not matrix.has_sorted_indices:
        matrix.sort_indices()
    if not matrix.nnz:
        return np.zeros(len(row), matrix.dtype)
    low, end = matrix.indptr[row].astype(np.int64), matrix.indptr[row + 1].astype(np.int64)
    high, last = end.copy(), matrix.nnz - 1
    for _ in range(int((end - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        less = (low < high) & (matrix.indices[np.minimum(middle, last)] < column)
        high = np.where(less, high, middle)
        low = np.where(less, middle + 1, low)
    at = np.minimum(low, last)
    return np.where((low < end) & (matrix.indices[at] == column), matrix.data[at], 0)


def explain(
    snapshot: Snapshot,
    behaviour: Behaviour,
    item: int,
    *,
    allowed: np.ndarray | None = None,
    exclude_seen: bool | None = None,
    at_least: int = 10,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> list[dict[str, object]]:
    """The parts of one user's satisfaction with one item, as rows of (part, name, value, contribution).

    Parts: ``satisfaction`` (calibrated; its log-odds; the score before calibration), ``calibration`` (slope and
    intercept: log-odds = intercept + slope * score), ``base`` (what the model expects of any item), ``feature`` (value,
    and its contribution to the score before calibration: base and contributions add up to it), ``strategy`` (raw score
    by those that proposed the item), ``evidence`` (item_id, and its share in what the history says for the item).

    The arguments are those of ``candidates.propose``: the candidates beside the item are part of its features, so the
    satisfaction is that of a list asked for in the same way.
    """
    from m6rec_udf.candidates import propose
    from m6rec_udf.ranking import FEATURES, features

    assert snapshot.model is not None
    profile = Profile(snapshot, behaviour)
    if exclude_seen is None:
        exclude_seen = not snapshot.settings["repeats_allowed"]
    found = propose(snapshot, profile, allowed=allowed, exclude_seen=exclude_seen, at_least=at_least, extra=extra)
    if item not in found.item:
        found = _with_item(snapshot, profile, found, item)
    at = int(np.flatnonzero(found.item == item)[0])
    x = features(snapshot, profile, found)[at : at + 1]
    parts = contributions(snapshot.model, x)
    rows: list[dict[str, object]] = [
        _row("satisfaction", "calibrated", float(snapshot.model.predict(x)[0]), None),
        _row("satisfaction", "log-odds", float(snapshot.model.log_odds(x)[0]), None),
        _row("satisfaction", "before calibration", parts.score, None),
        _row("calibration", "slope", parts.slope, None),
        _row("calibration", "intercept", parts.intercept, None),
    ]
    if parts.shares is not None:
        rows.append(_row("base", "expected score", None, parts.base))
        order = np.argsort(-np.abs(parts.shares), kind="stable")
        rows += [_row("feature", FEATURES[i], float(x[0, i]), float(parts.shares[i])) for i in order]
    else:
        rows += [_row("feature", name, float(x[0, i]), None) for i, name in enumerate(FEATURES)]
    for name, bit in snapshot.settings["strategies"].items():
        if int(found.supporters[at]) >> bit & 1:
            score = found.scores[name][at] if name in found.scores else _listed_score(snapshot, profile, name, item)
            rows.append(_row("strategy", name, None if score is None else float(score), None))
    rows += [_row("evidence", snapshot.item_ids[at], share, None) for at, share in _speaking(snapshot, profile, item)]
    return rows


def _listed_score(snapshot: Snapshot, profile: Profile, name: str, item: int) -> float | None:
    """Raw score by a strategy whose list is not scored per user, as its SQL file defines it; None: only SQL knows."""
    from m6rec_udf.candidates import buy_again_score

    if name in snapshot.settings.get("in_sql", ()):
        return None
    score = None
    if name == "popular":
        score = snapshot.column("events")[item]
    elif name == "trending":
        score = snapshot.column("trend_short")[item] + snapshot.column("trend_medium")[item]
    elif name == "fresh":
        score = -np.nan_to_num(snapshot.column("age_days")[item])
    elif name == "segment_popular":
        score = snapshot.segment_trend[int(profile.segment[0]), item]
    elif name == "buy_again":
        score = buy_again_score(snapshot, profile)[profile.item == item].sum()
    return None if score is None else float(score)


@dataclass(frozen=True)
class Contributions:
    """A row's score before calibration in parts: score = base + sum(shares), log-odds = intercept + slope * score.

    Attributes:
        shares: float64 ``[f]`` by FEATURES; None where no model was learned.
    """

    score: float
    slope: float
    intercept: float
    base: float
    shares: np.ndarray | None


def contributions(model: SatisfactionModel, x: np.ndarray) -> Contributions:
    """Base and contribution of each feature to the score before calibration of one row ``[1, f]``.

    The trees' by SHAP, as LightGBM computes them (Lundberg and Lee 2017; Lundberg et al. 2020), the linear start's as
    weight times input. Where several parts answer, the score is their mean, weighted as they are in the log-odds, and
    so are its parts.
    """
    from m6rec_udf.ranking import FEATURES
    from m6rec_udf.satisfaction import LINEAR_FEATURES
    from m6rec_udf.unseen import UnseenPart

    coefficient, offset = model.mixture(x)
    own = {name: float(weight[0]) for name, weight in coefficient.items() if weight[0]}
    slope = sum(own.values())
    score, total, is_learned = 0.0, np.zeros(len(FEATURES) + 1), True
    for name, factor in own.items():
        part, weight = model.parts[name], factor / slope
        score += weight * float(part.raw(x)[0])
        if isinstance(part, UnseenPart):
            floor, of_items, of_text = part.contributions(x)[0]
            total[FEATURES.index("score_item_item")] += weight * of_items
            total[FEATURES.index("score_semantic")] += weight * of_text
            total[-1] += weight * floor
            continue
        booster = part.booster()
        if booster is None and not part.linear:
            is_learned = False
            continue
        shares = np.zeros(len(FEATURES) + 1)
        if booster is not None:
            shares = np.asarray(booster.predict(x, pred_contrib=True))[0]
        linear = part.linear_parts(x)[0]
        for feature, share in zip(LINEAR_FEATURES, linear[1:], strict=True):
            shares[FEATURES.index(feature)] += share
        shares[-1] += linear[0]
        total += weight * shares
    return Contributions(score, slope, float(offset[0]), float(total[-1]), total[:-1] if own and is_learned else None)


def _row(part: str, name: str, value: float | None, contribution: float | None) -> dict[str, object]:
    return {"part": part, "name": name, "value": value, "contribution": contribution}


def _with_item(snapshot: Snapshot, profile: Profile, found: Candidates, item: int) -> Candidates:
    """The candidates of one user and one item more that no strategy proposed."""
    from m6rec_udf.candidates import Candidates, Scores

    at = int(np.searchsorted(found.item, item))
    scores = Scores(snapshot, profile)
    row, one = np.zeros(1, np.int64), np.full(1, item)
    return Candidates(
        np.zeros(len(found.row) + 1, np.int64),
        np.insert(found.item, at, item),
        np.insert(found.supporters, at, 0),
        np.insert(found.is_seen, at, False),
        {name: np.insert(values, at, scores.of_pairs(name, row, one)) for name, values in found.scores.items()},
    )
