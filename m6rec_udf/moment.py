"""The data as of one moment: run the SQL models, read their tables into a snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import scipy.sparse as sp

from m6rec_udf import collaborative, models, new_items
from m6rec_udf.arrays import ITEM_COLUMNS, Snapshot
from m6rec_udf.history import Behaviour
from m6rec_udf.query import one

FACTORS = 64
READ_BY_SNAPSHOTS = {"feat_item_activity", "feat_item_transitions", "feat_segment_item", "feat_user_item"}
CLOSED_FORM_ITEMS = 6000


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
        tail_weight: of the cosines of items outside the closed form.
        trend_power, trend_column: the trend that item-item scores are multiplied with.
        in_sql: strategies whose SQL file is run by the build, the project's own and overrides; the others are
            computed in memory.
    """

    positive_at: float
    repeats_allowed: bool
    strategies: dict[str, int]
    encoder: str
    satisfaction: str
    seed: int
    regularisation: float
    neighbours: int = 100
    tail_weight: float = 0.3
    trend_power: float = 0.5
    trend_column: str = "trend_short"
    in_sql: list[str] = field(default_factory=list)


def seconds(moment: datetime) -> float:
    """Seconds since 1970 of a UTC time."""
    return moment.replace(tzinfo=UTC).timestamp()


def parameters(con: duckdb.DuckDBPyConnection, as_of: datetime, positive_at: float) -> dict[str, Any]:
    """What the SQL models are bound to at a moment."""
    start = one(con, "select min(happened_at) from m6.events where happened_at <= ?", [as_of])[0] or as_of
    span = max((as_of - start).total_seconds() / 86400.0, 1.0)
    return {"as_of": as_of, "span_days": span, "positive_at": positive_at}


