"""Why an item: the history item that speaks most for it, and the parts of its satisfaction score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Behaviour, Profile

if TYPE_CHECKING:
    from m6rec_udf.candidates import Candidates
    from m6rec_udf.satisfaction import SatisfactionModel


PAIRS_AT_ONCE = 1_000_000


def evidence(snapshot: Snapshot, behaviour: Behaviour, item: np.ndarray) -> list[str | None]:
    """item_id of the history item with the largest share in the item's score; None where none speaks for it.

    Item-item weights and transitions speak first; where they are silent, the nearest text (cosine above 0.3).

    Args:
        item: int ``[users]`` item_idx, one per user, -1 for items the build does not know.
    """
    found = evidence_of(snapshot, Profile(snapshot, behaviour), item, np.arange(len(item)))
    return [None if at < 0 else snapshot.item_ids[at] for at in found.tolist()]


def evidence_of(snapshot: Snapshot, profile: Profile, item: np.ndarray, row: np.ndarray) -> np.ndarray:
    """item_idx of the evidence for items of a block of users, -1 for none.

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
    target = np.repeat(np.arange(len(item)), count)
    own = np.arange(len(target)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    keep = (profile.interest[own] > 0) & (profile.item[own] != item[target])
    target, own = target[keep], own[keep]
    out = np.full(len(item), -1)
    if not len(target):
        return out
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
    rounded = np.round(weight, 9)
    largest = np.repeat(np.maximum.reduceat(rounded, begin), end - begin)
    is_best = np.flatnonzero(rounded == largest)
    is_best = is_best[np.flatnonzero(np.diff(target[is_best], prepend=-1))]
    speaks = is_best[weight[is_best] > 0]
    out[target[speaks]] = profile.item[own[speaks]]
    return out


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


def explain(snapshot: Snapshot, behaviour: Behaviour, item: int) -> list[dict[str, object]]:
    """The parts of one user's satisfaction with one item, as rows of (part, name, value, contribution).

    Parts: ``satisfaction`` (calibrated, and its log-odds), ``base`` (the model's expectation), ``feature`` (value, and
    its contribution to the log-odds: base and contributions add up to them), ``strategy`` (raw score of those that
    proposed the item).
    """
    from m6rec_udf.candidates import propose
    from m6rec_udf.ranking import FEATURES, features

    assert snapshot.model is not None
    profile = Profile(snapshot, behaviour)
    exclude = not snapshot.settings["repeats_allowed"]
    found = propose(snapshot, profile, exclude_seen=exclude, at_least=10)
    if item not in found.item:
        found = _with_item(snapshot, profile, found, item)
    at = int(np.flatnonzero(found.item == item)[0])
    x = features(snapshot, profile, found)[at : at + 1]
    rows: list[dict[str, object]] = [
        _row("satisfaction", "calibrated", float(snapshot.model.predict(x)[0]), None),
        _row("satisfaction", "log-odds", float(snapshot.model.log_odds(x)[0]), None),
    ]
    base, shares = contributions(snapshot.model, x)
    if shares is not None:
        rows.append(_row("base", "expected log-odds", None, base))
        order = np.argsort(-np.abs(shares), kind="stable")
        rows += [_row("feature", FEATURES[i], float(x[0, i]), float(shares[i])) for i in order]
    else:
        rows += [_row("feature", name, float(x[0, i]), None) for i, name in enumerate(FEATURES)]
    for name, bit in snapshot.settings["strategies"].items():
        if int(found.supporters[at]) >> bit & 1:
            score = found.scores[name][at] if name in found.scores else None
            rows.append(_row("strategy", name, None if score is None else float(score), None))
    return rows


def contributions(model: SatisfactionModel, x: np.ndarray) -> tuple[float, np.ndarray | None]:
    """Base and contribution of each feature to the log-odds of one row ``[1, f]``; None where no model was learned.

    The trees' by SHAP (Lundberg and Lee 2017), the linear start's as weight times input, those of several parts in the
    proportion in which they answer.
    """
    from m6rec_udf.ranking import FEATURES
    from m6rec_udf.satisfaction import LINEAR_FEATURES
    from m6rec_udf.unseen import UnseenPart

    coefficient, offset = model.mixture(x)
    total = np.zeros(len(FEATURES) + 1)
    for name, weight in coefficient.items():
        part = model.parts[name]
        if not weight[0]:
            continue
        if isinstance(part, UnseenPart):
            floor, of_items, of_text = part.contributions(x)[0]
            total[FEATURES.index("score_item_item")] += weight[0] * of_items
            total[FEATURES.index("score_semantic")] += weight[0] * of_text
            total[-1] += weight[0] * floor
            continue
        booster = part.booster()
        if booster is None and not part.linear:
            return 0.0, None
        shares = np.zeros(len(FEATURES) + 1)
        if booster is not None:
            shares = np.asarray(booster.predict(x, pred_contrib=True))[0]
        linear = part.linear_parts(x)[0]
        for feature, share in zip(LINEAR_FEATURES, linear[1:], strict=True):
            shares[FEATURES.index(feature)] += share
        shares[-1] += linear[0]
        total += weight[0] * shares
    return float(total[-1] + offset[0]), total[:-1]


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
