"""Other libraries in the form m6rec's evaluation takes: ``(con, as_of, users, k) -> user_id, item_id, rank``.

They read ``eval_history`` (what may be learned from) and ``eval_touched`` (what must not be shown), the temporary
tables the evaluation fills for a split. Users without history get popular items.
"""

from __future__ import annotations

import importlib.util
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from scipy import linalg, sparse

from m6rec_udf.evaluate import validate

DENSE = 6000  # items of the closed form: the most popular ones where there are more
BLOCK = 256
NEVER = -1e30


@dataclass
class Log:
    """A history in numbers.

    Attributes:
        user_ids, item_ids: sorted ids; the numbers are positions in them.
        user, item, y: one entry per event, by user and then by time; equal times are shuffled with a fixed seed.
        touched: ones where an item must not be shown, ``[users, items]``.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    user: np.ndarray
    item: np.ndarray
    y: np.ndarray
    touched: sparse.csr_matrix

    def liked(self, least_y: float) -> sparse.csr_matrix:
        """Ones at the (user, item) pairs with an event of at least this satisfaction."""
        keep = self.y >= least_y
        return _ones(self.user[keep], self.item[keep], (len(self.user_ids), len(self.item_ids)))


class Logs:
    """The log of the split evaluated last, read once for all methods."""

    def __init__(self) -> None:
        self.key: Any = None
        self.log: Log | None = None

    def get(self, con: duckdb.DuckDBPyConnection, as_of: datetime) -> Log:
        """The log behind the ``eval_*`` tables of a moment."""
        counts = con.execute(
            "select (select count(*) from eval_history), (select count(*) from eval_touched), "
            "(select count(*) from eval_users)"
        ).fetchall()[0]
        if self.log is None or self.key != (as_of, *counts):
            self.key, self.log = (as_of, *counts), _read(con)
        return self.log


def _read(con: duckdb.DuckDBPyConnection) -> Log:
    users = con.execute(
        "select user_id from eval_history union select user_id from eval_users union select user_id from eval_touched "
        "order by 1"
    ).fetchnumpy()["user_id"]
    items = con.execute("select distinct item_id from eval_history order by 1").fetchnumpy()["item_id"]
    numbers = (
        "with u as (select user_id, row_number() over (order by user_id) - 1 as u from (select user_id from "
        "eval_history union select user_id from eval_users union select user_id from eval_touched)), "
        "i as (select item_id, row_number() over (order by item_id) - 1 as i "
        "from (select distinct item_id from eval_history)) "
    )
    events = con.execute(
        numbers + "select u, i, y from eval_history join u using (user_id) join i using (item_id) "
        "order by u, happened_at, md5(item_id || '/' || user_id), i"
    ).fetchnumpy()
    touched = con.execute(
        numbers + "select u, i from eval_touched join u using (user_id) join i using (item_id)"
    ).fetchnumpy()
    y = np.ma.filled(np.ma.asarray(events["y"], np.float64), 0.0)
    shape = (len(users), len(items))
    return Log(np.asarray(users), np.asarray(items), events["u"], events["i"], y,
               _ones(touched["u"], touched["i"], shape))  # fmt: skip


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    found = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    found.sum_duplicates()
    found.data[:] = 1
    return found


Scores = Callable[[np.ndarray], np.ndarray]


class Peer:
    """A method that scores every item for a block of users."""

    def __init__(self, logs: Logs, *, least_y: float = 0.0, **settings: Any) -> None:
        self.logs, self.least_y, self.settings = logs, least_y, settings

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        """Learn; returns what scores users: positions -> float ``[users, items]``."""
        raise NotImplementedError

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        log = self.logs.get(con, as_of)
        liked = log.liked(self.least_y)
        with warnings.catch_warnings(), _one_blas_thread():
            warnings.simplefilter("ignore")
            scores = self.fit(log, liked)
            return lists(log, liked, scores, np.asarray(users["user_id"].to_pylist(), dtype=object), k)


def lists(log: Log, liked: sparse.csr_matrix, scores: Scores, users: np.ndarray, k: int) -> pa.Table:
    """The k best untouched items of each user; what a method cannot score follows by popularity."""
    popular = np.asarray(liked.sum(0), np.float64).ravel()
    tail = NEVER + popular / (1.0 + popular.max(initial=0)) * 1e29
    wanted = np.searchsorted(log.user_ids.astype(str), users.astype(str))
    out: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        found = np.asarray(scores(block), np.float64)
        found = np.where(found > NEVER, found, tail)
        found[np.diff(liked.indptr)[block] == 0] = tail
        touched = log.touched[block]
        found[np.repeat(np.arange(len(block)), np.diff(touched.indptr)), touched.indices] = -np.inf
        best = np.argpartition(-found, min(k, found.shape[1] - 1), axis=1)[:, :k]
        value = np.take_along_axis(found, best, 1)
        order = np.lexsort((best, -value), axis=1)
        best, value = np.take_along_axis(best, order, 1), np.take_along_axis(value, order, 1)
        rows, places = np.nonzero(np.isfinite(value))
        out.append((block[rows], best[rows, places], places + 1))
    user, item, rank = (np.concatenate(parts) for parts in zip(*out, strict=True))
    return pa.table(
        {"user_id": pa.array(log.user_ids[user], pa.string()), "item_id": pa.array(log.item_ids[item], pa.string()),
         "rank": rank}
    )  # fmt: skip


class Als(Peer):
    """implicit's alternating least squares (Hu, Koren and Volinsky, ICDM 2008)."""

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        from implicit.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(**self.settings, iterations=15, random_state=0, num_threads=1)
        model.fit(liked, show_progress=False)
        return lambda block: model.user_factors[block] @ model.item_factors.T


