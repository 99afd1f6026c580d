"""The engine of a build that runs the SQL models on Spark (see ``m6rec_udf.engine``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from m6rec_udf import models, moment
from m6rec_udf.errors import ModelSqlError
from m6rec_udf.functions import FUNCTIONS
from m6rec_udf.item_models import ItemModels, Learned
from m6rec_udf.spark.dialect import select_sql, spark_sql
from m6rec_udf.spark.factors import FactorsFromSpark
from m6rec_udf.spark.histories import write_histories
from m6rec_udf.spark.tables import Tables, rows_of, share_of_users
from m6rec_udf.spark.vectors import embed_new_texts

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from pyspark.sql import DataFrame, SparkSession

    from m6rec_udf.embed import Encoder
    from m6rec_udf.event_log import Log

OF_USERS = ("stg_events", "feat_user_item", "mart_outcomes", "mart_impressions")  # learned from a share of them
ARROW_FUNCTIONS = ("m6_user_vector", "m6_weighted_sum")


class SparkEngine:
    """Runs the models on Spark; the build reads what it asks for from their Parquet files.

    Args:
        session: the build's own session, see ``isolated``.
        tables: with the contract tables as ``m6_<table>``.
        share: share of the users whose behaviour the build holds in memory and learns from, in (0, 1].
        most_history: behaviours of a user that are stored for serving, the latest ones.
        has_events: the file holds the events.
    """

    def __init__(
        self,
        session: SparkSession,
        tables: Tables,
        *,
        share: float = 1.0,
        most_history: int = 10_000,
        has_events: bool = True,
    ) -> None:
        self.session, self.tables, self.part, self.most_history = session, tables, share, most_history
        self.has_events = has_events
        why = f"the SQL models ran on Spark {session.version}; behaviours of a user that are stored: {most_history}"
        self.decisions = [("engine", "spark", why)]
        if share < 1:
            why = "of the users: satisfaction model and item-item weights are learned from them, factors by ALS of all"
            self.decisions.append(("learned_from", f"{share:.4f}", why))
        register_functions(session)

    def ask(
        self, con: duckdb.DuckDBPyConnection, sql: str, given: Sequence[Any] | Mapping[str, Any] = ()
    ) -> tuple[Any, ...]:
        """See ``engine.Engine``."""
        values = dict(given) if isinstance(given, Mapping) else tuple(given)
        rows = rows_of(self.session.sql(select_sql(sql, values)))
        return rows[0] if rows else (None,)

    def run(
        self,
        con: duckdb.DuckDBPyConnection,
        found: dict[str, models.Model],
        bound: dict[str, Any],
        *,
        wanted: set[str] | None = None,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """See ``engine.Engine``; models of single behaviours stay views that Spark computes when they are read."""
        layers = {n: m for n, m in found.items() if m.layer in ("staging", "features")}
        for model in models.ordered(layers, wanted):
            if model.name in keep:
                continue
            if model.name in models.LIVE and model.path == "shipped":
                self.frame(model, bound).createOrReplaceTempView(model.name)
            else:
                self.run_alone(con, model, bound)

    def run_alone(self, con: duckdb.DuckDBPyConnection, model: models.Model, bound: dict[str, Any]) -> None:
        """See ``engine.Engine``."""
        self.tables.write(model.name, self.frame(model, bound))
        self.tables.show(con, model.name, where=share_of_users(self.part) if model.name in OF_USERS else "true")

    def frame(self, model: models.Model, bound: dict[str, Any]) -> DataFrame:
        """A model as a frame. Raises ModelSqlError: with the model's name, Spark's message and the SQL."""
        from pyspark.errors import PySparkException

        sql = spark_sql(model, bound)
        try:
            return self.session.sql(sql)
        except PySparkException as error:
            raise ModelSqlError(
                f"SQL model {model.name} ({model.path}) failed on Spark: {error}\n--- SQL ---\n{sql}",
                f"give Spark its own wording in sql/spark/{model.name}.sql",
            ) from error

    def columns(self, con: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
        """See ``engine.Engine``."""
        return tuple(self.session.table(name).columns)

    def share(self, con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        """See ``engine.Engine``."""
        for name in names:
            self.tables.take(con, name, f"from {name}")

    def features_in_sql(self, found: dict[str, models.Model], *, past: bool = False) -> set[str]:
        """All: the log in memory may be that of a share of the users. Past moments read it where it is everybody's.

        They ask about domains hidden from a history, which a model of all behaviour has seen.
        """
        if past and self.part >= 1:
            return moment.own_features(found)
        return {name for name, model in found.items() if model.layer == "features"}

    def item_models(
        self, chosen: moment.Settings, items: dict[str, Any], text: np.ndarray, *, has_weights: bool = True
    ) -> ItemModels:
        """Learned in memory; where that holds a share of the users, factors by ALS from all of them."""
        if self.part < 1:
            return FactorsFromSpark(chosen, items, text, has_weights=has_weights, session=self.session)
        return Learned(chosen, items, text, has_weights=has_weights)

    def embed(self, con: duckdb.DuckDBPyConnection, encoder: Encoder) -> int:
        """See ``engine.Engine``."""
        return embed_new_texts(self.tables, con, encoder)

    def histories(self, con: duckdb.DuckDBPyConnection, log: Log) -> Any:
        """See ``engine.Engine``: of all users, packed by the executors."""
        write_histories(self.tables, self.most_history)
        self.tables.show(con, "packed_histories")
        return con.sql("from packed_histories")


def isolated(session: SparkSession) -> SparkSession:
    """A session of the same context with temp views and settings of its own: times are UTC."""
    own = session.newSession()
    for name, value in {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }.items():
        own.conf.set(name, value)
    return own


def register_functions(session: SparkSession) -> None:
    """The functions of the Python core that models call, as Arrow functions of the session."""
    from pyspark.sql.functions import arrow_udf

    known = {function.name: function for function in FUNCTIONS}
    for name in ARROW_FUNCTIONS:
        function = _of_two(known[name].make(None))  # type: ignore[arg-type]  # these two look at no database
        session.udf.register(name, arrow_udf(function, "array<float>"))


def _of_two(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under the types that Spark asks for."""

    def of_arrays(vectors: pa.Array, weights: pa.Array) -> pa.Array:
        return function(vectors, weights)

    of_arrays.__annotations__ = dict.fromkeys(("vectors", "weights", "return"), pa.Array)
    return of_arrays
