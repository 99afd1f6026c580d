"""Learn what goes together in baskets: a closed form over baskets, and how much its word counts.

A basket is what a user took at one moment, two items or more. All is chosen and fitted on baskets of the latest window
from what came before it; then the weights are learned again from all baskets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from m6rec_udf.baskets import FEATURES, OF_THE_BASKET, Demand, Pool, Taken, matrix, row_of
from m6rec_udf.collaborative import ease, head_items, item_item_parts, joined, top_per_row
from m6rec_udf.item_models import CLOSED_FORM_ITEMS

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.event_log import Log

LEAST_SHARE = 0.3  # of the successes in baskets, from which baskets are usual
LEAST_QUESTIONS = 100
QUESTIONS = 2500
MOST_PAIRS = 100_000_000  # of items in one basket, all baskets together; the latest baskets stay
HALF_LIFE = 0.25  # share of the span, of what an earlier basket counts
REGULARISATION_PER_BASKET = (0.0005, 0.002, 0.01, 0.05)
NEIGHBOURS = 400
CHOICE_ITEMS = 3000  # most popular ones, among which the regularisation is chosen
TAIL_WEIGHT = 0.3
DEPTH = 10
RIDGE = 1.0
MIXES = {"what goes together": FEATURES[1:2], "with demand": FEATURES[:OF_THE_BASKET]}


@dataclass(frozen=True)
class Baskets:
    """Baskets in the order of time: what a user took at one moment.

    Attributes:
        user: int ``[b]``. moment: float64 ``[b]``, seconds since 1970.
        x: 1 for every (basket, item), CSR ``[b, n]``.
    """

    user: np.ndarray
    moment: np.ndarray
    x: sp.csr_matrix

    def only(self, keep: np.ndarray) -> Baskets:
        """Some of the baskets."""
        return Baskets(self.user[keep], self.moment[keep], self.x[keep])


def find(log: Log, after: float, until: float, n: int) -> tuple[Baskets, float]:
    """Baskets of (after, until] in the order of time, and the share of the successes that are in one."""
    good = np.flatnonzero(log.is_positive & (log.happened_at > after) & (log.happened_at <= until))
    user, moment = log.user[good], log.happened_at[good]  # in the order of the log: by user and time
    new = (np.diff(user, prepend=-1) != 0) | (np.diff(moment, prepend=np.nan) != 0)
    row = np.cumsum(new) - 1
    several = np.bincount(row, minlength=1)[row] >= 2  # most logs have few: the rest need not be sorted
    x = matrix(row[several], log.item[good[several]], (int(new.sum()), n))
    length = np.diff(x.indptr)
    baskets = np.flatnonzero(length >= 2)
    alone = int((~several).sum()) + int(length[length == 1].sum())
    inside = int(length[baskets].sum())
    order = baskets[np.lexsort((user[new][baskets], moment[new][baskets]))]
    return Baskets(user[new][order], moment[new][order], x[order]), inside / max(inside + alone, 1)


def weights_of(baskets: Baskets, *, until: float, span_days: float, regularisation: float) -> sp.csr_matrix:
    """Which item speaks for which, CSR ``[n, n]``: row = item in the basket, column = item that goes with it."""
    x = _decayed(_latest(baskets), until, span_days)
    parts = item_item_parts(x, regularisation=regularisation, neighbours=NEIGHBOURS, most_items=CLOSED_FORM_ITEMS)
    return joined(*parts, TAIL_WEIGHT)


def weights_as_of(snapshot: Snapshot, log: Log) -> sp.csr_matrix:
    """``weights_of`` all baskets up to the snapshot's moment, with the settings chosen."""
    chosen, as_of = snapshot.settings["baskets"], float(snapshot.settings["as_of"])
    found = find(log, -np.inf, as_of, snapshot.n)[0]
    regularisation = float(chosen["regularisation_per_basket"]) * found.x.shape[0]
    span = float(snapshot.settings["span_days"])
    return weights_of(found, until=as_of, span_days=span, regularisation=regularisation)


def _latest(baskets: Baskets) -> Baskets:
    """The latest baskets with at most MOST_PAIRS pairs of items."""
    length = np.diff(baskets.x.indptr).astype(np.int64)
    pairs = np.cumsum((length * length)[::-1])[::-1]
    return baskets.only(pairs <= MOST_PAIRS) if len(pairs) and pairs[0] > MOST_PAIRS else baskets


