"""Other libraries in the form m6rec's evaluation takes: ``(con, as_of, users, k) -> user_id, item_id, rank``.

They read ``eval_history`` (what may be learned from) and ``eval_touched`` (what must not be shown), the temporary
tables the evaluation fills for a split.
"""

from __future__ import annotations

import itertools
import time
import warnings
from datetime import datetime
from importlib import import_module
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from scipy import sparse


class Implicit:
    """A model of the library implicit; users without history get popular items."""

    def __init__(self, *, least_y: float, **settings: Any) -> None:
        self.settings, self.least_y = settings, least_y

    def model(self) -> Any:
        """An unfitted model."""
        raise NotImplementedError

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        from threadpoolctl import threadpool_limits

        pairs = con.sql(
            "select distinct user_id, item_id from eval_history where y >= $y", params={"y": self.least_y}
        ).to_arrow_table()
        touched = con.sql("from eval_touched").to_arrow_table()
        user_ids = np.unique(np.concatenate([_text(users["user_id"]), _text(pairs["user_id"])]))
        item_ids = np.unique(_text(pairs["item_id"]))
        liked = _matrix(pairs, user_ids, item_ids)
        seen = (_matrix(touched, user_ids, item_ids) + liked).tocsr()
        wanted = np.searchsorted(user_ids, _text(users["user_id"]))
        with warnings.catch_warnings(), threadpool_limits(1, "blas"):
            warnings.simplefilter("ignore")
            model = self.model()
            model.fit(liked, show_progress=False)
            ids, scores = model.recommend(wanted, seen[wanted], N=k, filter_already_liked_items=True)
        ids, is_shown = ids.astype(np.int64), scores > -1e30
        popular = np.argsort(-np.asarray(liked.sum(0)).ravel(), kind="stable")
        for row in np.flatnonzero(np.diff(liked.indptr)[wanted] == 0):
            fresh = np.setdiff1d(popular[: k + seen[wanted[row]].nnz], seen[wanted[row]].indices)
            best = popular[np.isin(popular, fresh)][:k]
            ids[row, : len(best)], is_shown[row] = best, np.arange(k) < len(best)
        rows, places = np.nonzero(is_shown)
        return pa.table({"user_id": user_ids[wanted[rows]], "item_id": item_ids[ids[rows, places]], "rank": places + 1})


class Als(Implicit):
    """Alternating least squares for implicit feedback (Hu, Koren and Volinsky, ICDM 2008)."""

    def model(self) -> Any:
        from implicit.als import AlternatingLeastSquares

        return AlternatingLeastSquares(**self.settings, iterations=15, random_state=0, num_threads=0)


class Bm25(Implicit):
    """Item-item neighbours with BM25 weights."""

    def model(self) -> Any:
        from implicit.nearest_neighbours import BM25Recommender

        return BM25Recommender(**self.settings)


GRIDS: dict[str, tuple[type[Implicit], dict[str, list[Any]]]] = {
    "implicit_als": (
        Als,
        {"factors": [64, 16, 32, 128], "regularization": [0.05, 1.0, 10.0], "alpha": [1.0, 5.0, 20.0]},
    ),
    "implicit_bm25": (Bm25, {"K": [100, 20, 50, 200, 500]}),
}


def settings_of(axes: dict[str, list[Any]], is_graded: bool) -> list[dict[str, Any]]:
    """All settings of a grid, the usual ones first, then in a fixed random order, so a budget's end is not biased."""
    axes = axes | {"least_y": [0.75, 0.0] if is_graded else [0.0]}
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    order = np.random.default_rng(0).permutation(np.arange(1, len(points)))
    return [points[0], *(points[j] for j in order)]


def tune(con: duckdb.DuckDBPyConnection, name: str, *, budget: float, k: int) -> Implicit:
    """The best settings on the slice before the split, within ``budget`` seconds; prints what was tried."""
    validate = import_module("m6rec_udf.evaluate").validate
    is_graded = bool(
        con.execute(
            "select coalesce(bool_or(t.value_low is not null), false) "
            "from (select distinct event_type from m6.events) e join m6.event_types t using (event_type)"
        ).fetchall()[0][0]
    )
    kind, axes = GRIDS[name]
    points = settings_of(axes, is_graded)
    best, tried, begin = (-1.0, points[0]), 0, time.perf_counter()
    for point in points:
        if tried and time.perf_counter() - begin > budget:
            break
        score = validate(con, {name: kind(**point)}, k=k)[name]
        best, tried = max(best, (score, point), key=lambda found: found[0]), tried + 1
    print(
        f"{name}: {tried} of {len(points)} settings tried in {time.perf_counter() - begin:.0f} s "
        f"(budget {budget:.0f} s), best {best[1]}, NDCG@{k} {best[0]:.4f} on the validation slice",
        flush=True,
    )
    return kind(**best[1])


def _text(column: Any) -> np.ndarray:
    return np.asarray(column.to_pylist(), dtype=str)


def _matrix(pairs: pa.Table, user_ids: np.ndarray, item_ids: np.ndarray) -> sparse.csr_matrix:
    """Ones at the known (user, item) pairs."""
    users, items = _text(pairs["user_id"]), _text(pairs["item_id"])
    keep = np.isin(users, user_ids) & np.isin(items, item_ids)
    at = (np.searchsorted(user_ids, users[keep]), np.searchsorted(item_ids, items[keep]))
    found = sparse.csr_matrix((np.ones(keep.sum(), np.float32), at), (len(user_ids), len(item_ids)))
    found.sum_duplicates()
    found.data[:] = 1
    return found
