"""One moment of the data as arrays: what serving reads, loaded once per version and shared by all cursors.

The SQL models are the definition; a snapshot is their cache, stored in ``m6.artefacts`` with the hash of its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from m6rec_udf import artefacts
from m6rec_udf.errors import NotBuiltError

if TYPE_CHECKING:
    import duckdb

    from m6rec_udf.baskets import Demand
    from m6rec_udf.cells import Cells
    from m6rec_udf.registry import Context
    from m6rec_udf.satisfaction import SatisfactionModel

ITEM_COLUMNS = (
    "events",
    "users",
    "satisfaction",
    "trend_very_short",
    "trend_short",
    "trend_medium",
    "trend_long",
    "successes",
    "success_short",
    "success_medium",
    "success_long",
    "age_days",
    "idle_days",
    "repurchase_rate",
    "repurchase_days",
    "price",
)


@dataclass
class Snapshot:
    """Arrays of one moment; ``n`` items, integer item_idx in the order of item_id.

    Attributes:
        settings: as_of (seconds since 1970), span_days, repeats_allowed, domains, segments, encoder, strategies, ...
        item_ids, titles: ``n`` texts; None for an item without a title.
        item: float32 ``[n, len(ITEM_COLUMNS)]`` of feat_item_activity.
        domain, category, brand: int32 ``[n]`` codes, -1 for none.
        is_known: bool ``[n]``, in the catalogue at as_of.
        transitions, item_item: CSR ``[n, n]``.
        factors, fold_in: float32 ``[n, d]``.
        text: float32 ``[n, e]`` unit length; with vector columns the content of all (``vector_columns``).
        segment_trend: CSR ``[segments, n]``.
        learned_users: int32 ``[n]``, users of each item that item_item and factors were learned from; 0: its weights
            were made from its text, or it came later and was folded in.
        strength: float32 ``[d]``, squared singular values of the factors (see ``collaborative.folded_in``).
        baskets: CSR ``[n, n]``, what goes with the items of a basket; nothing stored where baskets are not usual.
        cells: where there are many items, their text vectors in cells; None: exact search.
        kept: content hash by name of the artefacts that are those of another version.
    """

    settings: dict[str, Any]
    item_ids: list[str]
    titles: list[str | None]
    item: np.ndarray
    domain: np.ndarray
    category: np.ndarray
    brand: np.ndarray
    is_known: np.ndarray
    transitions: sp.csr_matrix
    item_item: sp.csr_matrix
    factors: np.ndarray
    fold_in: np.ndarray
    text: np.ndarray
    segment_trend: sp.csr_matrix
    learned_users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    strength: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    baskets: sp.csr_matrix = field(default_factory=lambda: sp.csr_matrix((0, 0), dtype=np.float32))
    model: SatisfactionModel | None = None
    cells: Cells | None = None
    kept: dict[str, str] = field(default_factory=dict)
    masks: dict[Any, np.ndarray] = field(default_factory=dict)
    _workspaces: list[tuple[np.ndarray, ...]] = field(default_factory=list, init=False, repr=False)
    _is_sorting: bool = field(default=False, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workspaces": [], "_is_sorting": False}

    @contextmanager
    def workspace(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Arrays for ``kernels.proposing`` to work on, kept from one list to the next; one set for each at work."""
        from m6rec_udf.kernels.proposing import workspace

        try:
            own = self._workspaces.pop()
        except IndexError:
            own = workspace(self.n)
        yield own
        self._workspaces.append(own)  # not after an error: they may not be clean

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """item_id to item_idx."""
        return {item_id: idx for idx, item_id in enumerate(self.item_ids)}

    @cached_property
    def arrow_ids(self) -> Any:
        """item_ids as a pyarrow string array."""
        import pyarrow as pa

        return pa.array(self.item_ids, pa.string())

    def column(self, name: str) -> np.ndarray:
        """One column of feat_item_activity, float32 ``[n]``."""
        return self.item[:, ITEM_COLUMNS.index(name)]

    @cached_property
    def trend_factor(self) -> np.ndarray:
        """Recent over all-time behaviour to a power, float32 ``[n]`` (the SQL table item_trend).

        An item without behaviour has no trend yet: it gets the lower quartile of those that have.
        """
        power = float(self.settings.get("trend_power", 0.5))
        name = self.settings.get("trend_column", "trend_short")
        events = self.column("events")
        factor = ((self.column(name) + 1e-3) / (events + 20.0)) ** power
        if (events > 0).any():
            factor = np.where(events > 0, factor, np.quantile(factor[events > 0], 0.25))
        return np.asarray(factor, np.float32)

    @cached_property
    def item_features(self) -> np.ndarray:
        """What the satisfaction model sees of each item, float32 ``[n, features named item_*]``."""
        from m6rec_udf.ranking import item_features

        return item_features(self)

    @cached_property
    def popular_order(self) -> np.ndarray:
        """All known items, most behaviour first, ties by item_id."""
        order = np.lexsort((np.arange(self.n), -self.column("events")))
        return np.asarray(order[self.is_known[order]])

    @cached_property
    def trending_order(self) -> np.ndarray:
        """Items with behaviour, most of it lately first."""
        score = np.round(self.column("trend_short") + self.column("trend_medium"), 6)
        order = np.lexsort((np.arange(self.n), -score))
        return np.asarray(order[(score[order] > 0) & self.is_known[order]])

    @cached_property
    def fresh_order(self) -> np.ndarray:
        """Items that came within the last 5 % of the span, youngest first."""
        age = np.nan_to_num(self.column("age_days"), nan=0.0)
        order = np.lexsort((np.arange(self.n), np.round(age, 6)))
        return np.asarray(order[(age[order] <= 0.05 * self.settings["span_days"]) & self.is_known[order]])

    @cached_property
    def demand(self) -> Demand:
        """How much every item is in demand, where a basket is completed."""
        from m6rec_udf.baskets import Demand

        return Demand(self)

    @cached_property
    def blocks(self) -> list[tuple[str, int, float]]:
        """(column, dimensions, weight) of the parts of ``text``; empty where it is the text alone."""
        return [(name, dimension, weight) for name, dimension, weight in self.settings.get("columns", [])]

    @cached_property
    def block_norms(self) -> np.ndarray:
        """Length of each part of each item's vector, float32 ``[n, blocks]``."""
        from m6rec_udf.vector_columns import block_norms

        return block_norms(self.text, self.blocks)

    @cached_property
    def block_centre(self) -> np.ndarray:
        """Mean of each part over the items that have it, float32 ``[e]``."""
        from m6rec_udf.vector_columns import block_centre

        known = self.is_known
        return block_centre(self.text[known], self.block_norms[known], self.blocks)

    @cached_property
    def text_in_cells(self) -> np.ndarray:
        """``text`` in the order of the cells."""
        assert self.cells is not None
        return np.ascontiguousarray(self.text[self.cells.order])

    def text_in_cells_if_made(self) -> np.ndarray | None:
        """The same where it is there; else None, and it is made meanwhile: the first list does not wait for it."""
        found: np.ndarray | None = self.__dict__.get("text_in_cells")
        if found is None and not self._is_sorting:
            self._is_sorting = True
            Thread(target=getattr, args=(self, "text_in_cells"), daemon=True).start()
        return found

    @cached_property
    def labels(self) -> int:
        """More than any code of a category or brand."""
        return 1 + max(int(self.category.max(initial=-1)), int(self.brand.max(initial=-1)))

    @cached_property
    def repurchase_days(self) -> np.ndarray:
        """Median days until an item is had again, float32 ``[n]``, NaN where that never happened."""
        return np.ascontiguousarray(self.column("repurchase_days"))

    @cached_property
    def every_item(self) -> np.ndarray:
        """item_idx of all items, int32 ``[n]``."""
        return np.arange(self.n, dtype=np.int32)

    @cached_property
    def following(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The parts of ``transitions``: where each row starts (int64), columns (int32), values (float32)."""
        return _parts_of(self.transitions)

    @cached_property
    def linked(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of ``item_item``."""
        return _parts_of(self.item_item)

    @cached_property
    def factors_by_length(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Known items, the longest vectors (factors times trend) first.

        Returns (item_idx; the vectors; their lengths; the first dimensions of the vectors, the largest ones; the
        lengths of what is behind these).
        """
        vectors = self.factors * self.trend_factor[:, None]
        length = np.sqrt((vectors * vectors).sum(1))
        order = np.lexsort((np.arange(self.n), -length))
        order = order[self.is_known[order] & (length[order] > 0)]
        head, tail = vectors[order, :HEAD], vectors[order, HEAD:]
        lengths = length[order].astype(np.float32), np.sqrt((tail * tail).sum(1)).astype(np.float32)
        parts = np.ascontiguousarray(vectors[order], np.float32), np.ascontiguousarray(head, np.float32)
        return order, parts[0], lengths[0], parts[1], lengths[1]

    def segment_order(self, segment: int) -> np.ndarray:
        """Items that are popular in a segment, best first."""
        key = ("segment", segment)
        if key not in self.masks:
            a, b = self.segment_trend.indptr[segment : segment + 2]
            item, trend = self.segment_trend.indices[a:b], self.segment_trend.data[a:b]
            self.masks[key] = item[np.lexsort((item, -np.round(trend, 5)))].astype(np.int64)
        return self.masks[key]

    def in_domain(self, name: str | None) -> np.ndarray | None:
        """Mask of the items of a domain; None for every domain."""
        if name is None:
            return None
        if ("domain", name) not in self.masks:
            domains = self.settings["domains"]
            code = domains.index(name) if name in domains else -2
            self.masks["domain", name] = self.domain == code
        return self.masks["domain", name]

    def persons(self, ids: Iterable[str]) -> np.ndarray:
        """Mask of the persons of these user_ids; items of other domains are nobody, whatever their item_id."""
        mask = np.zeros(self.n, bool)
        if PEOPLE in self.settings["domains"]:
            code = self.settings["domains"].index(PEOPLE)
            found = [self.index[i] for i in ids if i in self.index]
            mask[[item for item in found if self.domain[item] == code]] = True
        return mask


def _parts_of(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = (matrix.indptr, np.int64), (matrix.indices, np.int32), (matrix.data, np.float32)
    start, column, value = (np.ascontiguousarray(part, kind) for part, kind in parts)
    return start, column, value


HEAD = 16  # dimensions of the factors that are looked at first
PEOPLE = "people"  # the domain whose items are persons: their item_id is a user_id
_OPTIONAL = ("learned_users", "strength")  # builds of an earlier release lack both
_ARRAYS = ("item", "domain", "category", "brand", "is_known", "factors", "fold_in", "text", *_OPTIONAL)
_CELLS = ("centres", "order", "start")
_MATRICES = ("transitions", "item_item", "segment_trend")
_BASKETS = "baskets"  # a matrix of builds that have learned one


def store(con: duckdb.DuckDBPyConnection, version: int, snapshot: Snapshot) -> None:
    """Write the snapshot and its satisfaction model into ``m6.artefacts``; what it has ``kept`` is only named."""
    assert snapshot.model is not None
    kept = snapshot.kept
    parts: dict[str, bytes] = {
        "settings": json.dumps(snapshot.settings, sort_keys=True).encode(),
        "item_ids": json.dumps(snapshot.item_ids).encode(),
        "titles": json.dumps(snapshot.titles).encode(),
        "satisfaction": snapshot.model.to_json().encode(),
    }
    arrays = {name: getattr(snapshot, name) for name in _ARRAYS}
    for name in (*_MATRICES, *((_BASKETS,) if snapshot.baskets.nnz else ())):
        matrix = getattr(snapshot, name)
        arrays |= {f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        arrays[f"{name}.shape"] = np.asarray(matrix.shape)
    if snapshot.cells is not None:
        arrays |= {f"cells.{part}": getattr(snapshot.cells, part) for part in _CELLS}
    parts |= {name: artefacts.npy(array) for name, array in arrays.items() if name not in kept}
    artefacts.write(con, version, parts, kept)


def load(con: duckdb.DuckDBPyConnection, version: int) -> Snapshot:
    """Read a snapshot back, checking every hash.

    Raises NotBuiltError: no such version. CorruptError: bytes that do not match their hash.
    """
    from m6rec_udf.satisfaction import SatisfactionModel

    parts = artefacts.read(con, version)
    if "titles" not in parts:
        raise NotBuiltError(
            f"model_version {version} was made by another version of m6rec, expected the artefact 'titles'",
            "run m6rec_udf.build(con) again; the data stays as it is",
        )

    def text(name: str) -> str:
        return bytes(parts[name]).decode()

    is_earlier = not any(name in parts for name in _OPTIONAL)
    names = [name for name in _ARRAYS if not (is_earlier and name in _OPTIONAL)]
    has_baskets = f"{_BASKETS}.shape" in parts
    matrices = {name: matrix_of(parts, name) for name in (*_MATRICES, *((_BASKETS,) if has_baskets else ()))}
    for matrix in matrices.values():
        matrix.sort_indices()  # searched by several threads at once
    return Snapshot(
        settings=json.loads(text("settings")),
        item_ids=json.loads(text("item_ids")),
        titles=json.loads(text("titles")),
        model=SatisfactionModel.from_json(text("satisfaction")),
        cells=cells_of(parts),
        **{name: artefacts.from_npy(parts[name]) for name in names},  # type: ignore[arg-type]
        **matrices,
    )


def matrix_of(parts: Mapping[str, Any], name: str) -> sp.csr_matrix:
    """A sparse matrix from the parts of a version."""
    data, indices, indptr, shape = (
        artefacts.from_npy(parts[f"{name}.{part}"]) for part in ("data", "indices", "indptr", "shape")
    )
    return sp.csr_matrix((data, indices, indptr), shape=tuple(shape))


def cells_of(parts: Mapping[str, Any]) -> Cells | None:
    """The cells from the parts of a version, where it has some."""
    from m6rec_udf.cells import Cells

    if "cells.order" not in parts:
        return None
    return Cells(*(artefacts.from_npy(parts[f"cells.{part}"]) for part in _CELLS))


def of_version(context: Context, version: int) -> Snapshot:
    """The snapshot of a version, from memory or from the file; at most three versions stay in memory."""
    with context.lock:
        if version not in context.snapshots:
            con = context.open()
            try:
                snapshot = load(con, version)
            finally:
                con.close()
            while len(context.snapshots) >= 3:
                context.snapshots.pop(min(context.snapshots))
            context.snapshots[version] = snapshot
        return context.snapshots[version]
