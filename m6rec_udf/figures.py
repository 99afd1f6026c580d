"""The figures of an evaluation: means over users with intervals, paired differences, coverage and concentration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from m6rec_udf.baselines import materialise
from m6rec_udf.intervals import bootstrap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLICES = ("all", "warm", "cold")
USER_METRICS = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", "novelty")
Row = tuple[str, str, str, float | None, float | None, float | None, int]


def figures(con: duckdb.DuckDBPyConnection, k: int, seed: int) -> list[Row]:
    """Means with intervals, paired differences of m6rec, and the figures of whole slices."""
    materialise(con, "eval_user_metrics", k=k)
    materialise(con, "eval_list_metrics", k=k)
    rows: list[Row] = []
    for label in SLICES:
        names, values = _per_user(con, label)
        if not len(values):
            continue
        low, high = bootstrap(values, seed=seed)
        n = len(values)
        rows += [
            (method, label, f"{metric}@{k}", float(values[:, j].mean()), float(low[j]), float(high[j]), n)
            for j, (method, metric) in enumerate(names)
        ]
    wide = con.execute(
        "select m.method, m.slice, m.coverage, m.gini, u.n from eval_list_metrics m join "
        "(select slice, count(*) as n from (select slice from eval_users union all select 'all' from eval_users) "
        "group by slice) u using (slice) order by all"
    ).fetchall()
    for method, label, coverage, gini, n in wide:
        rows.append((method, label, f"coverage@{k}", coverage, None, None, n))
        rows.append((method, label, f"gini@{k}", gini, None, None, n))
    return rows


def _per_user(con: duckdb.DuckDBPyConnection, label: str) -> tuple[list[tuple[str, str]], NDArray[np.float64]]:
    """Figures of one slice, users by (method, metric), with m6rec's differences from every other method."""
    import numpy as np

    data = con.execute(
        "from eval_user_metrics where slice = $1 or $1 = 'all' order by method, user_id", [label]
    ).fetchnumpy()
    names: list[tuple[str, str]] = []
    columns: list[NDArray[np.float64]] = []
    methods = sorted(set(data["method"].tolist()))
    by_method = {
        method: {metric: np.asarray(data[metric][data["method"] == method], np.float64) for metric in USER_METRICS}
        for method in methods
    }
    for method in methods:
        names += [(method, metric) for metric in USER_METRICS]
        columns += [by_method[method][metric] for metric in USER_METRICS]
        if "m6rec" in by_method and method != "m6rec":
            names += [(f"m6rec - {method}", metric) for metric in USER_METRICS]
            columns += [by_method["m6rec"][metric] - by_method[method][metric] for metric in USER_METRICS]
    return names, np.stack(columns, axis=1) if columns else np.empty((0, 0))
