"""m6_basket_lists: what goes into a block of baskets, behind m6.complete_baskets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf import baskets
from m6rec_udf.arrow import HISTORY, item_index, offsets_of, whole
from m6rec_udf.history import Behaviour
from m6rec_udf.item_sets import mask_of
from m6rec_udf.registry import Context

if TYPE_CHECKING:
    import scipy.sparse as sp

    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.listing import Lists, Request

PARAMETERS = (
    "BIGINT",
    "VARCHAR",
    HISTORY,
    "VARCHAR[]",
    HISTORY,
    "STRUCT(item_id VARCHAR, bit UTINYINT)[]",
    "STRUCT(bit UTINYINT, weight DOUBLE)[]",
    "VARCHAR",
    "BIGINT",
    "BIGINT",
    "BIGINT",
    "INTEGER",
)


def make(context: Context) -> Callable[..., Any]:
    """The function over the database of a context."""

    def m6_basket_lists(
        version: Any,
        segment: Any,
        earlier: Any,
        items: Any,
        together: Any,
        extra: Any,
        weights: Any,
        domain: Any,
        among: Any,
        blocked: Any,
        boosts: Any,
        k: Any,
    ) -> Any:
        """Lists of k items that are not in the basket.

        ``earlier``: the customer's history; ``together``: the same with the basket as behaviour of this moment behind
        it, from which a basket is completed that the build has learned nothing about.
        """
        import pyarrow as pa

        from m6rec_udf import functions as f
        from m6rec_udf.arrays import of_version
        from m6rec_udf.listing import Request, boost_of, lists_of

        if not len(version):
            return pa.array([], f.slot_type())
        snapshot = of_version(context, version[0].as_py())
        contents = _contents(snapshot, whole(items))
        request = Request(
            k=k[0].as_py(),
            allowed=mask_of(context, snapshot, domain[0].as_py(), among[0].as_py(), blocked[0].as_py()),
            exclude_seen=False,
            boost=boost_of(snapshot, context.item_sets.get(boosts[0].as_py())),
        )
        proposals, segments = f.extra_of(snapshot, whole(extra)), segment.to_pylist()
        sums, is_learned = None, np.zeros(len(version), bool)
        if snapshot.baskets.nnz:
            sums = (contents @ snapshot.baskets).tocsr()
            is_learned = np.diff(sums.indptr) > 0
        parts = []
        if sums is not None and is_learned.any():
            behaviour = f.behaviour_of(snapshot, whole(earlier), segments)
            parts.append(_completed(snapshot, contents, sums, behaviour, is_learned, request, proposals))
        rest = np.flatnonzero(~is_learned)
        if len(rest):
            own = None
            if proposals is not None:
                inside = ~is_learned[proposals[0]]
                own = (np.searchsorted(rest, proposals[0][inside]), proposals[1][inside], proposals[2][inside])
            at = pa.array(rest)
            behaviour = f.behaviour_of(snapshot, whole(together).take(at), [segments[i] for i in rest])
            found = lists_of(
                snapshot, behaviour, request, weights=f.weights_by_bit(whole(weights).take(at))[None], extra=own
            )
            found.row = rest[found.row]
            parts.append(found)
        return f.slot_lists(snapshot, _joined(parts), len(version))

    return m6_basket_lists


def _contents(snapshot: Snapshot, items: Any) -> sp.csr_matrix:
    """1 for every item of a basket that the build knows, CSR ``[baskets, n]``."""
    offsets, flat = offsets_of(items)
    row, item = np.repeat(np.arange(len(items)), np.diff(offsets)), item_index(snapshot, flat)
    return baskets.matrix(row[item >= 0], item[item >= 0], (len(items), snapshot.n))


def _completed(
    snapshot: Snapshot,
    contents: sp.csr_matrix,
    sums: sp.csr_matrix,
    behaviour: Behaviour,
    rows: np.ndarray,
    request: Request,
    proposals: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> Lists:
    """The lists of the baskets of a mask, by the probability of being next, times the boost."""
    from m6rec_udf.candidates import barred
    from m6rec_udf.listing import Lists

    settings = snapshot.settings
    now = np.full(behaviour.users, float(settings["as_of"]))
    np.maximum.at(now, behaviour.row, behaviour.happened_at)
    taken = baskets.Taken.of(behaviour, now, settings["positive_at"]).by_row(behaviour.users)
    open_to_all = snapshot.is_known if request.allowed is None else snapshot.is_known & request.allowed
    not_shown = barred(snapshot, proposals)
    found = []
    for at in np.flatnonzero(rows).tolist():
        basket = baskets.row_of(contents, at)[0]
        open_ = open_to_all.copy()
        open_[basket] = False
        open_[not_shown[1][not_shown[0] == at]] = False
        pool = baskets.Pool(snapshot.demand, baskets.row_of(sums, at), taken[at], open_)
        mix = settings["baskets"]["known" if len(taken[at][0]) else "alone"]
        chance = baskets.probabilities(snapshot.demand, pool, mix, open_)
        value = chance if request.boost is None else chance * request.boost
        item = baskets.best(value, open_, request.k)
        evidence = baskets.because(snapshot.baskets, basket, item)
        found.append((np.full(len(item), at), item, value[item], chance[item], evidence))
    row, item, value, chance, evidence = (np.concatenate(column) for column in zip(*found, strict=True))
    nothing = np.zeros(len(row), np.uint64)
    no_strategy, certain = np.full(len(row), -1), np.full(len(row), np.nan)
    return Lists(row, item, value, chance, no_strategy, nothing, nothing, certain, evidence)


def _joined(parts: list[Lists]) -> Lists:
    """Lines of several lists as one, row by row."""
    from m6rec_udf.listing import Lists

    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Lists)]
    order = np.argsort(columns[0], kind="stable")
    return Lists(*(column[order] for column in columns))
