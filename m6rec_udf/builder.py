"""Build: features, vectors, candidates' arrays, satisfaction model, calibration, as one new version.

Everything is computed in temp tables and arrays of a cursor; one transaction at the end (``version``) makes it visible.
A build that is killed leaves the version before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from m6rec_udf import (
    arrays,
    arrivals,
    basket_learning,
    event_log,
    histories,
    item_texts,
    learned,
    lookback,
    models,
    moment,
    resources,
    sql_strategies,
    tuning,
    vector_columns,
    version,
)
from m6rec_udf.build_state import Clock, Progress, State
from m6rec_udf.cells import Cells, make_cells
from m6rec_udf.embed import content_hash
from m6rec_udf.engine import Engine, InDuckDB
from m6rec_udf.errors import CheckFailedError, NotBuiltError
from m6rec_udf.fitting import Examples, checked_settings, no_rows, teaches, train
from m6rec_udf.item_models import ItemModels
from m6rec_udf.logs import logged
from m6rec_udf.query import cursor, one
from m6rec_udf.registry import Context, context_of
from m6rec_udf.satisfaction import Part, part_names


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        model_version: number of the new version.
        as_of: behaviour after it was not read.
        seconds: seconds by step.
        decisions: (name, value, reason) of every setting chosen from the data.
        embedded: texts that were new to the encoder.
        rows: training rows.
    """

    model_version: int
    as_of: datetime
    seconds: dict[str, float] = field(default_factory=dict)
    decisions: list[tuple[str, str, str]] = field(default_factory=list)
    embedded: int = 0
    texts: int = 0
    rows: int = 0