class Bpr(Peer):
    """implicit's Bayesian personalised ranking (Rendle et al., UAI 2009)."""

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        from implicit.bpr import BayesianPersonalizedRanking

        model = BayesianPersonalizedRanking(**self.settings, random_state=0, num_threads=1)
        model.fit(liked, show_progress=False)
        return lambda block: model.user_factors[block] @ model.item_factors.T


class ItemKnn(Peer):
    """implicit's item-item neighbours (cosine, BM25 or TF-IDF)."""

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        from implicit import nearest_neighbours

        kinds = {
            "cosine": nearest_neighbours.CosineRecommender,
            "bm25": nearest_neighbours.BM25Recommender,
            "tfidf": nearest_neighbours.TFIDFRecommender,
        }
        settings = dict(self.settings)
        model = kinds[settings.pop("similarity")](**settings, num_threads=1)
        model.fit(liked, show_progress=False)
        near = sparse.csr_matrix(model.similarity)
        return lambda block: _unknown_last((liked[block] @ near).toarray())


class Ease(Peer):
    """EASE, the closed-form item-item model (Steck, WWW 2019), over the most popular items where there are many."""

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        counts = np.asarray(liked.sum(0)).ravel()
        kept = np.sort(np.argsort(-counts, kind="stable")[:DENSE])
        x = liked[:, kept].tocsr()
        gram = (x.T @ x).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.settings["regularization"]
        inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
        weights = (inverse / -np.diag(inverse)).astype(np.float32)
        weights[np.diag_indices_from(weights)] = 0

        def scores(block: np.ndarray) -> np.ndarray:
            out = np.full((len(block), liked.shape[1]), NEVER)
            out[:, kept] = x[block] @ weights
            return out

        return scores


class LensKit(Peer):
    """LensKit's scorers: item neighbours (``kind`` knn) or implicit matrix factorisation (mf)."""

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        import pandas as pd
        from lenskit.als import ImplicitMFScorer
        from lenskit.data import ItemList, RecQuery, from_interactions_df
        from lenskit.knn import ItemKNNScorer

        kinds = {"knn": lambda **s: ItemKNNScorer(min_nbrs=1, feedback="implicit", **s), "mf": ImplicitMFScorer}
        settings = dict(self.settings)
        model = kinds[settings.pop("kind")](**settings)
        pairs = liked.tocoo()
        data = from_interactions_df(pd.DataFrame({"user_id": pairs.row, "item_id": pairs.col}))
        model.train(data)
        items = ItemList(item_ids=np.arange(liked.shape[1]))

        def scores(block: np.ndarray) -> np.ndarray:
            out = np.full((len(block), liked.shape[1]), NEVER)
            for at, user in enumerate(block):
                own = liked.indices[liked.indptr[user] : liked.indptr[user + 1]]
                if len(own):
                    found = model(RecQuery(user_id=user, user_items=ItemList(item_ids=own)), items).scores()
                    out[at] = np.nan_to_num(found, nan=NEVER)
            return out

        return scores


class Markov(Peer):
    """Transitions between items close in a user's sequence, from the last few items; equal times are shuffled."""

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        s = self.settings
        keep = log.y >= self.least_y
        user, item = log.user[keep], log.item[keep]
        n_users, n_items = liked.shape
        moves = sparse.csr_matrix((n_items, n_items), dtype=np.float32)
        for gap in range(1, s["window"] + 1):
            same = user[gap:] == user[:-gap]
            moves += sparse.csr_matrix(
                (np.full(same.sum(), 1.0 / gap, np.float32), (item[:-gap][same], item[gap:][same])), moves.shape
            )
        popular = np.bincount(item, minlength=n_items) + 1.0
        moves = sparse.diags_array(popular**-0.5) @ moves @ sparse.diags_array(popular ** -s["popularity_power"])
        moves = sparse.csr_matrix(moves)
        first, after = np.searchsorted(user, np.arange(n_users)), np.searchsorted(user, np.arange(n_users), "right")
        rows, columns, weights = [], [], []
        for back in range(s["last"]):
            known = np.flatnonzero(after - 1 - back >= first)
            rows.append(known)
            columns.append(item[after[known] - 1 - back])
            weights.append(np.full(len(known), s["decay"] ** back))
        latest = sparse.csr_matrix(
            (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), (n_users, n_items)
        )
        return lambda block: _unknown_last((latest[block] @ moves).toarray())