def _decayed(baskets: Baskets, until: float, span_days: float) -> sp.csr_matrix:
    """Baskets times the square root of what they count: in X'X they count that."""
    age = (until - baskets.moment) / 86400.0
    return (sp.diags((0.5 ** (0.5 * age / (HALF_LIFE * span_days))).astype(np.float32)) @ baskets.x).tocsr()


@dataclass(frozen=True)
class Questions:
    """Baskets with one item hidden.

    Attributes:
        user, moment, target: ``[q]``.
        given: what is left of each basket, CSR ``[q, n]``.
    """

    user: np.ndarray
    moment: np.ndarray
    target: np.ndarray
    given: sp.csr_matrix


def questions_of(baskets: Baskets, known: np.ndarray, seed: int) -> Questions:
    """One item of each basket hidden, of those with behaviour before the window (``known``, bool ``[n]``)."""
    generator = np.random.default_rng(seed)
    x = baskets.x @ sp.diags(known.astype(np.float32))
    x.eliminate_zeros()
    asked = np.flatnonzero(np.diff(x.indptr) >= 2)
    if len(asked) > QUESTIONS:
        asked = np.sort(generator.choice(asked, QUESTIONS, replace=False))
    x = x[asked].tocsr()
    x.sort_indices()
    length = np.diff(x.indptr)
    at = x.indptr[:-1] + np.floor(generator.random(len(asked)) * length).astype(np.int64)
    target = x.indices[at].astype(np.int64)
    keep = np.ones(x.nnz, bool)
    keep[at] = False
    row = np.repeat(np.arange(len(asked)), length)[keep]
    given = matrix(row, x.indices[keep], x.shape)
    return Questions(baskets.user[asked], baskets.moment[asked], target, given)


def choose(snapshot: Snapshot, log: Log, until: float, seed: int) -> tuple[dict[str, Any], str]:
    """Regularisation and mix by the baskets of (as_of, until], from what was known at as_of.

    Returns:
        ``regularisation_per_basket`` and the mixes (see ``baskets.probabilities``) ``alone``, for a basket, and
        ``known``, for that of a customer with a history; nothing where baskets are not usual. And why.
    """
    as_of, span = float(snapshot.settings["as_of"]), float(snapshot.settings["span_days"])
    before, share = find(log, -np.inf, as_of, snapshot.n)
    if share < LEAST_SHARE:
        return {}, f"{share:.1%} of successes come with others of the same user and moment; from {LEAST_SHARE:.0%} on"
    asked = questions_of(find(log, as_of, until, snapshot.n)[0], snapshot.column("events") > 0, seed)
    if len(asked.target) < LEAST_QUESTIONS:
        return {}, f"{len(asked.target)} baskets in the latest window; {LEAST_QUESTIONS} are needed"
    per_basket, figures = _choose_regularisation(snapshot, before, asked)
    weights = weights_of(before, until=as_of, span_days=span, regularisation=per_basket * before.x.shape[0])
    behaviour = log.before(asked.user, asked.moment, snapshot.settings["segments"])
    taken = Taken.of(behaviour, asked.moment, snapshot.settings["positive_at"])
    rows = _rows(snapshot, asked, (asked.given @ weights).tocsr(), taken)
    alone, of_alone = _choose_mix(rows, customer=False)
    has_history = np.isin(np.arange(len(asked.target)), taken.row)
    known, of_known = alone, "as without"
    if has_history.sum() >= LEAST_QUESTIONS:
        known, of_known = _choose_mix(rows.only(has_history), customer=True)
    return {"regularisation_per_basket": per_basket, "alone": alone, "known": known}, (
        f"{share:.1%} of successes are in baskets; NDCG@{DEPTH} of {len(asked.target)} hidden items of the latest "
        f"window: {figures}; mix {of_alone}; customer known: {of_known}"
    )


def _choose_regularisation(snapshot: Snapshot, before: Baskets, asked: Questions) -> tuple[float, str]:
    """The regularisation that finds most hidden items, among the most popular ones."""
    as_of, span = float(snapshot.settings["as_of"]), float(snapshot.settings["span_days"])
    x = _decayed(_latest(before), as_of, span)
    head = head_items(x, CHOICE_ITEMS)
    place = np.full(snapshot.n, -1)
    place[head] = np.arange(len(head))
    inside = np.flatnonzero(place[asked.target] >= 0)
    given, target = asked.given[inside][:, head], place[asked.target[inside]]
    found = {}
    for per_basket in REGULARISATION_PER_BASKET:
        closed = top_per_row(ease(x[:, head], per_basket * before.x.shape[0]).T, NEIGHBOURS).T.tocsr()
        found[per_basket] = round(_ndcg((given @ closed).tocsr(), given, target), 6)
    return max(found, key=lambda p: found[p]), ", ".join(f"{p:g} a basket {v:.4f}" for p, v in found.items())


