"""The data as of one moment: the log in memory and what the SQL models say, as a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import scipy.sparse as sp

from m6rec_udf import collaborative, models
from m6rec_udf.activity import Activity, activity_table, transitions_table
from m6rec_udf.arrays import ITEM_COLUMNS, Snapshot
from m6rec_udf.query import one

if TYPE_CHECKING:
    from m6rec_udf.event_log import Log
    from m6rec_udf.item_models import ItemModels

READ_BY_SNAPSHOTS = {"feat_item_activity", "feat_item_transitions", "feat_segment_item", "feat_user_item"}
SEGMENT_ITEMS = 500
GREATEST = 1e30  # an attribute of an item beyond this is as good as this


@dataclass
class Settings:
    """What a build decided before it looked at any moment.

    Attributes:
        positive_at: satisfaction from which behaviour counts as a success.
        repeats_allowed: seen items may be recommended again.
        strategies: bit by strategy name, enabled ones only.
        encoder: name of the text encoder.
        satisfaction: name of the satisfaction function.
        seed: seed of every random choice.
        regularisation: lambda of the closed-form item-item weights.
        neighbours: item-item weights kept per proposed item.
        either_sign: negative ones among them.
        tail_weight: of the cosines of items outside the closed form.
        trend_power, trend_column: the trend that item-item scores are multiplied with.
        in_sql: strategies whose SQL file is run by the build, the project's own and overrides; the others are
            computed in memory.
        baskets: how a basket is completed, see ``basket_learning.choose``; empty where baskets are not usual.
        columns: (name, dimensions, weight) of the parts of the items' vectors; empty: text alone.
        lightgbm: settings of the trees in place of ``fitting.PARAMETERS``.
        learned: from what the settings above and the satisfaction model were learned (``learned.basis``), and by
            which version.
        events_elsewhere: the events that were read are not in the file.
    """

    positive_at: float
    repeats_allowed: bool
    strategies: dict[str, int]
    encoder: str
    satisfaction: str
    seed: int
    regularisation: float
    neighbours: int = 100
    either_sign: bool = False
    tail_weight: float = 0.3
    trend_power: float = 0.5
    trend_column: str = "trend_short"
    in_sql: list[str] = field(default_factory=list)
    baskets: dict[str, Any] = field(default_factory=dict)
    columns: list[list[Any]] = field(default_factory=list)
    lightgbm: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)
    events_elsewhere: bool = False


def seconds(moment: datetime) -> float:
    """Seconds since 1970 of a UTC time."""
    return moment.replace(tzinfo=UTC).timestamp()


def parameters(
    con: duckdb.DuckDBPyConnection, as_of: datetime, positive_at: float, *, ask: Callable[..., tuple[Any, ...]] = one
) -> dict[str, Any]:
    """What the SQL models are bound to at a moment; ``ask``: who knows the contract tables, see ``engine.Engine``."""
    start = ask(con, "select min(happened_at) from m6.events where happened_at <= ?", [as_of])[0] or as_of
    span = max((as_of - start).total_seconds() / 86400.0, 1.0)
    return {"as_of": as_of, "span_days": span, "positive_at": positive_at}


def positive_at(
    con: duckdb.DuckDBPyConnection, as_of: datetime, *, ask: Callable[..., tuple[Any, ...]] = one
) -> tuple[float, float]:
    """Satisfaction from which behaviour counts as a success, and the best one the data can show."""
    found = ask(
        con,
        "select max(case when value_high is not null then 1.0 else satisfaction end) from m6.event_types "
        "where event_type in (select distinct event_type from m6.events where happened_at <= ?) and interest > 0",
        [as_of],
    )[0]
    best = 1.0 if found is None else float(found)
    return min(0.75, best), best


def run_models(
    con: duckdb.DuckDBPyConnection,
    found: dict[str, models.Model],
    bound: dict[str, Any],
    *,
    wanted: set[str] | None = None,
    keep: frozenset[str] = frozenset(),
) -> None:
    """Run staging and features as temp tables of this connection; those in ``keep`` stay as they are.

    Shipped models of single behaviours (``LIVE``) become views: they are read once or twice, and are as large as the
    log. ``wanted``: only these and what they read.
    """
    for model in models.ordered({n: m for n, m in found.items() if m.layer in ("staging", "features")}, wanted):
        if model.name in keep:
            continue
        if model.name in models.LIVE and model.path == "shipped":
            models.define(con, model, bound)
        else:
            models.run(con, model, bound, temporary=True)


def own_features(found: dict[str, models.Model]) -> set[str]:
    """Features that SQL has to answer: a model of the project's own, and shipped ones that read one."""
    features = {name: model for name, model in found.items() if model.layer == "features"}
    return {name for name in features if any(model.path != "shipped" for model in models.ordered(features, {name}))}


