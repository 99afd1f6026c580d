"""What is learned about items from behaviour, item-item weights and factors: by a build, or taken over by a rebuild.

A rebuild keeps what the version in force has learned and folds in what that could not know: items that came since,
items that had no behaviour then and have some now, items with another text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp

from m6rec_udf import artefacts, collaborative, new_items
from m6rec_udf.arrays import matrix_of

if TYPE_CHECKING:
    import duckdb

    from m6rec_udf.moment import Settings

FACTORS = 64
CLOSED_FORM_ITEMS = 6000
ARTEFACTS = ("factors", "fold_in", "strength", "learned_users")
PARTS = ("data", "indices", "indptr", "shape")
MATRIX = tuple(f"item_item.{part}" for part in PARTS)
BASKETS = tuple(f"baskets.{part}" for part in PARTS)


@dataclass
class Factors:
    """Factors of items.

    Attributes:
        factors, fold_in: float32 ``[n, d]``, as of ``collaborative.svd_factors``.
        strength: float32 ``[d]`` squared singular values.
        learned_users: int32 ``[n]``, see ``arrays.Snapshot``.
    """

    factors: np.ndarray
    fold_in: np.ndarray
    strength: np.ndarray
    learned_users: np.ndarray


class ItemModels(Protocol):
    """Where a snapshot has its item models from; ``x``: interactions, CSR ``[users, n]``."""

    kept: dict[str, str]

    def factors(self, x: sp.csr_matrix) -> Factors:
        """The factors."""

    def item_item(self, x: sp.csr_matrix) -> sp.csr_matrix:
        """The item-item weights, CSR ``[n, n]``."""


@dataclass
class Learned:
    """Item models learned from the interactions.

    Attributes:
        chosen: settings.
        items: columns of ``moment.catalogue``.
        text: text vectors of the items.
        has_weights: False leaves the item-item weights empty: their settings are not chosen yet.
    """

    chosen: Settings
    items: dict[str, Any]
    text: np.ndarray
    has_weights: bool = True
    kept: dict[str, str] = field(default_factory=dict)

    def factors(self, x: sp.csr_matrix) -> Factors:
        """Truncated singular values."""
        found = collaborative.svd_factors(x, factors=FACTORS, seed=self.chosen.seed)
        return Factors(*found, users_of(x))

    def item_item(self, x: sp.csr_matrix) -> sp.csr_matrix:
        """Closed form and cosines, and weights of items without behaviour from their text."""
        if not self.has_weights:
            return sp.csr_matrix((x.shape[1],) * 2, dtype=np.float32)
        return with_new_items(x, item_item_weights(x, self.chosen), self.text, self.items)


class TakenOver:
    """Item models of an earlier version, numbered anew, with what it could not know folded in.

    Args:
        con: connection to read the version with.
        version: the one in force.
        chosen: settings.
        items: columns of ``moment.catalogue``.
        text: text vectors of the items.
        is_same_text: bool ``[n]``, items that the version has with this text vector; None: vectors are compared.

    Attributes:
        kept: content hashes of the artefacts that stayed as they were.
        folded_in: number of items that were made anew.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        version: int,
        chosen: Settings,
        items: dict[str, Any],
        text: np.ndarray,
        is_same_text: np.ndarray | None = None,
    ) -> None:
        names = [*ARTEFACTS, *MATRIX, *BASKETS, "item_ids", *(["text"] if is_same_text is None else [])]
        parts = artefacts.read(con, version, names)
        self.chosen, self.items, self.text = chosen, items, text
        self.kept: dict[str, str] = {}
        self.folded_in = 0
        self._before = Factors(*(artefacts.from_npy(parts[name]) for name in ARTEFACTS))
        self._weights = matrix_of(parts, "item_item")
        self._baskets = matrix_of(parts, "baskets") if chosen.baskets else None
        self._hashes = artefacts.hashes(con, version)
        ids = json.loads(bytes(parts["item_ids"]))
        self._place = places(ids, items["item_ids"])
        if is_same_text is None:
            is_same_text = _same_texts(artefacts.from_npy(parts["text"]), text, self._place)
        self._is_same_text = is_same_text
        self._is_unmoved = len(ids) == len(text) and bool((self._place == np.arange(len(text))).all())
        if self._is_unmoved and self._is_same_text.all():
            self.kept["text"] = self._hashes["text"]

    def factors(self, x: sp.csr_matrix) -> Factors:
        """Those of before; of items that were not learned from, from their users."""
        new = self._made_anew(x)[0]
        if not new.any() and self._is_unmoved:
            self.kept |= {name: self._hashes[name] for name in ARTEFACTS}
            return self._before
        factors, fold_in, learned_users = (
            _moved(array, self._place)
            for array in (self._before.factors, self._before.fold_in, self._before.learned_users)
        )
        strength = self._before.strength
        self.kept["strength"] = self._hashes["strength"]
        return Factors(
            *collaborative.folded_in(x, factors, fold_in, strength, np.flatnonzero(new)), strength, learned_users
        )

    def item_item(self, x: sp.csr_matrix) -> sp.csr_matrix:
        """Those of before; of other items cosines, or weights from their text where they have no behaviour."""
        from_users, from_text = self._made_anew(x)
        self.folded_in = int(from_users.sum() + from_text.sum())
        if not self.folded_in and self._is_unmoved:
            self.kept |= {name: self._hashes[name] for name in MATRIX}
            return self._weights
        without = users_of(x) == 0
        is_kept = ~from_users & ~without if from_text.any() else ~from_users
        weights = _renumbered(self._weights, self._place, is_kept)
        if from_users.any():
            weights = collaborative.joined(weights, collaborative.cosines(x, from_users), self.chosen.tail_weight)
        return with_new_items(x, weights, self.text, self.items) if from_text.any() else weights

    def baskets(self) -> sp.csr_matrix:
        """What goes together in baskets, as before; items that came since have no part in it."""
        assert self._baskets is not None
        if self._is_unmoved:
            self.kept |= {name: self._hashes[name] for name in BASKETS}
            return self._baskets
        return _renumbered(self._baskets, self._place, self._place >= 0)

    def _made_anew(self, x: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Masks of the items whose weights are made anew, from their users and from their text."""
        learned = _moved(self._before.learned_users, self._place) > 0
        has_users = users_of(x) > 0
        return has_users & ~learned, ~has_users & ~self._is_same_text


def places(before: list[str], now: list[str]) -> np.ndarray:
    """Where each of ``now`` stood in ``before``, -1 for nowhere; int64."""
    index = {name: at for at, name in enumerate(before)}
    return np.asarray([index.get(name, -1) for name in now], np.int64)


def users_of(x: sp.csr_matrix) -> np.ndarray:
    """Users of each item, int32 ``[n]``."""
    return np.bincount(x.indices, minlength=x.shape[1]).astype(np.int32)


def _moved(array: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Rows in the new numbering; zeros for items that were not there."""
    found = np.zeros((len(place), *array.shape[1:]), array.dtype)
    found[place >= 0] = array[place[place >= 0]]
    return found


def _same_texts(before: np.ndarray, now: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Whether items have the vector that they had before, at ``place``; bool ``[n]``."""
    found = np.zeros(len(now), bool)
    is_old = place >= 0
    if before.shape[1:] == now.shape[1:]:
        found[is_old] = _same_rows(before, place[is_old], now, np.flatnonzero(is_old))
    return found


def _same_rows(before: np.ndarray, old: np.ndarray, now: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Whether rows ``old`` of ``before`` equal rows ``new`` of ``now``; a block at a time, for the memory's sake."""
    starts = range(0, len(old), 8192)
    parts = [(before[old[a : a + 8192]] == now[new[a : a + 8192]]).all(axis=1) for a in starts]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _renumbered(weights: sp.csr_matrix, place: np.ndarray, is_kept: np.ndarray) -> sp.csr_matrix:
    """Weights between kept items in the new numbering, CSR ``[n, n]``, indices sorted."""
    n = len(place)
    number = np.full(weights.shape[0], -1, np.int64)
    is_there = (place >= 0) & is_kept
    number[place[is_there]] = np.flatnonzero(is_there)
    row = number[np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))]
    column = number[weights.indices]
    keep = (row >= 0) & (column >= 0)
    found = sp.csr_matrix((weights.data[keep], (row[keep], column[keep])), shape=(n, n), dtype=np.float32)
    found.sort_indices()
    return found


def item_item_weights(x: sp.csr_matrix, chosen: Settings) -> sp.csr_matrix:
    """Item-item weights with the settings of the build."""
    return collaborative.closed_form_item_item(
        x,
        regularisation=chosen.regularisation,
        neighbours=chosen.neighbours,
        most_items=CLOSED_FORM_ITEMS,
        tail_weight=chosen.tail_weight,
        either_sign=chosen.either_sign,
    )


def with_new_items(x: sp.csr_matrix, weights: sp.csr_matrix, text: np.ndarray, items: dict[str, Any]) -> sp.csr_matrix:
    """Item-item weights learned from ``x`` and those of items without behaviour, from their text and its words."""
    users = users_of(x)
    if (users > 0).all():
        return weights
    return new_items.with_new_items(weights, text, words_of(items), users, most_items=CLOSED_FORM_ITEMS)


def words_of(items: dict[str, Any]) -> np.ndarray:
    """Word vectors of the items' texts, made when they are first asked for."""
    if "words" not in items:
        items["words"] = new_items.word_vectors([text or "" for text in items["texts"]], seed=0)
    return np.asarray(items["words"])
