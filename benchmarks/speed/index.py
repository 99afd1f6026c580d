"""Nearest texts: the cells of m6rec beside exact products and other indexes, on the same vectors in one run.

    python benchmarks/speed/index.py --vectors 100000
    python benchmarks/speed/index.py --open shop.duckdb

Vectors are drawn in clusters (384 dimensions, unit length), or the item vectors of a built file. usearch and faiss are
measured where they are installed (``pip install usearch faiss-cpu``). One thread.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
from collections.abc import Callable

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import duckdb
import numpy as np
from report import say, seconds_of

from m6rec_udf.cells import Cells, make_cells
from m6rec_udf.embed import unit
from m6rec_udf.fronts import fronts

K = 10
Search = Callable[[np.ndarray], np.ndarray]


def clustered(n: int, seed: int) -> np.ndarray:
    """Unit vectors around n / 200 centres, float32 ``[n, 384]``."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(n // 200, 10), 384))
    return unit((centres[rng.integers(0, len(centres), n)] + rng.normal(0, 0.9, (n, 384))).astype(np.float32))


def exact(vectors: np.ndarray) -> Search:
    """One product with everything."""
    return lambda query: np.argpartition(vectors @ query, -K)[-K:]


def in_cells(vectors: np.ndarray, cells: Cells, share: float) -> Search:
    """The nearest cells, looked through exactly."""
    inside, probed = np.ascontiguousarray(vectors[cells.order]), max(8, round(share * len(cells.centres)))

    def search(query: np.ndarray) -> np.ndarray:
        nearest = np.argsort(-(cells.centres @ query), kind="stable")[None, :probed]
        lines = cells.scan(query[None], nearest, inside)
        row, column = fronts(lines.score, K, least=-np.inf)
        best = np.argsort(-lines.score[row, column])[:K]
        return lines.item(row[best], column[best])

    return search


def others(vectors: np.ndarray) -> dict[str, Callable[[], Search]]:
    """What other indexes are installed, by name: each builds itself and returns its search."""
    found: dict[str, Callable[[], Search]] = {}
    try:
        from usearch.index import Index
    except ImportError:
        say("usearch", "not installed")
    else:

        def usearch(dtype: str) -> Search:
            index = Index(ndim=vectors.shape[1], metric="ip", dtype=dtype)
            index.add(np.arange(len(vectors)), vectors, threads=1)
            return lambda query: np.asarray(index.search(query, K, threads=1).keys).astype(np.int64)

        found |= {f"usearch HNSW {dtype}": lambda dtype=dtype: usearch(dtype) for dtype in ("f32", "i8")}
    try:
        import faiss
    except ImportError:
        say("faiss", "not installed")
    else:

        def hnsw() -> Search:
            faiss.omp_set_num_threads(1)
            index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
            index.add(vectors)
            return lambda query: index.search(query[None], K)[1][0]

        found["faiss HNSW32"] = hnsw
    return found


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--open", dest="existing", help="take the item vectors of a built file")
    given = parser.parse_args()
    if given.existing:
        con = duckdb.connect(given.existing, read_only=True)
        column = con.execute("select vector from m6.item_vectors order by item_id").fetchnumpy()["vector"]
        vectors = unit(np.stack(column).astype(np.float32))
        con.close()
    else:
        vectors = clustered(given.vectors, seed=0)
    rng = np.random.default_rng(1)
    near = rng.integers(0, len(vectors), given.queries)
    queries = unit(vectors[near] + 0.5 * vectors[rng.integers(0, len(vectors), given.queries)])
    truth = [set(exact(vectors)(query).tolist()) for query in queries]

    def measured(name: str, search: Search, built: float) -> None:
        for query in queries[:10]:
            search(query)
        taken = [seconds_of(lambda query=query: search(query)) for query in queries]
        recall = np.mean([len(own & set(found.tolist())) / K for own, (_, found) in zip(truth, taken, strict=True)])
        p50 = 1000 * float(np.median([seconds for seconds, _ in taken]))
        say(name, f"{p50:.2f} ms", f"recall@{K} {recall:.3f}, built in {built:.1f} s")

    print(f"{len(vectors):,} vectors of {vectors.shape[1]}, {given.queries} queries near to one of them\n")
    measured("exact product", exact(vectors), 0.0)
    built, cells = seconds_of(lambda: make_cells(vectors, seed=0))
    if cells is None:
        say("cells", "none", "fewer vectors than a product is fast enough for")
    else:
        for share in (0.05, 0.1, 0.2):
            measured(f"cells, {share:.0%} looked through", in_cells(vectors, cells, share), built)
    for name, make in others(vectors).items():
        built, search = seconds_of(make)
        measured(name, search, built)


if __name__ == "__main__":
    main()