def lasting(found: dict[str, models.Model]) -> frozenset[str]:
    """Models that an earlier moment reads as the build left them: the catalogue, the users and graded behaviour.

    stg_events takes its part of the behaviour by time. Behaviour is graded anew at each moment where its grade may
    depend on other rows (a staging or satisfaction function of the project's own) or where a model of the project's
    own reads it.
    """
    numbers = frozenset({"stg_items", "stg_users"})
    rows = {*models.LIVE, "stg_events"}
    own = [model for model in found.values() if model.path != "shipped" and model.layer != "satisfaction"]
    if any(model.name in rows or models.references(model, set(models.LIVE)) for model in own):
        return numbers
    return numbers | frozenset(models.LIVE)


def codes(values: list[Any]) -> np.ndarray:
    """Integer codes of labels in sorted order, -1 for None."""
    labels = {label: code for code, label in enumerate(sorted({v for v in values if v is not None}))}
    return np.asarray([labels.get(v, -1) for v in values], np.int32)


def catalogue(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The rows of stg_items as columns.

    ``created_at`` is in seconds since 1970, it and ``price`` are NaN where there is none.
    """
    rows = con.execute(
        "select item_id, title, domain, category, brand, epoch(created_at), price, item_text "
        "from stg_items order by item_idx"
    ).fetchall()
    names = ("item_ids", "titles", "domains", "categories", "brands", "created_at", "price", "texts")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    found: dict[str, Any] = {name: list(column) for name, column in zip(names, columns, strict=True)}
    for name in ("created_at", "price"):
        found[name] = np.asarray([np.nan if value is None else value for value in found[name]], np.float64)
    return found


def read_snapshot(
    con: duckdb.DuckDBPyConnection,
    bound: dict[str, Any],
    items: dict[str, Any],
    text: np.ndarray,
    chosen: Settings,
    log: Log,
    *,
    learned: ItemModels,
    own: set[str] = frozenset(),  # type: ignore[assignment]
    with_tables: bool = False,
) -> Snapshot:
    """Arrays of a moment.

    Args:
        log: the behaviour; what came later is not read.
        learned: where the item-item weights and factors come from.
        own: features to be read from the temp tables of ``run_models``, as the project has SQL of its own for them;
            the others are computed from the log.
        with_tables: also write feat_item_activity and feat_item_transitions as temp tables.
    """
    n, as_of = len(items["item_ids"]), seconds(bound["as_of"])
    activity = Activity(log, as_of, bound["span_days"], n)
    pairs = activity.pairs()
    x = _matrix(con, n) if "feat_user_item" in own else _weighted(pairs.user, pairs.item, pairs.interest, n)
    with ThreadPoolExecutor(1) as beside:  # products of sparse matrices leave the other core free
        counting = beside.submit(_counted, activity, items, own)
        learning = beside.submit(learned.factors, x)
        if "feat_item_transitions" in own:
            transitions = _transitions(con, n)
        else:
            steps = activity.transitions(pairs, log.users)
            if with_tables:
                _write(con, "feat_item_transitions", transitions_table(steps))
            transitions = steps.astype(np.float32)
            del steps
        del pairs
        item_item = learned.item_item(x)
        table, (segments, segment_trend) = counting.result()
        if "feat_item_activity" in own:
            sql = f"select {', '.join(ITEM_COLUMNS)} from feat_item_activity order by item_idx"
            table = con.execute(sql).fetchnumpy()
        elif with_tables:
            _write(con, "feat_item_activity", activity_table(table, items))
        if "feat_segment_item" in own:
            segments, segment_trend = _own_segment_trend(con, n)
        factors = learning.result()
    item = np.column_stack([np.ma.filled(np.ma.asarray(table[c], np.float64), np.nan) for c in ITEM_COLUMNS])
    item = np.clip(item, -GREATEST, GREATEST).astype(np.float32)
    return Snapshot(
        settings={
            "as_of": as_of,
            "span_days": bound["span_days"],
            "positive_at": chosen.positive_at,
            "repeats_allowed": chosen.repeats_allowed,
            "strategies": chosen.strategies,
            "in_sql": chosen.in_sql,
            "encoder": chosen.encoder,
            "columns": chosen.columns,
            "domains": sorted(set(items["domains"])),
            "segments": segments,
            "trend_power": chosen.trend_power,
            "trend_column": chosen.trend_column,
            "baskets": chosen.baskets,
        },
        item_ids=items["item_ids"],
        titles=items["titles"],
        item=item,
        domain=codes(items["domains"]),
        category=codes(items["categories"]),
        brand=codes(items["brands"]),
        is_known=~(items["created_at"] > as_of),
        transitions=transitions,
        item_item=item_item,
        factors=factors.factors,
        fold_in=factors.fold_in,
        text=text,
        segment_trend=collaborative.top_per_row_sparse(segment_trend, SEGMENT_ITEMS, decimals=5).astype(np.float32),
        learned_users=factors.learned_users,
        strength=factors.strength,
        kept=dict(learned.kept),
    )


def _counted(
    activity: Activity, items: dict[str, Any], own: set[str]
) -> tuple[dict[str, np.ndarray], tuple[list[str], sp.csr_matrix]]:
    """Columns of feat_item_activity, and segments with their trends, where they are not the project's own."""
    table: dict[str, np.ndarray] = {}
    trend: tuple[list[str], sp.csr_matrix] = [], sp.csr_matrix((1, activity.n))
    if "feat_item_activity" not in own:
        table = activity.items(items["created_at"]) | {"price": items["price"]}
    if "feat_segment_item" not in own:
        trend = _segment_trend(activity)
    return table, trend


def _write(con: duckdb.DuckDBPyConnection, name: str, table: Any) -> None:
    con.register("m6_features", table)
    con.execute(f"create or replace temp table {name} as from m6_features")
    con.unregister("m6_features")


def interactions(
    con: duckdb.DuckDBPyConnection, bound: dict[str, Any], n: int, log: Log, own: set[str]
) -> sp.csr_matrix:
    """Interest of every (user, item) pair where it is positive, up to a moment, CSR ``[users, n]``.

    The mean square is 1: where all events say the same, all entries are 1.
    """
    if "feat_user_item" in own:
        return _matrix(con, n)
    pairs = Activity(log, seconds(bound["as_of"]), bound["span_days"], n).pairs()
    return _weighted(pairs.user, pairs.item, pairs.interest, n)


def _weighted(user: np.ndarray, item: np.ndarray, interest: np.ndarray, n: int) -> sp.csr_matrix:
    """CSR ``[users, n]`` of pairs sorted by user and item, the mean of the squares 1."""
    users = int(user[-1]) + 1 if len(user) else 1
    start = np.searchsorted(user, np.arange(users + 1)).astype(np.int32)
    size = np.sqrt(np.mean(np.square(interest, dtype=np.float64))) if len(interest) else 1.0
    return sp.csr_matrix(((interest / size).astype(np.float32), item.astype(np.int32), start), shape=(users, n))


def _matrix(con: duckdb.DuckDBPyConnection, n: int) -> sp.csr_matrix:
    pairs = con.execute(
        "select user_idx, item_idx, interest from feat_user_item where interest > 0 order by user_idx, item_idx"
    ).fetchnumpy()
    return _weighted(pairs["user_idx"], pairs["item_idx"], pairs["interest"], n)


def _transitions(con: duckdb.DuckDBPyConnection, n: int) -> sp.csr_matrix:
    steps = con.execute(
        "select item_idx, next_item_idx, weight from feat_item_transitions order by item_idx, next_item_idx"
    ).fetchnumpy()
    return sp.csr_matrix(
        (steps["weight"].astype(np.float32), (steps["item_idx"], steps["next_item_idx"])), shape=(n, n)
    )


def _segment_trend(activity: Activity) -> tuple[list[str], sp.csr_matrix]:
    """Segments with behaviour, and the trends of their items, CSR ``[segments, n]``."""
    names, code = np.unique(activity.log.segment.astype(str), return_inverse=True)
    trend = activity.segment_trend(np.where(names[code] == "*", -1, code), len(names))
    some = np.diff(trend.indptr) > 0
    return (names[some].tolist(), trend[some]) if some.any() else ([], trend[:1])


def _own_segment_trend(con: duckdb.DuckDBPyConnection, n: int) -> tuple[list[str], sp.csr_matrix]:
    """The same from feat_segment_item."""
    rows = con.execute("from feat_segment_item order by segment, item_idx").fetchnumpy()
    names, code = np.unique(rows["segment"].astype(str), return_inverse=True)
    parts = (rows["trend"].astype(np.float64), (code, rows["item_idx"]))
    return names.tolist(), sp.csr_matrix(parts, shape=(max(len(names), 1), n))
