"""Why an item: the history item that speaks most for it, and the parts of its satisfaction score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.history import Behaviour, Profile
from m6rec_udf.kernels.listing import said, strongest

if TYPE_CHECKING:
    from m6rec_udf.candidates import Candidates
    from m6rec_udf.satisfaction import SatisfactionModel


EVIDENCE = 3  # items of the history that an explanation names


def evidence_of(snapshot: Snapshot, profile: Profile, item: np.ndarray, row: np.ndarray) -> np.ndarray:
    """item_idx of the history item that says most for each of the items of a block of users, -1 for none.

    Item-item weights and transitions speak first; where they are silent, the nearest text (cosine above 0.3).

    Args:
        item: int64 ``[t]`` item_idx, -1 for items the build does not know.
        row: int64 ``[t]`` the user of each item.
    """
    users, weights, links = (profile.first, profile.item), (profile.interest, profile.long_weight), _links(snapshot)
    return np.asarray(strongest(users, weights, (row, item), links, snapshot.text))


def _links(snapshot: Snapshot) -> tuple[tuple[np.ndarray, ...], ...]:
    return snapshot.linked, snapshot.following


def speaking(snapshot: Snapshot, profile: Profile, item: int) -> list[tuple[int, float]]:
    """(item_idx, share) of the history items of one user that say most for an item; the first one as evidence_of."""
    weight = said(profile.item, (profile.interest, profile.long_weight), item, _links(snapshot), snapshot.text)
    weight = np.maximum(weight, 0.0)  # item-item weights may speak against an item
    order = np.argsort(-np.round(weight, 9), kind="stable")[:EVIDENCE]
    return [(int(profile.item[at]), float(weight[at] / weight.sum())) for at in order if weight[at] > 0]


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
    from m6rec_udf.candidates import SCORED, propose
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
            scored = name in SCORED
            score = found.scores[SCORED.index(name), at] if scored else _listed_score(snapshot, profile, name, item)
            rows.append(_row("strategy", name, None if score is None else float(score), None))
    rows += [_row("evidence", snapshot.item_ids[at], share, None) for at, share in speaking(snapshot, profile, item)]
    return rows


def _listed_score(snapshot: Snapshot, profile: Profile, name: str, item: int) -> float | None:
    """Raw score by a strategy whose list is not scored per user, as its SQL file defines it; None: only SQL knows."""
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
        score = profile.buy_again[profile.item == item].sum()
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
            *known, expected = np.asarray(booster.predict(x[:, : booster.num_feature()], pred_contrib=True))[0]
            shares[: len(known)], shares[-1] = known, expected
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
    own = Scores(snapshot, profile).of_pairs(np.zeros(1, np.int64), np.full(1, item))
    return Candidates(
        np.zeros(len(found.row) + 1, np.int64),
        np.insert(found.item, at, item),
        np.insert(found.supporters, at, 0),
        np.insert(found.is_seen, at, False),
        np.insert(found.scores, at, own[:, 0], axis=1),
    )
