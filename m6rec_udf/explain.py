"""Why an item: the history item that speaks most for it, and the parts of its satisfaction score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Behaviour, Profile

if TYPE_CHECKING:
    from m6rec_udf.candidates import Candidates


def evidence(snapshot: Snapshot, behaviour: Behaviour, item: np.ndarray) -> list[str | None]:
    """item_id of the history item with the largest share in the item's score, per row; None where none speaks for it.

    Item-item weights and transitions speak first; where they are silent, the nearest text (cosine above 0.3).
    """
    profile = Profile(snapshot, behaviour)
    out: list[str | None] = []
    first = np.searchsorted(profile.row, np.arange(behaviour.users + 1))
    for at, target in enumerate(item):
        own = np.arange(first[at], first[at + 1])
        own = own[(profile.interest[own] > 0) & (profile.item[own] != target)]
        if target < 0 or not len(own):
            out.append(None)
            continue
        items = profile.item[own]
        linked = snapshot.item_item[items, target] + snapshot.transitions[items, target]
        weight = np.asarray(linked.todense()).ravel() * profile.long_weight[own]
        if weight.max() <= 0:
            cosine = snapshot.text[items] @ snapshot.text[target]
            weight = np.where(cosine > 0.3, cosine * np.maximum(profile.long_weight[own], 1e-9), 0.0)
        best = int(np.argmax(np.round(weight, 9)))
        out.append(snapshot.item_ids[items[best]] if weight[best] > 0 else None)
    return out


def explain(snapshot: Snapshot, behaviour: Behaviour, item: int) -> list[dict[str, object]]:
    """The parts of one user's satisfaction with one item, as rows of (part, name, value, contribution).

    Parts: ``satisfaction`` (calibrated, and the raw score before calibration), ``base`` (the model's expectation),
    ``feature`` (value, and its contribution to the raw score: base and contributions add up to it; the trees' by
    SHAP, Lundberg and Lee 2017, the linear start's as weight times input), ``strategy`` (raw score of those that proposed the item).
    """
    from m6rec_udf.candidates import propose
    from m6rec_udf.ranking import FEATURES, features
    from m6rec_udf.satisfaction import LINEAR_LOGS, LINEAR_RANKS

    assert snapshot.model is not None
    profile = Profile(snapshot, behaviour)
    exclude = not snapshot.settings["repeats_allowed"]
    found = propose(snapshot, profile, exclude_seen=exclude, at_least=10)
    if item not in found.item:
        found = _with_item(snapshot, profile, found, item)
    at = int(np.flatnonzero(found.item == item)[0])
    x = features(snapshot, profile, found)[at : at + 1]
    raw = float(snapshot.model.raw(x)[0])
    rows: list[dict[str, object]] = [
        _row("satisfaction", "calibrated", float(snapshot.model.predict(x)[0]), None),
        _row("satisfaction", "raw score", raw, None),
    ]
    booster = snapshot.model.booster()
    if booster is not None:
        shares = np.asarray(booster.predict(x, pred_contrib=True))[0]
        linear = snapshot.model.linear_parts(x)[0]
        for name, part in zip(LINEAR_LOGS + LINEAR_RANKS, linear[1:], strict=True):
            shares[FEATURES.index(name)] += part
        shares[-1] += linear[0]
        rows.append(_row("base", "expected raw score", None, float(shares[-1])))
        order = np.argsort(-np.abs(shares[:-1]), kind="stable")
        rows += [_row("feature", FEATURES[i], float(x[0, i]), float(shares[i])) for i in order]
    else:
        rows += [_row("feature", name, float(x[0, i]), None) for i, name in enumerate(FEATURES)]
    for name, bit in snapshot.settings["strategies"].items():
        if int(found.supporters[at]) >> bit & 1:
            score = found.scores[name][at] if name in found.scores else None
            rows.append(_row("strategy", name, None if score is None else float(score), None))
    return rows


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
