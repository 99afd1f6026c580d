"""Vectors as SQL functions: of texts and questions, of users, and the items nearest to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.errors import ParameterError
from m6rec_udf.item_sets import mask_of
from m6rec_udf.registry import Context, Function

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot

SEARCHED = 4  # times as many cells for a search, whose answer is nothing else, as for a candidate


def _make_embed(context: Context) -> Callable[..., Any]:
    def m6_embed(text: Any) -> Any:
        import pyarrow as pa

        from m6rec_udf.embed import embed_queries

        texts = [value or "" for value in text.to_pylist()]
        con = context.open()
        try:
            vectors = embed_queries(con, context.encoder, texts)
        finally:
            con.close()
        return pa.array(list(vectors), pa.list_(pa.float32()))

    return m6_embed


def _make_query(context: Context) -> Callable[..., Any]:
    def m6_query(version: Any, text: Any, by: Any) -> Any:
        """Questions in words as vectors in the space of the items of a build."""
        import pyarrow as pa

        from m6rec_udf.arrays import of_version
        from m6rec_udf.vector_columns import question

        out = []
        con = context.open()
        try:
            for v, words, column in zip(*(part.to_pylist() for part in (version, text, by)), strict=True):
                blocks = of_version(context, v).blocks if v is not None else []
                out.append(question(con, context, blocks, words or "", column))
        finally:
            con.close()
        return pa.array(out, pa.list_(pa.float32()))

    return m6_query


def _weighted(vectors: Any, weights: Any, *, scaled: bool) -> Any:
    import pyarrow as pa

    out: list[Any] = []
    for own, weight in zip(vectors.to_pylist(), weights.to_pylist(), strict=True):
        if not own or not weight:
            out.append(None)
            continue
        if len(own) != len(weight):
            raise ParameterError(f"got {len(own)} vectors and {len(weight)} weights, expected as many of both")
        if None in own or None in weight or len({len(vector) for vector in own}) > 1:
            raise ParameterError("got vectors of several lengths or NULL among them, expected one length and no NULL")
        total = np.asarray(weight, np.float32) @ np.asarray(own, np.float32)
        out.append(total / max(float(np.sqrt(total @ total)), 1e-12) if scaled else total)
    return pa.array(out, pa.list_(pa.float32()))


def _make_user_vector(_: Context) -> Callable[..., Any]:
    def m6_user_vector(vectors: Any, weights: Any) -> Any:
        return _weighted(vectors, weights, scaled=True)

    return m6_user_vector


def _make_weighted_sum(_: Context) -> Callable[..., Any]:
    def m6_weighted_sum(vectors: Any, weights: Any) -> Any:
        return _weighted(vectors, weights, scaled=False)

    return m6_weighted_sum


def _in_cells(snapshot: Snapshot, vector: np.ndarray, nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(item_idx, cosine) of every item in some cells."""
    assert snapshot.cells is not None
    lines = snapshot.cells.scan(vector[None], nearest[None], snapshot.text_in_cells)
    column = np.arange(lines.score.shape[1])
    return lines.item(np.zeros_like(column), column), lines.score[0]


def _nearest(snapshot: Snapshot, vector: np.ndarray, mask: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(item_idx, cosine) of the k allowed items nearest to a vector, ties by item; through cells where there are."""
    from m6rec_udf.candidates import SPARE
    from m6rec_udf.fronts import fronts

    allowed = snapshot.is_known if mask is None else snapshot.is_known & mask
    cells = snapshot.cells
    if snapshot.blocks:
        from m6rec_udf.vector_columns import shared_cosines

        item = np.flatnonzero(allowed)
        norms, centre = snapshot.block_norms[item], snapshot.block_centre
        score = shared_cosines(snapshot.text[item], norms, centre, snapshot.blocks, vector)
    elif cells is None:
        item = np.flatnonzero(allowed)
        score = (snapshot.text @ vector)[item]
    else:
        order = np.argsort(-np.round((cells.centres @ vector).astype(np.float64), 6), kind="stable")
        probed = SEARCHED * cells.probed
        item, score = _in_cells(snapshot, vector, order[:probed])
        while allowed[item].sum() < k and probed < len(order):
            probed *= 4
            item, score = _in_cells(snapshot, vector, order[:probed])
        item, score = item[allowed[item]], score[allowed[item]]
    front = fronts(score[None], k + SPARE, least=-np.inf)[1]
    item, score = item[front], np.round(score[front].astype(np.float64), 6)
    best = np.lexsort((item, -score))[:k]
    return item[best], score[best]


def _make_nearest(context: Context) -> Callable[..., Any]:
    def m6_nearest(version: Any, vector: Any, domain: Any, among: Any, blocked: Any, k: Any) -> Any:
        """The k items nearest to each vector by cosine: a list of (item_id, score)."""
        import pyarrow as pa

        from m6rec_udf.arrays import of_version
        from m6rec_udf.listing import require_length

        out: list[list[dict[str, Any]]] = []
        for v, own, d, a, b, wanted in zip(
            *(part.to_pylist() for part in (version, vector, domain, among, blocked, k)), strict=True
        ):
            snapshot = of_version(context, v)
            if own is None or not snapshot.n:
                out.append([])
                continue
            text_alone = snapshot.blocks[0][1] if snapshot.blocks else snapshot.text.shape[1]
            if len(own) not in {snapshot.text.shape[1], text_alone}:
                raise ParameterError(
                    f"the vector has {len(own)} dimensions, expected {snapshot.text.shape[1]} (the encoder "
                    f"{snapshot.settings['encoder']!r} of model_version {v})\n"
                    "Hint: connect with the encoder of the build, or build again"
                )
            mask = mask_of(context, snapshot, d, a, b)
            item, score = _nearest(snapshot, np.asarray(own, np.float32), mask, require_length(wanted))
            out.append(
                [{"item_id": snapshot.item_ids[i], "score": s} for i, s in zip(item, score.tolist(), strict=True)]
            )
        return pa.array(out, pa.list_(pa.struct([("item_id", pa.string()), ("score", pa.float64())])))

    return m6_nearest


VECTOR_FUNCTIONS = (
    Function("m6_embed", _make_embed, ("VARCHAR",), "FLOAT[]"),
    Function("m6_query", _make_query, ("BIGINT", "VARCHAR", "VARCHAR"), "FLOAT[]"),
    Function("m6_user_vector", _make_user_vector, ("FLOAT[][]", "FLOAT[]"), "FLOAT[]"),
    Function("m6_weighted_sum", _make_weighted_sum, ("FLOAT[][]", "FLOAT[]"), "FLOAT[]"),
    Function(
        "m6_nearest",
        _make_nearest,
        ("BIGINT", "FLOAT[]", "VARCHAR", "BIGINT", "BIGINT", "INTEGER"),
        "STRUCT(item_id VARCHAR, score DOUBLE)[]",
    ),
)
