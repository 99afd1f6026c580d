"""The baselines of the off-line evaluation, over the ``eval_*`` tables that ``m6rec_udf.evaluate`` fills.

Their definitions are ``sql/evaluation/base_*.sql``. For long histories ``item_item`` is counted by sparse matrices
instead of a self-join; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf import resources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# (con, as_of, users, k) -> table of user_id, item_id, rank. `users` is a pyarrow table with the column user_id;
# the result is a Polars or pandas frame, an Arrow table, or a DuckDB relation.
Recommender = Callable[[duckdb.DuckDBPyConnection, datetime, Any, int], Any]

BASELINES = ("popular", "recently_popular", "item_item")
REPEAT_BASELINES = ("most_bought", *BASELINES)  # where items already known may be recommended again
HALF_LIVES = (0.02, 0.005, 0.01, 0.03, 0.05, 0.1, 0.2)  # shares of the time span of the history
EVER = 1000.0  # a half-life of so many time spans: plain counts
NEIGHBOURS = (100, 20, 10, 50)
SQL_TRIPLES = 2_000_000  # above so many (item, item, user) triples item_item is counted by sparse matrices


@dataclass(frozen=True)
class Choice:
    """Settings of a baseline, chosen on the slice of time before the split."""

    least_y: float = 0.0
    half_life_days: float = 1.0
    neighbours: int = NEIGHBOURS[0]
    fill_half_life_days: float = 1.0

    def of(self, name: str) -> dict[str, float]:
        """The settings the baseline of that name uses."""
        chosen: dict[str, float] = {"least_y": self.least_y}
        if name in ("recently_popular", "most_bought"):
            chosen["half_life_days"] = self.half_life_days
        if name == "item_item":
            chosen["neighbours"] = self.neighbours
        return chosen


def grid(name: str, *, span_days: float, levels: Sequence[float]) -> list[Choice]:
    """Settings to try for a baseline; the first is the default where there is nothing to choose on.

    Args:
        name: one of ``REPEAT_BASELINES``.
        span_days: time from the first event to the split.
        levels: satisfaction from which an event counts, to try each.
    """
    if name == "recently_popular":
        return [Choice(y, half_life_days=max(span_days * part, 1 / 24)) for y in levels for part in HALF_LIVES]
    if name == "most_bought":
        parts = (EVER, *HALF_LIVES, 0.5)
        return [
            Choice(y, half_life_days=max(span_days * part, 1 / 24), fill_half_life_days=max(span_days * 0.03, 1 / 24))
            for y in levels
            for part in parts
        ]
    if name == "item_item":
        return [Choice(y, neighbours=count) for y in levels for count in NEIGHBOURS]
    return [Choice(y) for y in levels]


def materialise(con: duckdb.DuckDBPyConnection, model: str, table: str | None = None, **parameters: Any) -> None:
    """Run a SQL model of ``sql/evaluation`` into a temporary table of its name; parameters it lacks are left out."""
    text = resources.read_sql("evaluation", model)
    used = {name: value for name, value in parameters.items() if f"${name}" in text}
    con.execute(f"create or replace temp table {table or model} as\n{text}", used)


def recommender(name: str, choice: Choice, cache: dict[float, Any] | None = None) -> Recommender:
    """A baseline in the form of a recommender.

    Args:
        name: one of ``REPEAT_BASELINES``.
        choice: its settings.
        cache: keeps the item-item neighbours of one split from one setting to the next.
    """
    settings = {"least_y": choice.least_y, "half_life_days": choice.half_life_days, "neighbours": choice.neighbours}

    def popular(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> duckdb.DuckDBPyRelation:
        materialise(con, f"base_{name}", "eval_item_scores", as_of=as_of, **settings)
        materialise(con, "eval_top_unseen", "eval_popular", k=k)
        return con.sql("from eval_popular")

    def item_item(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> duckdb.DuckDBPyRelation:
        materialise(con, "base_popular", "eval_item_scores", **settings)
        materialise(con, "eval_top_unseen", "eval_popular", k=k)
        triples = con.execute(
            "select coalesce(sum(n * n), 0) from "
            "(select count(distinct item_id)::double as n from eval_history group by user_id)"
        ).fetchall()[0][0]
        if triples <= SQL_TRIPLES:
            materialise(con, "base_item_item_scores", "eval_item_item_scores", k=k, **settings)
        else:
            item_item_scores(con, k, choice, cache)
        return con.sql(resources.read_sql("evaluation", "base_item_item"), params={"k": k})

    def most_bought(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> duckdb.DuckDBPyRelation:
        fill = settings | {"half_life_days": choice.fill_half_life_days}
        materialise(con, "base_recently_popular", "eval_item_scores", as_of=as_of, **fill)
        materialise(con, "eval_top_unseen", "eval_popular", k=k)
        materialise(con, "base_most_bought", "eval_most_bought", as_of=as_of, k=k, **settings)
        return con.sql("from eval_most_bought")

    return {"item_item": item_item, "most_bought": most_bought}.get(name, popular)


def item_item_scores(
    con: duckdb.DuckDBPyConnection, k: int, choice: Choice, cache: dict[float, Any] | None = None
) -> None:
    """What ``base_item_item_scores.sql`` says, by sparse matrices: table ``eval_item_item_scores``.

    For long histories the self-join of the SQL model would write hundreds of millions of rows.
    """
    import numpy as np
    import pyarrow as pa

    _codes(con, choice.least_y)
    history, touched = _matrix(con, "eval_pairs"), _matrix(con, "eval_touched")
    cache = {} if cache is None else cache
    if choice.least_y not in cache:
        cache[choice.least_y] = _neighbours(history, max(*NEIGHBOURS, choice.neighbours))
    near = _nearest(cache[choice.least_y], choice.neighbours)
    tested = con.execute("select code from eval_user_codes where is_tested order by code").fetchnumpy()["code"]
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    for start in range(0, len(tested), 256):
        part = tested[start : start + 256]
        scores = history[part] @ near
        scores = scores - scores.multiply(touched[part])
        scores.eliminate_zeros()
        found += [(np.full(len(c), part[r]), c, s) for r, (c, s) in enumerate(_best(scores, k))]
    columns = [np.concatenate([f[j] for f in found]) if found else np.empty(0, np.int64) for j in range(3)]
    con.register("eval_found", pa.table(dict(zip(("u", "i", "score"), columns, strict=True))))
    con.execute(
        "create or replace temp table eval_item_item_scores as select u.user_id, i.item_id, f.score from eval_found f "
        "join eval_user_codes u on u.code = f.u join eval_item_codes i on i.code = f.i"
    )
    con.unregister("eval_found")
    for table in ("eval_pairs", "eval_item_codes", "eval_user_codes"):
        con.execute(f"drop table temp.{table}")


def _codes(con: duckdb.DuckDBPyConnection, least_y: float) -> None:
    """Number users and items in the order of their ids, so that ties fall as in SQL."""
    con.execute(
        "create or replace temp table eval_pairs as select distinct user_id, item_id from eval_history where y >= $1",
        [least_y],
    )
    con.execute(
        "create or replace temp table eval_item_codes as "
        "select item_id, row_number() over (order by item_id) - 1 as code "
        "from (select distinct item_id from eval_pairs)"
    )
    con.execute(
        "create or replace temp table eval_user_codes as "
        "select user_id, row_number() over (order by user_id) - 1 as code, "
        "user_id in (select user_id from eval_users) as is_tested from (select distinct user_id from eval_pairs)"
    )


def _matrix(con: duckdb.DuckDBPyConnection, table: str) -> Any:
    """Ones where the table has the (user, item): sparse [n_users, n_items]."""
    import numpy as np
    from scipy import sparse

    shape = con.execute(
        "select (select count(*) from eval_user_codes), (select count(*) from eval_item_codes)"
    ).fetchall()[0]
    data = con.execute(
        "select u.code as u, i.code as i from query_table($1) t "
        "join eval_user_codes u on t.user_id = u.user_id join eval_item_codes i on t.item_id = i.item_id",
        [table],
    ).fetchnumpy()
    return sparse.csr_matrix((np.ones(len(data["u"]), np.int64), (data["u"], data["i"])), shape)


def _best(scores: Any, k: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Per row of a sparse integer matrix the ``k`` largest entries as (columns, values); ties to the smaller column."""
    import numpy as np

    for row in range(scores.shape[0]):
        begin, end = scores.indptr[row], scores.indptr[row + 1]
        columns, values = scores.indices[begin:end].astype(np.int64), scores.data[begin:end]
        if len(columns) > k:
            floor = np.partition(values, len(values) - k)[len(values) - k]
            keep = values >= floor
            columns, values = columns[keep], values[keep]
        order = np.lexsort((columns, -values))[:k]
        yield columns[order], values[order]


