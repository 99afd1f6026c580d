"""What a build knows while it runs, handed from step to step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from m6rec_udf import models, moment, training

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from m6rec_udf.arrivals import Reading
    from m6rec_udf.engine import Engine
    from m6rec_udf.event_log import Log
    from m6rec_udf.item_texts import ItemTexts
    from m6rec_udf.registry import Context

Progress = Callable[[str, int, int], None]


class Clock:
    """Seconds by step, and the progress callback."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self._last, self.steps = progress, time.perf_counter(), 0
        self.seconds: dict[str, float] = {}

    def __call__(self, step: str) -> None:
        """A step is done."""
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now
        self.steps += 1
        if self.progress is not None:
            self.progress(step, self.steps, 6 + 2 * training.WINDOWS)


@dataclass
class State:
    """One build.

    Attributes:
        con: a cursor of its own, whose temp tables hold what the SQL models say.
        found: the SQL models by name, with the satisfaction function in force.
        decisions: (name, value, reason) of every setting chosen from the data.
        as_of: behaviour after it is not read.
        marks: the last event_seq and feedback_seq that are read.
        reading: what else was seen then, to find what others write meanwhile.
        bound: what the SQL models are bound to at ``as_of``.
        staged: staging models that are temp tables or views as of ``as_of``.
        items, text, log: catalogue, text vectors of its items, behaviour.
        known_texts: which of the vectors are those of the version in force; None where they are of more than text.
        engine: who runs the SQL models.
        own: features that SQL has to answer, see ``engine.Engine.features_in_sql``.
        in_tables: models that were run as SQL for features and strategies.
        lightgbm: settings of the trees in place of the usual ones.
        new_strategies: (name, bit, description) of strategies without a bit so far.
    """

    con: duckdb.DuckDBPyConnection
    context: Context
    found: dict[str, models.Model]
    seed: int
    satisfaction: str
    clock: Clock
    engine: Engine
    decisions: list[tuple[str, str, str]] = field(default_factory=list)
    as_of: datetime = field(init=False)
    marks: tuple[int, int] = field(init=False)
    reading: Reading = field(init=False)
    bound: dict[str, Any] = field(init=False)
    settings: moment.Settings = field(init=False)
    staged: frozenset[str] = frozenset()
    items: dict[str, Any] = field(init=False)
    text: np.ndarray = field(init=False)
    known_texts: ItemTexts | None = None
    log: Log = field(init=False)
    own: set[str] = field(init=False)
    in_tables: set[str] = field(default_factory=set)
    lightgbm: dict[str, Any] = field(default_factory=dict)
    new_strategies: list[tuple[str, int, str]] = field(default_factory=list)

    def decide(self, name: str, value: Any, reason: str) -> None:
        """Note a setting that was chosen from the data."""
        self.decisions.append((name, str(value), reason))

    def decide_item_item(self, chosen: moment.Settings, why: str) -> None:
        """Note the settings of item-item."""
        self.decide("item_item_regularisation", f"{chosen.regularisation:g}", why)
        kept = "weights kept per proposed item, " + ("of either sign" if chosen.either_sign else "positive ones")
        self.decide("item_item_neighbours", chosen.neighbours, f"{kept}; chosen with it")
        self.decide("item_item_tail_weight", f"{chosen.tail_weight:g}", "of items outside the closed form")
        self.decide("item_item_trend", f"{chosen.trend_column} to the power {chosen.trend_power:g}", "chosen with it")

    def decide_baskets(self, chosen: moment.Settings, why: str) -> None:
        """Note how a basket is completed."""
        found = chosen.baskets
        what = f"closed form, {found['regularisation_per_basket']:g} a basket" if found else "as what comes next"
        self.decide("complete_basket", what, why)

    @property
    def lasting(self) -> frozenset[str]:
        """Models that an earlier moment reads as they are, see ``moment.lasting``."""
        return moment.lasting(self.found)

    @property
    def has_own_events(self) -> bool:
        """Whether stg_events is made by SQL of the project's own: it is a table then, else a view of what was read."""
        return any(self.found[name].path != "shipped" for name in ("stg_events", *models.LIVE))