def positive_at(con: duckdb.DuckDBPyConnection, as_of: datetime) -> tuple[float, float]:
    """Satisfaction from which behaviour counts as a success, and the best one the data can show."""
    found = one(
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

    ``wanted``: only these and what they read.
    """
    for model in models.ordered({n: m for n, m in found.items() if m.layer in ("staging", "features")}, wanted):
        if model.name not in keep:
            models.run(con, model, bound, temporary=True)


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


def _codes(values: list[Any]) -> np.ndarray:
    """Integer codes of labels in sorted order, -1 for None."""
    labels = {label: code for code, label in enumerate(sorted({v for v in values if v is not None}))}
    return np.asarray([labels.get(v, -1) for v in values], np.int32)


def catalogue(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The rows of stg_items as columns, and ``words``, the word vectors of their texts."""
    rows = con.execute(
        "select item_id, title, domain, category, brand, created_at, item_text from stg_items order by item_idx"
    ).fetchall()
    names = ("item_ids", "titles", "domains", "categories", "brands", "created_at", "texts")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    found: dict[str, Any] = {name: list(column) for name, column in zip(names, columns, strict=True)}
    found["words"] = new_items.word_vectors([text or "" for text in found["texts"]], seed=0)
    return found


def read_snapshot(
    con: duckdb.DuckDBPyConnection,
    bound: dict[str, Any],
    items: dict[str, Any],
    text: np.ndarray,
    chosen: Settings,
    *,
    with_item_item: bool = True,
) -> Snapshot:
    """Arrays of the temp tables of ``run_models``; learns the item-item weights and factors.

    ``with_item_item=False`` leaves the item-item weights empty: their settings are not chosen yet.
    """
    n = len(items["item_ids"])
    table = con.execute(f"select {', '.join(ITEM_COLUMNS)} from feat_item_activity order by item_idx").fetchnumpy()
    item = np.column_stack(
        [np.ma.filled(np.ma.asarray(table[c], np.float64), np.nan) for c in ITEM_COLUMNS]
    ).astype(np.float32)
    domains = sorted(set(items["domains"]))
    segments = [r[0] for r in con.execute("select distinct segment from feat_segment_item order by 1").fetchall()]
    x = interactions(con, n)
    item_item = sp.csr_matrix((n, n), dtype=np.float32)
    if with_item_item:
        item_item = with_new_items(x, item_item_weights(x, chosen), text, items["words"])
    factors, fold_in = collaborative.svd_factors(x, factors=FACTORS, seed=chosen.seed)
    as_of = bound["as_of"]
    return Snapshot(
        settings={
            "as_of": seconds(as_of),
            "span_days": bound["span_days"],
            "positive_at": chosen.positive_at,
            "repeats_allowed": chosen.repeats_allowed,
            "strategies": chosen.strategies,
            "in_sql": chosen.in_sql,
            "encoder": chosen.encoder,
            "domains": domains,
            "segments": segments,
            "trend_power": chosen.trend_power,
            "trend_column": chosen.trend_column,
        },
        item_ids=items["item_ids"],
        titles=items["titles"],
        item=item,
        domain=_codes(items["domains"]),
        category=_codes(items["categories"]),
        brand=_codes(items["brands"]),
        is_known=np.asarray([c is None or c <= as_of for c in items["created_at"]], bool),
        transitions=_transitions(con, n),
        item_item=item_item,
        factors=factors,
        fold_in=fold_in,
        text=text,
        segment_trend=_segment_trend(con, n, segments),
    )


def item_item_weights(x: sp.csr_matrix, chosen: Settings) -> sp.csr_matrix:
    """Item-item weights with the settings of the build."""
    return collaborative.closed_form_item_item(
        x,
        regularisation=chosen.regularisation,
        neighbours=chosen.neighbours,
        most_items=CLOSED_FORM_ITEMS,
        tail_weight=chosen.tail_weight,
    )


def with_new_items(x: sp.csr_matrix, weights: sp.csr_matrix, text: np.ndarray, words: np.ndarray) -> sp.csr_matrix:
    """Item-item weights learned from ``x`` and those of items without behaviour, from their text and its words."""
    popularity = np.asarray(x.sum(0)).ravel()
    return new_items.with_new_items(weights, text, words, popularity, most_items=CLOSED_FORM_ITEMS)


def interactions(con: duckdb.DuckDBPyConnection, n: int) -> sp.csr_matrix:
    """1 for every (user, item) pair with positive interest, CSR ``[users, n]``."""
    pairs = con.execute(
        "select user_idx, item_idx from feat_user_item where interest > 0 order by user_idx, item_idx"
    ).fetchnumpy()
    users = int(pairs["user_idx"].max()) + 1 if len(pairs["user_idx"]) else 1
    ones = np.ones(len(pairs["user_idx"]), np.float32)
    return sp.csr_matrix((ones, (pairs["user_idx"], pairs["item_idx"])), shape=(users, n))


def _transitions(con: duckdb.DuckDBPyConnection, n: int) -> sp.csr_matrix:
    steps = con.execute(
        "select item_idx, next_item_idx, weight from feat_item_transitions order by item_idx, next_item_idx"
    ).fetchnumpy()
    return sp.csr_matrix(
        (steps["weight"].astype(np.float32), (steps["item_idx"], steps["next_item_idx"])), shape=(n, n)
    )


def _segment_trend(con: duckdb.DuckDBPyConnection, n: int, segments: list[str]) -> sp.csr_matrix:
    rows = con.execute(
        "select segment, item_idx, trend from feat_segment_item "
        "qualify row_number() over (partition by segment order by round(trend, 5) desc, item_idx) <= 500 "
        "order by segment, item_idx"
    ).fetchnumpy()
    code = {name: at for at, name in enumerate(segments)}
    at = np.asarray([code[s] for s in rows["segment"]], np.int64)
    return sp.csr_matrix((rows["trend"].astype(np.float32), (at, rows["item_idx"])), shape=(max(len(segments), 1), n))


@dataclass
class Log:
    """Every behaviour of the build, sorted by user and time, integer-coded."""

    user: np.ndarray
    item: np.ndarray
    interest: np.ndarray
    satisfaction: np.ndarray
    happened_at: np.ndarray
    segment: np.ndarray  # per user, name

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.segment)

    def behaviour(self, users: np.ndarray, until: float, segments: list[str]) -> Behaviour:
        """Behaviour of some users up to a moment, in the order of ``users`` (ascending user_idx)."""
        position = np.full(self.users, -1)
        position[users] = np.arange(len(users))
        keep = (position[self.user] >= 0) & (self.happened_at <= until)
        code = {name: at for at, name in enumerate(segments)}
        return Behaviour(
            len(users),
            position[self.user[keep]],
            self.item[keep],
            self.interest[keep],
            self.satisfaction[keep],
            self.happened_at[keep],
            np.asarray([code.get(s, -1) for s in self.segment[users]], np.int64),
        )

    def positions(self, users: np.ndarray, moments: Any) -> np.ndarray:
        """Position of each user's first behaviour at or after a moment, int64 ``[users]``; -1 is an unknown user."""
        start = np.searchsorted(self.user, users, side="left")
        stop = np.searchsorted(self.user, users, side="right")
        moments = np.broadcast_to(moments, len(users))
        found = (a + np.searchsorted(self.happened_at[a:b], m) for a, b, m in zip(start, stop, moments, strict=True))
        return np.fromiter(found, np.int64, len(users))

    def before(self, users: np.ndarray, moments: np.ndarray, segments: list[str]) -> Behaviour:
        """Behaviour of each user before a moment of its own; a user may come more than once, -1 is an unknown one."""
        start = np.searchsorted(self.user, users, side="left")
        length = self.positions(users, moments) - start
        at = np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(length.sum())
        code = {name: at for at, name in enumerate(segments)}
        own = ["*" if user < 0 else self.segment[user] for user in users]
        return Behaviour(
            len(users),
            np.repeat(np.arange(len(users)), length),
            self.item[at],
            self.interest[at],
            self.satisfaction[at],
            self.happened_at[at],
            np.asarray([code.get(s, -1) for s in own], np.int64),
        )


def read_log(con: duckdb.DuckDBPyConnection) -> Log:
    """The temp table stg_events as arrays."""
    rows = con.execute(
        "select user_idx, item_idx, interest, satisfaction, epoch(happened_at) as happened_at from stg_events "
        "order by user_idx, happened_at, item_idx, interest, satisfaction"
    ).fetchnumpy()
    segment = con.execute("select segment from stg_users order by user_idx").fetchnumpy()["segment"]
    return Log(
        rows["user_idx"].astype(np.int64),
        rows["item_idx"].astype(np.int64),
        rows["interest"].astype(np.float64),
        rows["satisfaction"].astype(np.float64),
        rows["happened_at"].astype(np.float64),
        np.asarray(segment, object),
    )