def _unknown_last(scores: np.ndarray) -> np.ndarray:
    scores[scores == 0] = NEVER
    return scores


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    if not importlib.util.find_spec("threadpoolctl"):
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


GRIDS: dict[str, tuple[type[Peer], dict[str, list[Any]]]] = {
    "implicit_als": (
        Als,
        {"factors": [64, 16, 32, 128], "regularization": [0.05, 1.0, 10.0], "alpha": [1.0, 5.0, 20.0]},
    ),
    "implicit_bpr": (
        Bpr,
        {
            "factors": [64, 32],
            "learning_rate": [0.05, 0.01, 0.1],
            "regularization": [0.01, 0.05],
            "iterations": [100, 300],
        },
    ),
    "implicit_knn": (ItemKnn, {"similarity": ["bm25", "cosine", "tfidf"], "K": [100, 20, 50, 200, 500]}),
    "lenskit_knn": (LensKit, {"kind": ["knn"], "max_nbrs": [20, 50, 100]}),
    "lenskit_mf": (
        LensKit,
        {
            "kind": ["mf"],
            "embedding_size": [64, 32],
            "regularization": [0.1, 1.0],
            "weight": [40.0, 10.0],
            "epochs": [10],
        },
    ),
    "ease": (Ease, {"regularization": [300.0, 100.0, 1000.0, 30.0, 3000.0]}),
    "markov": (
        Markov,
        {"window": [5, 2, 10, 1], "last": [5, 10, 3, 1], "decay": [0.8, 0.9, 0.5], "popularity_power": [0.3, 0.1, 0.5]},
    ),
}  # fmt: skip


def installed() -> list[str]:
    """Names of the peers that can run here."""
    return [
        name
        for name in GRIDS
        if name in ("ease", "markov") or importlib.util.find_spec(name.partition("_")[0]) is not None
    ]


def settings_of(axes: dict[str, list[Any]], is_graded: bool) -> list[dict[str, Any]]:
    """All settings of a grid, the usual ones first, then in a fixed random order, so a budget's end is not biased."""
    axes = axes | {"least_y": [0.75, 0.0] if is_graded else [0.0]}
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    order = np.random.default_rng(0).permutation(np.arange(1, len(points)))
    return [points[0], *(points[j] for j in order)]


class _Trial:
    """A setting that is tried only while its method has time left."""

    def __init__(self, peer: Peer, clock: dict[str, float], budget: float) -> None:
        self.peer, self.clock, self.budget, self.was_run = peer, clock, budget, False

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        if self.clock["seconds"] > self.budget:
            return pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string()),
                             "rank": pa.array([], pa.int64())})  # fmt: skip
        begin = time.perf_counter()
        found = self.peer(con, as_of, users, k)
        self.clock["seconds"] += time.perf_counter() - begin
        self.was_run = True
        return found


Validate = Callable[[dict[str, Any]], dict[str, float]]


def tune(
    con: duckdb.DuckDBPyConnection,
    names: list[str],
    *,
    budget: float,
    k: int,
    repeats: bool = False,
    judge: Validate | None = None,
) -> dict[str, Peer]:
    """The best settings of each method on the slice before the split, ``budget`` seconds each; prints what was tried.

    Args:
        con: a connection with the data.
        names: of ``GRIDS``.
        budget: seconds of fitting and listing per method; the first setting always runs.
        k: length of the lists.
        repeats: as in ``evaluate``.
        judge: scores recommenders by name on the tuning slice; default: ``validate``.
    """
    is_graded = bool(
        con.execute(
            "select coalesce(bool_or(t.value_low is not null), false) "
            "from (select distinct event_type from m6.events) e join m6.event_types t using (event_type)"
        ).fetchall()[0][0]
    )
    judge = judge or (lambda todo: validate(con, todo, k=k, repeats=repeats))
    logs = Logs()
    trials: dict[str, _Trial] = {}
    points: dict[str, list[dict[str, Any]]] = {}
    clocks: dict[str, dict[str, float]] = {}
    for name in names:
        kind, axes = GRIDS[name]
        points[name], clocks[name] = settings_of(axes, is_graded), {"seconds": 0.0}
        for number, point in enumerate(points[name]):
            trials[f"{name}/{number}"] = _Trial(kind(logs, **point), clocks[name], budget)
    scores = judge(dict(trials))
    best: dict[str, Peer] = {}
    for name in names:
        tried = [j for j in range(len(points[name])) if trials[f"{name}/{j}"].was_run]
        chosen = max(tried, key=lambda j: (scores[f"{name}/{j}"], -j))
        print(
            f"{name}: {len(tried)} of {len(points[name])} settings tried in {clocks[name]['seconds']:.0f} s (budget "
            f"{budget:.0f} s), best {points[name][chosen]}, {scores[f'{name}/{chosen}']:.4f} on the validation slice",
            flush=True,
        )
        best[name] = GRIDS[name][0](logs, **points[name][chosen])
    return best