def _neighbours(history: Any, count: int) -> Any:
    """Cosines of every item with its ``count`` nearest items, in billionths: sparse [n_items, n_items], best first."""
    import numpy as np
    from scipy import sparse

    n_items = history.shape[1]
    users_of = history.astype(np.int32)
    transposed = users_of.T.tocsr()
    sizes = np.diff(transposed.indptr).astype(np.float64)
    columns, values, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)], np.zeros(n_items + 1, np.int64)
    for start in range(0, n_items, 2048):
        together = (transposed[start : start + 2048] @ users_of).tocsr()
        rows = np.repeat(np.arange(start, start + together.shape[0]), np.diff(together.indptr))
        cosine = together.data / np.sqrt(sizes[rows] * sizes[together.indices])
        billionths = np.floor(cosine * 1e9 + 0.5).astype(np.int64)
        billionths[rows == together.indices] = 0
        together = sparse.csr_matrix((billionths, together.indices, together.indptr), together.shape)
        together.eliminate_zeros()
        for offset, (near, cosines) in enumerate(_best(together, count)):
            columns.append(near)
            values.append(cosines)
            lengths[start + offset + 1] = len(near)
    return sparse.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.cumsum(lengths)), shape=(n_items, n_items)
    )


def _nearest(neighbours: Any, count: int) -> Any:
    """The first ``count`` entries of every row."""
    import numpy as np
    from scipy import sparse

    lengths = np.diff(neighbours.indptr)
    position = np.arange(neighbours.nnz) - np.repeat(neighbours.indptr[:-1], lengths)
    keep = position < count
    ends = np.concatenate([[0], np.cumsum(np.minimum(lengths, count))])
    return sparse.csr_matrix((neighbours.data[keep], neighbours.indices[keep], ends), neighbours.shape)
