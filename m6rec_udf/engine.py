"""The seam of a build: who runs the SQL models and answers questions about the contract tables.

A build asks for models by name and reads their rows on its DuckDB connection. ``InDuckDB`` runs them there; another
engine (``m6rec_udf.spark``) runs the same files elsewhere and leaves what the build reads as views of its connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from m6rec_udf import histories, models, moment, query
from m6rec_udf.item_models import ItemModels, Learned

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from m6rec_udf.embed import Encoder
    from m6rec_udf.event_log import Log


class Engine(Protocol):
    """What a build needs of an engine; ``con`` is the connection of the build.

    Attributes:
        decisions: (name, value, reason) of what the engine settled, for m6.decisions.
        has_events: the file holds the events of the build.
    """

    decisions: list[tuple[str, str, str]]
    has_events: bool

    def ask(
        self, con: duckdb.DuckDBPyConnection, sql: str, given: Sequence[Any] | Mapping[str, Any] = ()
    ) -> tuple[Any, ...]:
        """The first row of a SELECT over the contract tables; a tuple of one None where there is none."""

    def run(
        self,
        con: duckdb.DuckDBPyConnection,
        found: dict[str, models.Model],
        bound: dict[str, Any],
        *,
        wanted: set[str] | None = None,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """Run staging and features as ``moment.run_models`` does."""

    def run_alone(self, con: duckdb.DuckDBPyConnection, model: models.Model, bound: dict[str, Any]) -> None:
        """Run one SELECT over models that were run before."""

    def columns(self, con: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
        """Columns of a model that was run."""

    def share(self, con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        """Let models read temp tables of the connection that the build has written."""

    def features_in_sql(self, found: dict[str, models.Model], *, past: bool = False) -> set[str]:
        """Features that the build, or its past moments, read from models; the others are computed from the log."""

    def item_models(
        self, chosen: moment.Settings, items: dict[str, Any], text: np.ndarray, *, has_weights: bool = True
    ) -> ItemModels:
        """Where item-item weights and factors come from; see ``item_models.Learned``."""

    def embed(self, con: duckdb.DuckDBPyConnection, encoder: Encoder) -> int:
        """Put vectors of new texts of stg_items into m6.text_vectors, if the engine does that; how many."""

    def histories(self, con: duckdb.DuckDBPyConnection, log: Log) -> Any:
        """(user_id, history) of every user with behaviour, as ``histories.packed``: whatever DuckDB can register."""


class InDuckDB:
    """The models run as temp tables of the build's connection."""

    has_events = True

    def __init__(self) -> None:
        self.decisions: list[tuple[str, str, str]] = []

    def ask(
        self, con: duckdb.DuckDBPyConnection, sql: str, given: Sequence[Any] | Mapping[str, Any] = ()
    ) -> tuple[Any, ...]:
        """See ``Engine``."""
        return query.one(con, sql, given)

    def run(
        self,
        con: duckdb.DuckDBPyConnection,
        found: dict[str, models.Model],
        bound: dict[str, Any],
        *,
        wanted: set[str] | None = None,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        """See ``Engine``."""
        moment.run_models(con, found, bound, wanted=wanted, keep=keep)

    def run_alone(self, con: duckdb.DuckDBPyConnection, model: models.Model, bound: dict[str, Any]) -> None:
        """See ``Engine``."""
        models.run(con, model, bound, temporary=True)

    def columns(self, con: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
        """See ``Engine``."""
        return tuple(row[0] for row in con.execute(f"describe {name}").fetchall())

    def share(self, con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        """They are there already."""

    def features_in_sql(self, found: dict[str, models.Model], *, past: bool = False) -> set[str]:
        """Those with SQL of the project's own."""
        return moment.own_features(found)

    def item_models(
        self, chosen: moment.Settings, items: dict[str, Any], text: np.ndarray, *, has_weights: bool = True
    ) -> ItemModels:
        """Learned from the interactions in memory."""
        return Learned(chosen, items, text, has_weights=has_weights)

    def embed(self, con: duckdb.DuckDBPyConnection, encoder: Encoder) -> int:
        """None: the build embeds what is missing."""
        return 0

    def histories(self, con: duckdb.DuckDBPyConnection, log: Log) -> Any:
        """Those of the log."""
        ids = con.sql("select user_id from stg_users order by user_idx").to_arrow_table()["user_id"]
        return histories.packed(log, ids)
