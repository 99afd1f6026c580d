"""Text vectors of the items: those of the version in force where the text is the same, the others from the encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf import artefacts
from m6rec_udf.embed import embed_texts
from m6rec_udf.errors import CorruptError, NotBuiltError
from m6rec_udf.query import one

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb
    from numpy.typing import NDArray

    from m6rec_udf.embed import Encoder


@dataclass(frozen=True)
class ItemTexts:
    """The items' text vectors.

    Attributes:
        vectors: float32 ``[n, d]``.
        embedded: texts that were new to the encoder.
        is_known: bool ``[n]``, the version in force has the item with this text.
        version: that version; None where nothing could be taken from it.
    """

    vectors: NDArray[np.float32]
    embedded: int
    is_known: NDArray[np.bool_]
    version: int | None


def vectors_of(
    con: duckdb.DuckDBPyConnection,
    encoder: Encoder,
    ids: list[str],
    texts: list[str],
    hashes: list[str],
    progress: Callable[[str, int, int], None] | None = None,
) -> ItemTexts:
    """Vectors of the items' texts; ``hashes`` are the content hashes of the texts."""
    version, before, place = _known(con, encoder.name, ids, hashes)
    is_known = place >= 0
    if not is_known.any():
        vectors, new = embed_texts(con, encoder, texts, hashes=hashes, progress=progress)
        return ItemTexts(vectors, new, np.zeros(len(ids), bool), None)
    if is_known.all() and np.array_equal(place, np.arange(len(before))):
        return ItemTexts(before, 0, is_known, version)
    others = np.flatnonzero(~is_known)
    rest, new = embed_texts(
        con, encoder, [texts[at] for at in others], hashes=[hashes[at] for at in others], progress=progress
    )
    vectors = np.empty((len(ids), before.shape[1]), np.float32)
    vectors[is_known] = before[place[is_known]]
    if len(others):
        vectors[others] = rest
    return ItemTexts(vectors, new, is_known, version)


def _known(
    con: duckdb.DuckDBPyConnection, encoder: str, ids: list[str], hashes: list[str]
) -> tuple[int | None, NDArray[np.float32], NDArray[np.int64]]:
    """(version in force, its vectors, where each item with the same text stands among them, -1 for nowhere).

    ``m6.item_vectors`` says of which content the version's vectors are: that of an item with vector columns is not its
    text alone.
    """
    nothing = None, np.zeros((0, 1), np.float32), np.full(len(ids), -1, np.int64)
    version = one(con, "select model_version from m6.active")[0]
    if version is None:
        return nothing
    stored = con.sql("select item_id, content_hash from m6.item_vectors where encoder = ?", params=[encoder])
    rows = stored.to_arrow_table()
    hash_of = dict(zip(rows["item_id"].to_pylist(), rows["content_hash"].to_pylist(), strict=True))
    try:
        parts = artefacts.read(con, version, ["text", "item_ids"])
        before = json.loads(bytes(parts["item_ids"]))
        vectors = artefacts.from_npy(parts["text"])
    except (CorruptError, NotBuiltError):
        return nothing
    row_of = {item: at for at, item in enumerate(before)}
    place = [
        row_of.get(item, -1) if hash_of.get(item) == digest else -1 for item, digest in zip(ids, hashes, strict=True)
    ]
    return version, vectors, np.asarray(place, np.int64)
