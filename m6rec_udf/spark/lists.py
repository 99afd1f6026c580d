"""Lists of all users by the executors: the body behind ``m6.recommend`` over broadcast arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf import resources
from m6rec_udf.arrays import PEOPLE, Snapshot
from m6rec_udf.candidates import BARRED
from m6rec_udf.history import Behaviour
from m6rec_udf.spark.tables import Tables, rows_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from pyspark.sql import DataFrame

_SCHEMA = "user_id string, item_idx int, rank int, score double, satisfaction double, bit int, because_idx int"
_PEOPLE = """
select u.user_id, u.segment, h.history, p.proposals
from (select user_idx, user_id, segment from stg_users union all select -1, '*', '*') as u
left join histories_by_number as h on u.user_idx = h.user_idx
left join proposals as p on u.user_idx = p.user_idx
"""
_NO_PROPOSALS = "select cast(-2 as int) as user_idx, cast(null as array<struct<item_idx: int, bit: int>>) as proposals"
# what m6.proposals says of persons, for everybody of the build at once
_BARRED = """
select u.user_idx, i.item_idx, {bit} as bit
from (
    select user_id, other_user_id from m6_relations where kind = 'blocks'
    union
    select other_user_id, user_id from m6_relations where kind = 'blocks'
    union
    select user_id, user_id from stg_users
) as b
inner join stg_users as u on b.user_id = u.user_id
inner join stg_items as i on b.other_user_id = i.item_id
where i.domain = '{people}'
"""
_LINES = """
select
    l.user_id,
    i.item_id,
    l.rank,
    l.score,
    l.satisfaction,
    l.strategy,
    {reason} as reason,
    i.domain,
    cast({policy} as bigint) as policy_version,
    cast({model} as bigint) as model_version,
    i.title,
    i.category
from (
    select l.*, case when l.bit < 0 then 'seen' else s.strategy end as strategy
    from lines as l
    left join m6_strategies as s on l.bit = s.bit
) as l
inner join stg_items as i on l.item_idx = i.item_idx
left join stg_items as b on l.because_idx = b.item_idx
"""


@dataclass
class Shared:
    """What every executor holds: the arrays of the build, the weights in force, what may be shown.

    Attributes:
        weights: weight by strategy bit, by segment; ``*`` is everybody's.
        allowed: bool ``[n]``, available items.
    """

    snapshot: Snapshot
    weights: dict[str, dict[int, float]]
    allowed: np.ndarray
    k: int


def all_lists(tables: Tables, con: duckdb.DuckDBPyConnection, snapshot: Snapshot, *, k: int) -> DataFrame:
    """The list of every user of the build, and of ``*``, anybody else, as ``publish`` writes them.

    Needs histories_by_number, stg_users, stg_items and m6_relations of the build. A list is shorter than k only where
    the build knows fewer items.
    """
    session = tables.session
    tables.take(con, "m6_strategies", "select strategy, cast(bit as integer) as bit from m6.strategies")
    _proposals(tables, has_people=PEOPLE in snapshot.settings["domains"]).createOrReplaceTempView("proposals")
    shared = session.sparkContext.broadcast(_shared(con, snapshot, k))

    def listed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield lines_of(shared.value, batch)

    tables.write("lines", session.sql(_PEOPLE).mapInArrow(listed, _SCHEMA))
    model, policy = con.execute("select model_version, policy_version from m6.active_version").fetchall()[0]
    return session.sql(_LINES.format(reason=reason_sql(), policy=int(policy or 0), model=int(model)))


def lines_of(shared: Shared, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Lines of the lists of a batch of (user_id, segment, history, proposals)."""
    import pyarrow as pa

    from m6rec_udf.histories import unpacked
    from m6rec_udf.listing import Request, lists_of, weights_of

    snapshot = shared.snapshot
    length, records = unpacked(batch["history"])
    segments = batch["segment"].to_pylist()
    codes = {name: code for code, name in enumerate(snapshot.settings["segments"])}
    behaviour = Behaviour(
        len(length),
        np.repeat(np.arange(len(length)), length),
        records["item"].astype(np.int64),
        records["interest"].astype(np.float64),
        records["satisfaction"].astype(np.float64),
        np.ascontiguousarray(records["happened_at"]),
        np.asarray([codes.get(s or "*", -1) for s in segments], np.int64),
    )
    found = lists_of(
        snapshot,
        behaviour,
        Request(k=shared.k, allowed=shared.allowed),
        weights=weights_of([shared.weights.get(s or "*", shared.weights["*"]) for s in segments])[None],
        extra=_extra(batch["proposals"]),
    )
    first = np.searchsorted(found.row, np.arange(len(length)))
    return pa.record_batch(
        {
            "user_id": batch["user_id"].take(pa.array(found.row)),
            "item_idx": pa.array(found.item, pa.int32()),
            "rank": pa.array(np.arange(len(found.row)) - first[found.row] + 1, pa.int32()),
            "score": pa.array(found.score),
            "satisfaction": pa.array(found.satisfaction),
            "bit": pa.array(found.bit, pa.int32()),
            "because_idx": pa.array(found.because, pa.int32()),
        }
    )


def reason_sql() -> str:
    """The expression of the macro m6.reason over the columns of the query above."""
    text = resources.read_sql("macros", "reason")
    body = text.partition(") as\n")[2].partition(";\n")[0].strip()
    for parameter, column in {"of_strategy": "l.strategy", "of_item": "b.item_id", "of_title": "b.title"}.items():
        body = body.replace(parameter, column)
    return body


def _shared(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, k: int) -> Shared:
    weights: dict[str, dict[int, float]] = {}
    sql = (
        "select w.segment, w.bit, w.weight from m6.strategy_weights_active as w "
        "inner join m6.strategies as s on w.strategy = s.strategy where w.domain = '*' and s.is_enabled"
    )
    for segment, bit, weight in con.execute(sql).fetchall():
        weights.setdefault(segment, {})[int(bit)] = float(weight)
    blocked = {row[0] for row in con.execute("select item_id from m6.items where not is_available").fetchall()}
    allowed = np.asarray([item not in blocked for item in snapshot.item_ids], bool)
    return Shared(snapshot, weights, allowed, k)


def _proposals(tables: Tables, *, has_people: bool) -> DataFrame:
    """Candidates of the strategies that live in SQL only, and the persons never shown to a user; a list per user."""
    bits = dict(rows_of(tables.session.table("m6_strategies")))
    parts = [
        f"select user_idx, item_idx, {int(bit)} as bit from best_cand_{name}"
        for name, bit in bits.items()
        if f"best_cand_{name}" in tables
    ]
    if has_people:
        parts.append(_BARRED.format(bit=BARRED, people=PEOPLE))
    if not parts:
        return tables.session.sql(_NO_PROPOSALS)
    return tables.session.sql(
        "select user_idx, array_sort(collect_list(struct(bit, item_idx))) as proposals "
        f"from ({' union all '.join(parts)}) group by user_idx"
    )


def _extra(lists: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    from m6rec_udf.arrow import numbers, offsets_of

    offsets, flat = offsets_of(lists)
    if not len(flat):
        return None
    row = np.repeat(np.arange(len(lists)), np.diff(offsets))
    return row, numbers(flat.field("item_idx")).astype(np.int64), numbers(flat.field("bit"))
