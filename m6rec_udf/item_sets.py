"""Sets of items by number: ``among``, availability and boosts of a query, kept while the process lives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.errors import ParameterError, UnknownNameError
from m6rec_udf.registry import Context, Function

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot


def mask_of(context: Context, snapshot: Snapshot, domain: str | None, among: int | None, blocked: int | None) -> Any:
    """Mask of the items that may be shown; None for all."""
    masks = [snapshot.in_domain(domain)]
    for handle, inverted in ((among, False), (blocked, True)):
        if handle is None:
            continue
        if ("set", handle) not in snapshot.masks:
            if handle not in context.item_sets:
                raise UnknownNameError(
                    f"there is no item set {handle}, expected a handle made by m6_item_set in the same query",
                    "name a table: among := 'my_items'",
                )
            mask = np.zeros(snapshot.n, bool)
            ids = [snapshot.index[i] for i in context.item_sets[handle] if i in snapshot.index]
            mask[ids] = True
            snapshot.masks["set", handle] = mask
            while len(snapshot.masks) > 200:
                snapshot.masks.pop(next(iter(snapshot.masks)))
        mask = snapshot.masks["set", handle]
        masks.append(~mask if inverted else mask)
    present = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(present) if present else None


def _make_item_set(context: Context) -> Callable[..., Any]:
    def m6_item_set(items: Any, boosts: Any) -> Any:
        import pyarrow as pa

        handles: list[int | None] = []
        for ids, factors in zip(items.to_pylist(), boosts.to_pylist(), strict=True):
            if ids is None:
                handles.append(None)
                continue
            if factors and len(factors) != len(ids):
                raise ParameterError(
                    f"m6_item_set got {len(ids)} items and {len(factors)} boosts, expected as many of both"
                )
            digest = hashlib.sha256(repr((ids, factors)).encode()).digest()
            handle = int.from_bytes(digest[:7], "big")
            with context.lock:
                context.item_sets.pop(handle, None)
                context.item_sets[handle] = dict(zip(ids, factors or [1.0] * len(ids), strict=True))
                while len(context.item_sets) > 1000:
                    context.item_sets.pop(next(iter(context.item_sets)))
            handles.append(handle)
        return pa.array(handles, pa.int64())

    return m6_item_set


ITEM_SET = Function("m6_item_set", _make_item_set, ("VARCHAR[]", "DOUBLE[]"), "BIGINT")
