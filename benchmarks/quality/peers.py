"""Other libraries as peers (``peer.py`` says what that is), their grids, and how their settings are chosen."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import recbole_peer
from peer import NEVER, Log, Logs, Peer, Scores
from scipy import linalg, sparse

from m6rec_udf.evaluate import validate

DENSE = 6000  # items of the closed form: the most popular ones where there are more


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
    "recbole_sasrec": (
        recbole_peer.SasRec,
        {"hidden_size": [64, 128], "n_layers": [2, 1], "learning_rate": [1e-3, 3e-3], "dropout": [0.2, 0.5]},
    ),
    "recbole_lightgcn": (
        recbole_peer.LightGcn,
        {
            "embedding_size": [64, 128],
            "n_layers": [2, 3, 1],
            "learning_rate": [5e-3, 1e-3],
            "reg_weight": [1e-4, 1e-5, 1e-3],
        },
    ),
}  # fmt: skip


def installed() -> list[str]:
    """Names of the peers that can run here."""
    own_python = recbole_peer.python() is not None
    libraries = {"ease": True, "markov": True, "recbole_sasrec": own_python, "recbole_lightgcn": own_python}
    return [name for name in GRIDS if libraries.get(name, importlib.util.find_spec(name.partition("_")[0]) is not None)]


def chosen(names: Sequence[str] | None = None) -> list[str]:
    """The peers to run: those named, or all that can run here; prints which are left out.

    Raises:
        SystemExit: a name is unknown, or cannot run here.
    """
    here = installed()
    missing = [name for name in GRIDS if name not in here]
    hint = f"Hint: pip install 'm6rec[bench-quality]'; recbole runs where {recbole_peer.VARIABLE} names its Python"
    wrong = [name for name in names or () if name not in here]
    if wrong:
        raise SystemExit(f"--peers {', '.join(wrong)}: expected some of {', '.join(here)} (not here: "
                         f"{', '.join(missing) or 'none'}). {hint}")  # fmt: skip
    if names is None and missing:
        print(f"not here, left out: {', '.join(missing)}. {hint}")
    return here if names is None else list(dict.fromkeys(names))


def settings_of(axes: dict[str, list[Any]], least_y: Sequence[float]) -> list[dict[str, Any]]:
    """All settings of a grid, the usual ones first, then in a fixed random order, so a budget's end is not biased."""
    axes = axes | {"least_y": list(least_y)}
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    order = np.random.default_rng(0).permutation(np.arange(1, len(points)))
    return [points[0], *(points[j] for j in order)]


def spent() -> float:
    """Processor seconds of this process and of those it started and that have ended: other work beside is not time."""
    return sum(os.times()[:4])


class _Trial:
    """A setting that is tried only while its method has time left."""

    def __init__(self, peer: Peer, clock: dict[str, float], budget: float) -> None:
        self.peer, self.clock, self.budget, self.was_run = peer, clock, budget, False

    def __call__(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        if self.clock["tried"] and self.clock["seconds"] >= self.budget:
            return pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string()),
                             "rank": pa.array([], pa.int64())})  # fmt: skip
        begin = spent()
        found = self.peer(con, as_of, users, k)
        self.clock["seconds"] += spent() - begin
        self.clock["tried"] += 1
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
    least_y: Sequence[float] = (0.75, 0.0),
) -> dict[str, Peer]:
    """The best settings of each method on the slice before the split, ``budget`` seconds each; prints what was tried.

    Args:
        con: a connection with the data.
        names: of ``GRIDS``.
        budget: processor seconds of fitting and listing per method; the first setting always runs. One fit may train
            for all of it, where it would go on and on.
        k: length of the lists.
        repeats: as in ``evaluate``.
        judge: scores recommenders by name on the tuning slice; default: ``validate``.
        least_y: satisfaction from which an event is learned from, the usual one first; of graded events only.
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
        points[name], clocks[name] = settings_of(axes, least_y if is_graded else (0.0,)), {"seconds": 0.0, "tried": 0}
        for number, point in enumerate(points[name]):
            trials[f"{name}/{number}"] = _Trial(kind(logs, seconds=budget, **point), clocks[name], budget)
    scores = judge(dict(trials))
    best: dict[str, Peer] = {}
    for name in names:
        tried = [j for j in range(len(points[name])) if trials[f"{name}/{j}"].was_run]
        winner = max(tried, key=lambda j: (scores[f"{name}/{j}"], -j))
        print(
            f"{name}: {len(tried)} of {len(points[name])} settings tried in {clocks[name]['seconds']:.0f} s (budget "
            f"{budget:.0f} s), best {points[name][winner]}, {scores[f'{name}/{winner}']:.4f} on the validation slice",
            flush=True,
        )
        best[name] = GRIDS[name][0](logs, seconds=budget, **points[name][winner])
    return best