@logged("build", lambda report: {"model_version": report.model_version, "as_of": report.as_of, "rows": report.rows})
def build(
    con: duckdb.DuckDBPyConnection,
    *,
    as_of: datetime | None = None,
    seed: int = 0,
    satisfaction: str | None = None,
    activate: bool = True,
    retrain: bool = False,
    lightgbm: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a new version and put it in force, atomically.

    Args:
        con: a dressed connection.
        as_of: behaviour after this moment (UTC) is not read; default: the latest ``happened_at`` in the file.
        seed: seed of every random choice.
        satisfaction: the satisfaction function, sql/satisfaction/sat_<name>.sql; default: that of the build in
            force, ``graded`` for the first one.
        activate: False stores the version without putting it in force (``recommend(..., version := n)`` reads it).
        retrain: read all behaviour afresh and learn from past moments in any case. Otherwise the satisfaction model,
            the item models and the settings of the build in force are taken over where behaviour has grown by less
            than 5 % since they were learned and nothing they were learned from has changed; ``m6.decisions`` says so.
        lightgbm: settings of the trees in place of the usual ones, some of ``fitting.TUNABLE``; default: those of the
            build in force, ``{}`` for the usual ones.
        progress: called with (step, done, total).

    Raises:
        ParameterError: ``lightgbm`` names another setting.
        NotBuiltError: there is neither an item nor an event to build from, or the events are elsewhere (a file made by
            ``m6rec_udf.spark`` without them).
        ModelSqlError, SchemaError: a SQL model of the project is wrong.
    """
    _require_events(con)
    return build_with(
        InDuckDB(),
        con,
        as_of=as_of,
        seed=seed,
        satisfaction=satisfaction,
        activate=activate,
        retrain=retrain,
        lightgbm=lightgbm,
        progress=progress,
    )


def build_with(
    engine: Engine,
    con: duckdb.DuckDBPyConnection,
    *,
    as_of: datetime | None = None,
    seed: int = 0,
    satisfaction: str | None = None,
    activate: bool = True,
    retrain: bool = False,
    lightgbm: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """``build`` with the SQL models run by an engine."""
    context = context_of(con)
    work = cursor(con)
    try:
        task = _Build(work, context, seed, satisfaction, Clock(progress), engine)
        task.lightgbm = _lightgbm_in_force(work) if lightgbm is None else checked_settings(lightgbm)
        return task.run(as_of, activate=activate, retrain=retrain)
    finally:
        work.close()


def _require_events(con: duckdb.DuckDBPyConnection) -> None:
    """Raise NotBuiltError where the build in force has read events that are not in the file."""
    context_of(con)
    sql = (
        "select m.parameters ->> '$.events_elsewhere' from m6.models as m "
        "inner join m6.active as a on m.model_version = a.model_version"
    )
    if one(con, sql)[0] == "true":
        raise NotBuiltError(
            "the build in force was made on Spark from events that are not in this file, expected them in m6.events",
            "build on Spark again: m6rec_udf.spark.build(session, events=..., target=...)",
        )


def _lightgbm_in_force(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    sql = (
        "select m.parameters -> '$.lightgbm' from m6.models as m "
        "inner join m6.active as a on m.model_version = a.model_version"
    )
    found: dict[str, Any] = json.loads(one(con, sql)[0] or "{}")
    return found


class _Build(State):
    """The steps of a build."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        context: Context,
        seed: int,
        satisfaction: str | None,
        clock: Clock,
        engine: Engine,
    ) -> None:
        name = satisfaction or version.satisfaction_in_force(con)
        found = models.with_satisfaction(models.collect(context.project), name)
        super().__init__(con, context, found, seed, name, clock, engine)
        self.decisions += engine.decisions

    def run(self, as_of: datetime | None, *, activate: bool, retrain: bool = False) -> BuildReport:
        """Read, learn or take over, commit."""
        self.con.execute("begin")  # marks, staging and log see the same rows
        self.as_of = as_of or self._latest()
        self.marks = self._watermarks()
        self.reading = arrivals.Reading.of(self.con)
        strategies = self._strategies()
        self.bound = moment.parameters(self.con, self.as_of, self._positive_at(), ask=self.engine.ask)
        self._stage(anew=retrain)
        basis = learned.basis(self.con, self.found, self.as_of, self.marks)
        self.con.execute("commit")
        self.clock("staging")
        embedded, blocks = self._embed()
        self.settings = self._settings(strategies)
        self.settings.columns = [list(block) for block in blocks]
        self.own = self.engine.features_in_sql(self.found)
        known = None
        if not retrain:
            known = learned.in_force(
                *(self.con, self.settings, basis, self.found, self.items, self.text), known_texts=self.known_texts
            )
        cells = known.cells if known else None  # of the same texts
        cells = cells or make_cells(self.text, seed=self.seed)
        self.clock("embed")
        past = Examples(no_rows(), no_rows())
        if known:
            self.settings = known.settings
        else:
            past = self._past_rows(cells)
            self.settings.learned = basis
        wanted = sql_strategies.read_in_sql(self, past=False)
        if wanted:
            self.engine.run(self.con, self.found, self.bound, wanted=wanted, keep=self.staged)
        self._check_rows(self.bound)
        self.clock("features")
        source: ItemModels = known.items if known else self.engine.item_models(self.settings, self.items, self.text)
        snapshot = moment.read_snapshot(
            *(self.con, self.bound, self.items, self.text, self.settings, self.log),
            learned=source,
            own=self.own,
            with_tables=True,
        )
        snapshot.cells = cells
        self._complete_baskets(snapshot, known)
        self.clock("item model")
        if known:
            snapshot.model = known.model
            snapshot.kept |= known.kept
            self._decide_taken_over(known)
        else:
            snapshot.model = train(past, seed=self.seed, lightgbm=self.lightgbm)
            self._decide_model(snapshot, past)
        self.clock("satisfaction")
        extra = sql_strategies.for_everybody(self, strategies, snapshot)
        number = self._commit(snapshot, extra, activate=activate)
        self.clock("commit")
        return BuildReport(
            number, self.as_of, self.clock.seconds, self.decisions, embedded, len(set(self.items["texts"])), past.count
        )

    def _complete_baskets(self, snapshot: arrays.Snapshot, known: learned.Learned | None) -> None:
        """What goes together in baskets, where they are usual."""
        if self.settings.baskets and known:
            snapshot.baskets = known.items.baskets()
            snapshot.kept |= known.items.kept
        elif self.settings.baskets:
            snapshot.baskets = basket_learning.weights_as_of(snapshot, self.log)

    # the next two are what benchmarks/quality/ablation.py listens to

    def _past_rows(self, cells: Cells | None) -> Examples:
        return lookback.examples(self, cells)

    def _commit(self, snapshot: arrays.Snapshot, extra: list[str], *, activate: bool) -> int:
        return version.commit(self, snapshot, extra, activate=activate)

    def _embed(self) -> tuple[int, vector_columns.Blocks]:
        """Vectors of the items; how many texts were new, and the parts of the vectors where there are several."""
        texts = [t or "" for t in self.items["texts"]]
        self.items["hashes"] = [content_hash(text) for text in texts]
        embedded = self.engine.embed(self.con, self.context.encoder)
        found = item_texts.vectors_of(
            *(self.con, self.context.encoder, self.items["item_ids"], texts, self.items["hashes"]),
            progress=self.clock.progress,
        )
        self.text, blocks, there = vector_columns.joined(self.con, self.context, self.items, found.vectors)
        self.known_texts = None if blocks else found
        for decision in there:
            self.decide(*decision)
        return embedded + found.embedded, blocks

    def _stage(self, *, anew: bool) -> None:
        """Number users and items, read the behaviour: all of it, or what came since the stored histories."""
        staging = {name for name, model in self.found.items() if model.layer == "staging"}
        first = staging - {"stg_events"}
        is_stored = not anew and event_log.stored_version(self.con, self.found, self.bound) is not None
        numbered = histories.with_stored_numbers(self.found) if is_stored else self.found
        self.engine.run(self.con, numbered, self.bound, wanted=first)
        graded = self.engine.columns(self.con, models.IN_FORCE)
        models.check_columns(graded, self.found[models.IN_FORCE], models.SATISFACTION_COLUMNS)
        found = event_log.appended(self.con, self.found, self.bound) if is_stored else None
        if found is None:
            self.engine.run(self.con, self.found, self.bound, wanted=staging, keep=frozenset(first))
            self.log, self.staged = event_log.read_log(self.con), frozenset(staging)
        else:
            self.log, self.staged = found, frozenset(first)
        self.items = moment.catalogue(self.con)

    def _settings(self, strategies: dict[str, int]) -> moment.Settings:
        chosen = self.settings = moment.Settings(
            positive_at=self.bound["positive_at"],
            repeats_allowed=self._repeats_allowed(),
            strategies={name: bit for name, bit in strategies.items() if name != "blended"},
            encoder=self.context.encoder.name,
            satisfaction=self.satisfaction,
            seed=self.seed,
            lightgbm=self.lightgbm,
            regularisation=tuning.usual_regularisation(self.log.users),
            events_elsewhere=not self.engine.has_events,
        )
        chosen.in_sql = [m.name.removeprefix("cand_") for m in sql_strategies.in_sql(self)]
        return chosen

    def _check_rows(self, bound: dict[str, Any]) -> None:
        """Run sql/checks/at_build/chk_*.sql over the tables of the build: any row is a failure.

        Checks of features run where one of them is the project's own; the shipped ones keep their grain.
        """
        features = {name: model for name, model in self.found.items() if model.layer == "features"}
        own = moment.own_features(self.found)
        for path in sorted((resources.sql_root() / "checks" / "at_build").glob("*.sql")):
            check = models.Model(path.stem, "checks", path.read_text(encoding="utf-8"), "shipped")
            read = models.references(check, set(features))
            if read and not read & own:
                continue
            for model in models.ordered(features, read):
                if model.name not in self.in_tables:
                    models.define(self.con, model, bound)
            rows = self.con.execute(check.sql).fetchall()
            if rows:
                raise CheckFailedError(
                    f"the check {path.stem} found {len(rows)} broken rows, expected none; the first: {rows[0]}",
                    "look at the model it names; an override in your project may have changed its grain",
                )

    # what the data says about the settings

    def _latest(self) -> datetime:
        row = self.engine.ask(
            self.con,
            "select greatest((select max(happened_at) from m6.events), (select max(happened_at) from m6.feedback)), "
            "(select max(created_at) from m6.items), (select count(*) from m6.items)",
        )
        if row[0] is None and not row[2]:
            raise NotBuiltError(
                "m6.events and m6.items are empty, expected at least one item or event to build from",
                "load data first: m6rec_udf.load(con, events=..., items=...)",
            )
        return row[0] or row[1] or datetime(1970, 1, 1)

    def _watermarks(self) -> tuple[int, int]:
        row = one(
            self.con,
            "select (select coalesce(max(event_seq), 0) from m6.events), "
            "(select coalesce(max(feedback_seq), 0) from m6.feedback)",
        )
        return row[0], row[1]

    def _strategies(self) -> dict[str, int]:
        """Bits of the enabled strategies; every new cand_*.sql file gets the next bit, stored with the version."""
        names = ["blended", *(m.name.removeprefix("cand_") for m in self.found.values() if m.layer == "strategies")]
        rows = self.con.execute("select strategy, bit, is_enabled from m6.strategies").fetchall()
        known = {name for name, _, _ in rows}
        following = max((bit for _, bit, _ in rows), default=-1) + 1
        new = [name for name in names if name not in known]
        self.new_strategies = [(name, bit, self._about(name)) for bit, name in enumerate(new, following)]
        bits = {name: bit for name, bit, is_enabled in rows if is_enabled and name in names}
        bits |= {name: bit for name, bit, _ in self.new_strategies}
        return dict(sorted(bits.items(), key=lambda pair: pair[1]))

    def _about(self, strategy: str) -> str:
        if strategy == "blended":
            return "the union of all candidates in the order of satisfaction"
        return self.found[f"cand_{strategy}"].description

    def _positive_at(self) -> float:
        chosen, best = moment.positive_at(self.con, self.as_of, ask=self.engine.ask)
        self.decide("positive_at", chosen, f"the best behaviour in the data is worth a satisfaction of {best:.2f}")
        return chosen

    def _repeats_allowed(self) -> bool:
        taken, moments = self.log.successes()
        share = 1.0 - taken / max(moments, 1)
        self.decide(
            "repeats_allowed", share > 0.2, f"{share:.1%} of successes repeat an earlier one; above 20 % allows it"
        )
        return share > 0.2

    def _decide_model(self, snapshot: arrays.Snapshot, past: Examples) -> None:
        model = snapshot.model
        assert model is not None
        names = part_names(past.rows.x, model.parts)
        for name, part in model.parts.items():
            y = past.visits.of_what_comes_next.y if name == "session" else past.rows.y[teaches(name, names)]
            kind = "LightGBM, cross_entropy" if part.text else "fixed score around the base rate"
            if name == "stranger":
                kind = "logistic, of trends"
            if name == "unseen":
                kind = "item-item score from text, calibrated"
            why = f"{len(y)} rows, {int((y > 0).sum())} with y > 0, {part.trees} trees"
            if name == "new_domain":
                why += f"; {len(past.hidden.y)} with the domain hidden"
            if isinstance(part, Part) and part.lean:
                why += f", {part.lean:g} of the trends alone"
            self.decide(f"satisfaction_model_{name}", kind, why)
        if model.session is not None:
            why = "of what comes next in a visit, between visits; smallest cross-entropy on the latest window"
            self.decide("session_share", f"{model.session_share:g}", why)

    def _decide_taken_over(self, known: learned.Learned) -> None:
        self.decide("satisfaction_model", "taken over", known.why)
        made = known.items.folded_in
        self.decide("item_models", "taken over", f"{known.why}; {made} items folded in that they could not know")
        self.decide_item_item(known.settings, known.why)
        self.decide_baskets(known.settings, known.why)
