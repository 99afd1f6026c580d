"""New items: nobody touched them before the split. Which of them will a user like?

    python benchmarks/quality/cold_items.py --data movielens

The candidates are all items of the catalogue without an event up to the split; a target is one of them that the user
liked in the test window. m6rec ranks them with ``among``; beside it pure content neighbours over the same text
vectors, content neighbours over TF-IDF, LightFM with item features where it is installed (``pip install
lightfm-next``), and chance. Settings of the peers are chosen on the slice before the split, with its own new items.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from typing import Any

import common
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from peer import ones
from scipy import sparse

from m6rec_udf.arrays import of_version
from m6rec_udf.registry import context_of

evaluation = import_module("m6rec_udf.evaluate")
K = 20
CONTENT = {"last": [0, 20, 5], "gather": ["mean", "nearest"], "liked_from": [0.75, 0.0]}
LIGHTFM = {
    "no_components": [64, 32],
    "item_alpha": [1e-5, 0.0, 1e-4],
    "learning_rate": [0.05, 0.02],
    "epochs": [20, 50],
    "liked_from": [0.75, 0.0],
}


def name_new(con: duckdb.DuckDBPyConnection, as_of: datetime, until: datetime) -> int:
    """Tables ``new_items`` (item_id) and ``new_targets`` (user_id, item_id) of a split; returns the targets' number.

    ``new_items`` is in the file, not temporary: ``among`` names it.
    """
    con.execute(
        "create or replace table m6.new_items as select item_id from m6.items where (created_at is null or "
        "created_at <= $1) and item_id not in (select item_id from m6.events where happened_at <= $1) order by item_id",
        [as_of],
    )
    con.execute(
        "create or replace temp table new_targets as select distinct user_id, item_id from eval_events "
        "semi join m6.new_items using (item_id) where is_interest and y >= 0.75 and happened_at > $1 "
        "and happened_at <= $2 "
        "and user_id in (select user_id from eval_events where is_interest and happened_at <= $1)",
        [as_of, until],
    )
    return int(con.execute("select count(*) from new_targets").fetchall()[0][0])


class Catalogue:
    """Items with their content as unit rows, dense text vectors or sparse TF-IDF, and words for LightFM."""

    def __init__(self, con: duckdb.DuckDBPyConnection, version: int) -> None:
        rows = con.execute(
            "select item_id, coalesce(title, ''), coalesce(category, ''), coalesce(brand, ''), "
            "coalesce(array_to_string(tags, ' '), '') from m6.items order by item_id"
        ).fetchall()
        self.ids = np.asarray([row[0] for row in rows])
        snapshot = of_version(context_of(con), version)
        self.text = np.zeros((len(rows), snapshot.text.shape[1]), np.float32)
        known = np.isin(np.asarray(snapshot.item_ids), self.ids)
        self.text[self.at(np.asarray(snapshot.item_ids)[known])] = snapshot.text[known]
        words = [
            [*re.findall(r"\w+", row[1].lower()), f"category {row[2]}", f"brand {row[3]}", *row[4].lower().split()]
            for row in rows
        ]
        counts = Counter(word for own in words for word in set(own))
        number = {word: at for at, word in enumerate(sorted(w for w, n in counts.items() if n > 1))}
        pairs = [(at, number[word]) for at, own in enumerate(words) for word in own if word in number]
        row_of, column = (np.asarray(part, np.int64) for part in zip(*pairs, strict=True))
        self.words = ones(row_of, column, (len(rows), len(number)))
        rare = np.log(len(rows) / np.maximum(np.asarray(self.words.sum(0)).ravel(), 1))
        weighted = self.words @ sparse.diags_array(rare)
        length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
        self.tfidf = sparse.csr_matrix(sparse.diags_array(1 / np.maximum(length, 1e-9)) @ weighted)

    def at(self, ids: Any) -> np.ndarray:
        """Positions of items."""
        return np.searchsorted(self.ids, np.asarray(ids, dtype=str))


def _history(con: duckdb.DuckDBPyConnection, catalogue: Catalogue, least_y: float) -> tuple[np.ndarray, np.ndarray]:
    """(user_id, item position) of the events that count, by user and time."""
    found = con.execute(
        "select user_id, item_id from eval_history where y >= $1 and item_id in (select item_id from m6.items) "
        "order by user_id, happened_at, md5(item_id || '/' || user_id), item_id",
        [least_y],
    ).fetchnumpy()
    return np.asarray(found["user_id"], dtype=str), catalogue.at(found["item_id"])


def _new(con: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> np.ndarray:
    return catalogue.at([row[0] for row in con.execute("from m6.new_items order by item_id").fetchall()])


def _table(users: list[str], found: list[np.ndarray], catalogue: Catalogue) -> pa.Table:
    return pa.table(
        {
            "user_id": np.repeat(np.asarray(users), [len(f) for f in found]),
            "item_id": catalogue.ids[np.concatenate(found)] if found else np.asarray([], str),
            "rank": np.concatenate([np.arange(1, len(f) + 1) for f in found]),
        }
    )


def _dense(matrix: Any) -> np.ndarray:
    return np.atleast_2d(matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix))


def content(catalogue: Catalogue, kind: str, *, last: int, gather: str, liked_from: float) -> Callable[..., pa.Table]:
    """Content neighbours: new items like the mean of the user's items, or like the nearest of them."""
    matrix = catalogue.text if kind == "text" else catalogue.tfidf

    def recommender(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        new = _new(con, catalogue)
        user, item = _history(con, catalogue, liked_from)
        people, found = users["user_id"].to_pylist(), []
        right = matrix[new].T
        for person in people:
            own = item[np.searchsorted(user, person) : np.searchsorted(user, person, "right")]
            own = np.unique(own[-last:] if last else own)
            if gather == "mean":
                score = (_dense(matrix[own].mean(0)) @ right).ravel() if len(own) else np.zeros(len(new))
            else:
                score = _dense(matrix[own] @ right).max(0) if len(own) else np.zeros(len(new))
            found.append(new[np.lexsort((new, -np.round(score, 9)))[:k]])
        return _table(people, found, catalogue)

    return recommender


def light(catalogue: Catalogue, *, liked_from: float, epochs: int, **settings: Any) -> Callable[..., pa.Table]:
    """LightFM (Kula, 2015), WARP, with items described by their words besides an indicator of their own."""

    def recommender(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        from lightfm import LightFM

        new = _new(con, catalogue)
        user, item = _history(con, catalogue, liked_from)
        people = users["user_id"].to_pylist()
        ids = np.unique(np.concatenate([user, np.asarray(people, dtype=str)]))
        liked = ones(np.searchsorted(ids, user), item, (len(ids), len(catalogue.ids)))
        features = sparse.hstack([sparse.identity(len(catalogue.ids), dtype=np.float32), catalogue.words]).tocsr()
        model = LightFM(loss="warp", random_state=0, user_alpha=settings["item_alpha"], **settings)
        model.fit(liked.tocoo(), item_features=features, epochs=epochs, num_threads=1)
        bias, factors = model.get_item_representations(features[new])
        _, own = model.get_user_representations()
        score = own[np.searchsorted(ids, np.asarray(people, dtype=str))] @ factors.T + bias
        return _table(people, [new[np.lexsort((new, -row))[:k]] for row in score], catalogue)

    return recommender


def chance(catalogue: Catalogue) -> Callable[..., pa.Table]:
    """New items in an order drawn for each user."""

    def recommender(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> pa.Table:
        new, generator = _new(con, catalogue), np.random.default_rng(0)
        people = users["user_id"].to_pylist()
        return _table(people, [generator.permutation(new)[:k] for _ in people], catalogue)

    return recommender


def tuned(
    con: duckdb.DuckDBPyConnection, catalogue: Catalogue, as_of: datetime, until: datetime, budget: float
) -> dict[str, Any]:
    """The peers with what worked best for the new items of the slice before the split."""
    makers: dict[str, tuple[Callable[..., Any], dict[str, list[Any]]]] = {
        "content k-NN (text vectors)": (lambda **s: content(catalogue, "text", **s), CONTENT),
        "content k-NN (TF-IDF)": (lambda **s: content(catalogue, "tfidf", **s), CONTENT),
    }
    if importlib.util.find_spec("lightfm"):
        makers["LightFM with features"] = (lambda **s: light(catalogue, **s), LIGHTFM)
    n_targets = name_new(con, as_of, until)
    has_targets = n_targets > 0
    print(f"settings are chosen on {n_targets:,} (user, new item) pairs of the slice before the split")
    out: dict[str, Any] = {}
    for name, (make, axes) in makers.items():
        points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        order = [0, *np.random.default_rng(0).permutation(np.arange(1, len(points)))]
        best, tried, begin = (-1.0, points[0]), 0, time.perf_counter()
        for at in order if has_targets else []:
            if tried and time.perf_counter() - begin > budget:
                break
            rows = evaluation.score(con, {name: make(**points[at])}, "new_targets", as_of=as_of, k=K)
            value = next(float(row[3] or 0) for row in rows if row[1] == "all" and row[2] == f"recall@{K}")
            best, tried = max(best, (value, points[at]), key=lambda found: found[0]), tried + 1
        print(
            f"{name}: {tried} of {len(points)} settings tried in {time.perf_counter() - begin:.0f} s (budget "
            f"{budget:.0f} s), best {best[1]}, recall@{K} {best[0]:.4f} on the slice before",
            flush=True,
        )
        out[name] = make(**best[1])
    return out


def figures(con: duckdb.DuckDBPyConnection, given: argparse.Namespace, versions: dict[datetime, int]) -> pl.DataFrame:
    """Tune the peers, rank the new items of the test window, print the table."""
    print("\n## new items", flush=True)
    as_of = evaluation.default_as_of(con)
    until = con.execute("select max(happened_at) from eval_events where is_interest").fetchall()[0][0]
    earlier = evaluation.validation_as_of(con)
    own = common.Built(versions, seed=given.seed, among="m6.new_items")
    catalogue = Catalogue(con, own.version(con, as_of))  # the content neighbours read the build's text vectors
    methods = tuned(con, catalogue, earlier, as_of, given.budget)
    n_targets = name_new(con, as_of, until)
    n_new = con.execute("select count(*) from m6.new_items").fetchall()[0][0]
    print(f"{n_new:,} new items, {n_targets:,} (user, new item) pairs liked in the test window")
    if not n_targets:
        return pl.DataFrame()
    everybody = {"m6rec": own, **methods, "chance": chance(catalogue)}
    rows = evaluation.score(con, everybody, "new_targets", as_of=as_of, k=K, seed=given.seed)
    found = common.frame(rows)
    common.show(found, f"recall@{K}", [f"{m}@{K}" for m in ("ndcg", "hit_rate")], ("all", "warm"))
    con.execute("drop table m6.new_items")
    return found


def main() -> None:
    """Load, build as of the split, print."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument("--budget", type=float, default=60, help="seconds to tune each peer in")
    given = parser.parse_args()
    with common.database(given) as con:
        figures(con, given, {})


if __name__ == "__main__":
    main()