def _ndcg(scores: sp.csr_matrix, given: sp.csr_matrix, target: np.ndarray) -> float:
    """Mean NDCG at DEPTH of one target each; a target without a score is not found."""
    total = 0.0
    for start in range(0, len(target), 500):
        lines = scores[start : start + 500].toarray()
        lines[given[start : start + 500].nonzero()] = 0
        own = lines[np.arange(len(lines)), target[start : start + 500]][:, None]
        rank = 1 + (lines > own).sum(axis=1)
        total += float(np.where((own[:, 0] > 0) & (rank <= DEPTH), 1 / np.log2(rank + 1), 0.0).sum())
    return total / max(len(target), 1)


@dataclass(frozen=True)
class _Rows:
    """Candidates of the questions whose target is one, the target first.

    Attributes:
        x: ``[r, features]``.
        question: ``[r]`` ascending. questions: number of them, also those without rows.
        first: where the rows of each question begin.
    """

    x: np.ndarray
    question: np.ndarray
    questions: int

    @property
    def first(self) -> np.ndarray:
        """Where the rows of each question that has some begin."""
        return np.flatnonzero(np.diff(self.question, prepend=-1))

    def only(self, keep: np.ndarray) -> _Rows:
        """The rows of the questions of a mask."""
        rows = keep[self.question]
        return _Rows(self.x[rows], self.question[rows], int(keep.sum()))


def _rows(snapshot: Snapshot, asked: Questions, together: sp.csr_matrix, taken: Taken) -> _Rows:
    demand, own = Demand(snapshot), taken.by_row(len(asked.target))
    xs, questions = [], []
    for at, target in enumerate(asked.target.tolist()):
        open_ = snapshot.is_known.copy()
        open_[row_of(asked.given, at)[0]] = False
        pool = Pool(demand, row_of(together, at), own[at], open_)
        place = int(np.searchsorted(pool.items, target))
        if place < len(pool.items) and pool.items[place] == target:
            xs.append(np.concatenate([pool.x[place : place + 1], np.delete(pool.x, place, axis=0)]))
            questions.append(np.full(len(pool.items), at))
    nothing = np.zeros((0, len(FEATURES)))
    return _Rows(np.concatenate([nothing, *xs]), np.concatenate([np.zeros(0, np.int64), *questions]), len(asked.target))


def _choose_mix(rows: _Rows, *, customer: bool) -> tuple[dict[str, Any], str]:
    """The mix that ranks the targets best, and the figures in words."""
    found = {}
    for name, features in MIXES.items():
        used = [FEATURES.index(f) for f in (*features, *(FEATURES[OF_THE_BASKET:] if customer else ()))]
        weights = np.zeros(len(FEATURES))
        if len(rows.x):
            weights[used] = _softmax_regression(rows.x[:, used], rows.first)
        found[name] = round(_ndcg_of(rows, weights), 6), weights.tolist()
    name = max(found, key=lambda mix: found[mix][0])
    reach = len(rows.first) / max(rows.questions, 1)
    return {"weights": found[name][1], "reach": reach}, ", ".join(f"{m} {v:.4f}" for m, (v, _) in found.items())


def _ndcg_of(rows: _Rows, weights: np.ndarray) -> float:
    raw, first = rows.x @ weights, rows.first
    if not len(first):
        return 0.0
    is_above = raw > np.repeat(raw[first], np.diff(np.append(first, len(raw))))
    rank = 1 + np.add.reduceat(is_above.astype(np.int64), first)
    return float(np.where(rank <= DEPTH, 1 / np.log2(rank + 1), 0.0).sum()) / rows.questions


def _softmax_regression(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Weights under which the targets are most likely (McFadden 1974, "Conditional logit analysis"), ``[features]``.

    ``first``: where the rows of each question begin, the target in front.
    """
    from scipy.optimize import minimize

    spread = np.maximum(x.std(axis=0), 1e-9)
    z = x / spread
    question = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(z))))
    of_targets = z[first].sum(axis=0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        raw = z @ w
        highest = np.maximum.reduceat(raw, first)
        power = np.exp(raw - highest[question])
        total = np.add.reduceat(power, first)
        value = float((highest + np.log(total) - raw[first]).sum())
        gradient = (power / total[question]) @ z - of_targets
        return value + 0.5 * RIDGE * float(w @ w), gradient + RIDGE * w

    found = minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B").x
    return np.asarray(found / spread)
