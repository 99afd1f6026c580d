"""implicit's alternating least squares on the same behaviour: what a fit and all lists cost there."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import scipy.sparse as sp
from report import peak_gb, reset_peak, seconds_of

FACTORS, ITERATIONS, THREADS = 64, 15, 2


def interactions(con: duckdb.DuckDBPyConnection) -> sp.csr_matrix:
    """How often each user touched each item, CSR ``[users, items]``."""
    rows = con.execute(
        "select dense_rank() over (order by user_id) - 1 as u, dense_rank() over (order by item_id) - 1 as i "
        "from m6.events"
    ).fetchnumpy()
    shape = int(rows["u"].max()) + 1, int(rows["i"].max()) + 1
    x = sp.csr_matrix((np.ones(len(rows["u"]), np.float32), (rows["u"], rows["i"])), shape=shape)
    x.sum_duplicates()
    return x


def als(con: duckdb.DuckDBPyConnection, sample: int) -> dict[str, Any] | None:
    """Seconds of a fit, users per second of recommend-all (top 10, seen left out), peak memory; None: not there."""
    try:
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError:
        return None
    x = interactions(con)
    reset_peak()
    model = AlternatingLeastSquares(factors=FACTORS, iterations=ITERATIONS, num_threads=THREADS, random_state=0)
    with threadpool_limits(1, "blas"):  # as its authors advise
        fit, _ = seconds_of(lambda: model.fit(x, show_progress=False))
        users = np.random.default_rng(0).permutation(x.shape[0])[:sample]
        every, _ = seconds_of(lambda: model.recommend(users, x[users], N=10, filter_already_liked_items=True))
    return {"fit": fit, "users_per_second": len(users) / every, "peak_gb": peak_gb()}
