"""Build: features, vectors, candidates' arrays, satisfaction model, calibration, as one new version.

Everything is computed in temp tables and arrays of a cursor; one transaction at the end makes it visible.
A build that is killed leaves the version before it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np

from m6rec_udf import arrays, histories, learned, models, moment, resources, training, tuning
from m6rec_udf.cells import make_cells
from m6rec_udf.embed import content_hash, embed_texts, lists
from m6rec_udf.errors import CheckFailedError, NotBuiltError
from m6rec_udf.fitting import Examples, Rows, checked_settings, join, no_rows, teaches, train
from m6rec_udf.query import one
from m6rec_udf.registry import Context, context_of
from m6rec_udf.satisfaction import part_names

Progress = Callable[[str, int, int], None]
KEPT_VERSIONS = 3
EXTRA_PER_USER = 60


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


class _Clock:
    """Seconds by step, and the progress callback."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.seconds, self._last = progress, {}, time.perf_counter()
        self.steps = 0

    seconds: dict[str, float]

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now
        self.steps += 1
        if self.progress is not None:
            self.progress(step, self.steps, 6 + 2 * training.WINDOWS)


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
        retrain: look back at past moments in any case. Otherwise the satisfaction model and the settings of the build
            in force are taken over where behaviour has grown by less than 5 % since they were learned and nothing they
            were learned from has changed; ``m6.decisions`` says so.
        lightgbm: settings of the trees in place of the usual ones, some of ``fitting.TUNABLE``; default: those of the
            build in force, ``{}`` for the usual ones.
        progress: called with (step, done, total).

    Raises:
        ParameterError: ``lightgbm`` names another setting.
        NotBuiltError: there is neither an item nor an event to build from.
        ModelSqlError, SchemaError: a SQL model of the project is wrong.
    """
    context = context_of(con)
    work = con.cursor()
    try:
        task = _Build(work, context, seed, satisfaction, _Clock(progress))
        task.lightgbm = _lightgbm_in_force(work) if lightgbm is None else checked_settings(lightgbm)
        return task.run(as_of, activate=activate, retrain=retrain)
    finally:
        work.close()


def _lightgbm_in_force(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    sql = (
        "select m.parameters -> '$.lightgbm' from m6.models as m "
        "inner join m6.active as a on m.model_version = a.model_version"
    )
    found: dict[str, Any] = json.loads(one(con, sql)[0] or "{}")
    return found


class _Build:
    lightgbm: dict[str, Any]

    def __init__(
        self, con: duckdb.DuckDBPyConnection, context: Context, seed: int, satisfaction: str | None, clock: _Clock
    ) -> None:
        self.con, self.context, self.seed, self.clock = con, context, seed, clock
        self.satisfaction = satisfaction or self._satisfaction_in_force()
        self.models = models.with_satisfaction(models.collect(context.project), self.satisfaction)
        self.decisions: list[tuple[str, str, str]] = []

    def run(self, as_of: datetime | None, *, activate: bool, retrain: bool = False) -> BuildReport:
        self.con.execute("begin")  # marks, staging and log see the same rows
        self.as_of = as_of or self._latest()
        self.marks = self._watermarks()
        strategies = self._strategies()
        bound = self.bound = moment.parameters(self.con, self.as_of, self._positive_at())
        staging = {name for name, model in self.models.items() if model.layer == "staging"}
        moment.run_models(self.con, self.models, bound, wanted=staging)
        models.check_columns(self.con, self.models[models.IN_FORCE], models.SATISFACTION_COLUMNS)
        self.items = moment.catalogue(self.con)
        self.log = moment.read_log(self.con)
        self.con.execute("commit")
        self.clock("staging")
        texts = [t or "" for t in self.items["texts"]]
        self.text, embedded = embed_texts(self.con, self.context.encoder, texts, progress=self.clock.progress)
        self.cells = make_cells(self.text, seed=self.seed)
        self.clock("embed")
        self.settings = moment.Settings(
            positive_at=bound["positive_at"],
            repeats_allowed=self._repeats_allowed(),
            strategies={name: bit for name, bit in strategies.items() if name != "blended"},
            encoder=self.context.encoder.name,
            satisfaction=self.satisfaction,
            seed=self.seed,
            lightgbm=self.lightgbm,
            regularisation=tuning.usual_regularisation(self.log.users),
        )
        self.settings.in_sql = [m.name.removeprefix("cand_") for m in self._sql_strategies()]
        self.own = moment.own_features(self.models)
        self.is_anew = False  # staging was run at an earlier moment since
        basis = learned.basis(self.con, self.models, self.as_of, self.marks, len(self.log.user))
        known = None if retrain else learned.in_force(self.con, self.settings, basis, self.models)
        past = self._take_over(known) if known else self._past_rows()
        if not known:
            self.settings.learned = basis
        moment.run_models(self.con, self.models, bound, wanted=self._read_in_sql(past=False), keep=self._kept(staging))
        self._check_rows(bound)
        self.clock("features")
        snapshot = moment.read_snapshot(
            self.con, bound, self.items, self.text, self.settings, self.log, own=self.own, with_tables=True
        )
        snapshot.cells = self.cells
        self.clock("item model")
        if known:
            snapshot.model = known.model
        else:
            snapshot.model = train(past, seed=self.seed, lightgbm=self.lightgbm)
            self._decide_model(snapshot, past)
        self.clock("satisfaction")
        extra = self._extra_for_everybody(strategies, snapshot, bound)
        version = self._commit(snapshot, extra, activate=activate)
        self.clock("commit")
        return BuildReport(
            version, self.as_of, self.clock.seconds, self.decisions, embedded, len(set(texts)), past.count
        )

    def _check_rows(self, bound: dict[str, Any]) -> None:
        """Run sql/checks/at_build/chk_*.sql over the tables of the build: any row is a failure.

        Checks of features run where one of them is the project's own; the shipped ones keep their grain.
        """
        features = {name: model for name, model in self.models.items() if model.layer == "features"}
        for path in sorted((resources.sql_root() / "checks" / "at_build").glob("*.sql")):
            check = models.Model(path.stem, "checks", path.read_text(encoding="utf-8"), "shipped")
            read = models.references(check, set(features))
            if read and not read & self.own:
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
        row = one(
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

    def _satisfaction_in_force(self) -> str:
        sql = (
            "select json_extract_string(m.parameters, '$.satisfaction') from m6.models as m "
            "inner join m6.active as a on m.model_version = a.model_version"
        )
        return one(self.con, sql)[0] or "graded"

    def _watermarks(self) -> tuple[int, int]:
        row = one(
            self.con,
            "select (select coalesce(max(event_seq), 0) from m6.events), "
            "(select coalesce(max(feedback_seq), 0) from m6.feedback)",
        )
        return row[0], row[1]

    def _strategies(self) -> dict[str, int]:
        """Bits of the enabled strategies; every new cand_*.sql file gets the next bit, stored with the version."""
        names = ["blended", *(m.name.removeprefix("cand_") for m in self.models.values() if m.layer == "strategies")]
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
        return self.models[f"cand_{strategy}"].description

    def _positive_at(self) -> float:
        chosen, best = moment.positive_at(self.con, self.as_of)
        self._decide("positive_at", chosen, f"the best behaviour in the data is worth a satisfaction of {best:.2f}")
        return chosen

    def _repeats_allowed(self) -> bool:
        log = self.log
        order = log.by_pair[log.is_positive[log.by_pair]]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(log.user[order]) != 0) | (np.diff(log.item[order]) != 0)
        another = new.copy()
        another[1:] |= np.diff(log.happened_at[order]) != 0
        share = 1.0 - float(new.sum()) / max(float(another.sum()), 1.0) if len(order) else 0.0
        self._decide(
            "repeats_allowed", share > 0.2, f"{share:.1%} of successes repeat an earlier one; above 20 % allows it"
        )
        return share > 0.2

    def _decide(self, name: str, value: Any, reason: str) -> None:
        self.decisions.append((name, str(value), reason))

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
            self._decide(f"satisfaction_model_{name}", kind, why)
        if model.session is not None:
            why = "of what comes next in a visit, between visits; smallest cross-entropy on the latest window"
            self._decide("session_share", f"{model.session_share:g}", why)

    # what past moments taught

    def _take_over(self, known: learned.Learned) -> Examples:
        """The settings of the version in force; nothing to learn from."""
        self.settings = known.settings
        self._decide("satisfaction_model", "taken over", known.why)
        self._decide_item_item(known.settings, known.why)
        return Examples(no_rows(), no_rows())

    def _past_rows(self) -> Examples:
        """Training rows of the windows; the latest one is the slice that stops and calibrates."""
        until = moment.seconds(self.as_of)
        out: list[Rows] = []
        visits: list[Rows] = []
        shown: list[Rows] = []
        starts = [datetime.fromtimestamp(cut, UTC).replace(tzinfo=None) for cut in training.cuts(self.log)]
        lasting, read = moment.lasting(self.models), self._read_in_sql(past=True)
        self.is_anew = bool(starts and read)
        windows = list(zip(starts, [self.as_of, *starts], strict=False))
        outcomes = [self._outcomes(*window) for window in windows]
        impressions = self._impressions(windows)
        for at, when in enumerate(starts):
            bound = moment.parameters(self.con, when, self.settings.positive_at)
            moment.run_models(self.con, self.models, bound, wanted=read, keep=lasting)
            log = self.log if "satisfaction_in_force" in lasting else moment.read_log(self.con)
            self.clock("features of past moments")
            snapshot = moment.read_snapshot(
                self.con, bound, self.items, self.text, self.settings, log, own=self.own, with_item_item=at > 0
            )
            snapshot.cells = self.cells
            if at == 0:
                x = moment.interactions(self.con, bound, snapshot.n, log, self.own)
                self._choose_item_item(snapshot, x, until)
            self.clock("item models of past moments")
            extra, seed = self._extra_at(snapshot, bound), self.seed + at
            judges = outcomes[at]
            if impressions and at == 0:  # nobody both teaches and judges
                judges = judges.only(judges.user % 2 == 1)
                impressions[at] = impressions[at].only(impressions[at].user % 2 == 0)
            out.append(training.rows_of_window(snapshot, self.log, judges, seed=seed, extra=extra))
            end, among = moment.seconds(windows[at][1]), np.unique(judges.user)
            visits.append(training.rows_of_visits(snapshot, self.log, end, seed=seed, among=among))
            if impressions:
                shown.append(training.rows_of_impressions(snapshot, self.log, impressions[at], seed=seed, extra=extra))
            self.clock("rows of past moments")
        if impressions and len(out) > 1:
            out[1], visits[1] = join([out[1], *shown]), join([visits[1], *shown])
            self._decide(
                "impression_rows",
                sum(len(rows.y) for rows in shown),
                "what serve showed, and what followed, teaches beside behaviour; weight 1 / propensity",
            )
        kept = [at for at, rows in enumerate(out) if len(rows.y)]
        if len(kept) < 2:
            return Examples(no_rows(), no_rows())
        latest, others = kept[0], kept[1:]
        return Examples(
            join([out[at] for at in others]),
            out[latest],
            join([visits[at] for at in others]),
            visits[latest],
        )

    def _read_in_sql(self, *, past: bool) -> set[str]:
        """Models to run as SQL at a moment: what is the project's own, and what strategies that live in SQL read.

        The other features are computed from the log. Of an earlier moment only what a snapshot reads is wanted.
        """
        features = {name for name, model in self.models.items() if model.layer == "features"}
        wanted = self.own & moment.READ_BY_SNAPSHOTS
        if not past:
            wanted |= {name for name in features if self.models[name].path != "shipped"}
        strategies = self._sql_strategies()
        for model in strategies:
            wanted |= models.references(model, features | {"stg_events"}) & set(self.models)
        if strategies and not self.settings.repeats_allowed:
            wanted.add("feat_user_item")
        if self.is_anew or (past and "satisfaction_in_force" not in moment.lasting(self.models)):
            wanted.add("stg_events")  # that of an earlier moment is left otherwise
        self.in_tables = {model.name for model in models.ordered(self.models, wanted)} if wanted else set()
        return wanted

    def _kept(self, staging: set[str]) -> frozenset[str]:
        """Staging models that still are those of the build's own moment."""
        return frozenset({"stg_items", "stg_users"} if self.is_anew else staging)

    def _choose_item_item(self, snapshot: arrays.Snapshot, x: Any, until: float) -> None:
        """Settle regularisation, neighbours and trend on the latest window; the snapshot follows."""
        chosen, weights, why = tuning.choose_item_item(snapshot, x, self.log, self.settings, until)
        self.settings = chosen
        snapshot.settings |= {"trend_column": chosen.trend_column, "trend_power": chosen.trend_power}
        snapshot.item_item = moment.with_new_items(x, weights, self.text, self.items["words"])
        self._decide_item_item(chosen, why)

    def _decide_item_item(self, chosen: moment.Settings, why: str) -> None:
        self._decide("item_item_regularisation", f"{chosen.regularisation:g}", why)
        self._decide("item_item_neighbours", chosen.neighbours, "weights kept per proposed item; chosen with it")
        self._decide("item_item_tail_weight", f"{chosen.tail_weight:g}", "of items outside the closed form")
        self._decide("item_item_trend", f"{chosen.trend_column} to the power {chosen.trend_power:g}", "chosen with it")

    def _impressions(self, windows: list[tuple[datetime, datetime]]) -> list[training.Impressions]:
        """Impressions of each window; empty where too few were answered to learn from."""
        found = []
        for start, end in windows:
            bound = {"window_start": start, "window_end": end}
            models.run(self.con, self.models["mart_impressions"], bound, temporary=True)
            rows = self.con.execute(
                "select cast(dense_rank() over (order by request_id) - 1 as bigint) as request, user_idx, item_idx, "
                "rank, propensity, epoch(shown_at) as shown_at, satisfaction "
                "from mart_impressions order by request, rank, impression_id"
            ).fetchnumpy()
            whole = (rows[name].astype(np.int64) for name in ("request", "user_idx", "item_idx", "rank"))
            parts = (rows[name].astype(np.float64) for name in ("propensity", "shown_at", "satisfaction"))
            found.append(training.Impressions(*whole, *parts))
        answered = sum(window.answered for window in found)
        if answered >= training.LEAST_ANSWERS:
            return found
        if any(len(window.rank) for window in found):
            self._decide("impression_rows", 0, f"{answered} impressions answered, {training.LEAST_ANSWERS} needed")
        return []

    def _outcomes(self, start: datetime, end: datetime) -> training.Outcomes:
        models.run(self.con, self.models["mart_outcomes"], {"window_start": start, "window_end": end}, temporary=True)
        rows = self.con.execute("from mart_outcomes order by user_idx, item_idx").fetchnumpy()
        return training.Outcomes(
            rows["user_idx"].astype(np.int64),
            rows["item_idx"].astype(np.int64),
            rows["satisfaction"].astype(np.float64),
        )

    # strategies that live in SQL only: the user's own, and social

    def _sql_strategies(self) -> list[models.Model]:
        has_relations = one(self.con, "select 1 from m6.relations limit 1")[0] is not None
        return [
            m
            for m in self.models.values()
            if m.layer == "strategies"
            and m.name.removeprefix("cand_") in self.settings.strategies
            and (m.path != "shipped" or (m.name == "cand_social" and has_relations))
        ]

    def _run_strategies(self, found: list[models.Model], snapshot: arrays.Snapshot, bound: dict[str, Any]) -> None:
        """Materialise strategies for everybody, at the moment of the snapshot and the tables."""
        write_item_tables(self.con, snapshot, "")
        self.con.execute("create or replace temp table candidate_users as select user_idx from stg_users")
        for model in found:
            models.run(self.con, model, bound, temporary=True)
            models.check_columns(self.con, model)

    def _best_of(self, name: str) -> str:
        """SELECT of a strategy's best items per user after the filters that every strategy gets."""
        unseen = "" if self.settings.repeats_allowed else "anti join feat_user_item using (user_idx, item_idx) "
        return (
            f"select user_idx, item_idx from {name} {unseen}where raw_score is not null "
            "qualify row_number() over (partition by user_idx order by round(raw_score, 9) desc, item_idx) "
            f"<= {EXTRA_PER_USER}"
        )

    def _extra_at(self, snapshot: arrays.Snapshot, bound: dict[str, Any]) -> Any:
        found = self._sql_strategies()
        if not found:
            return None
        self._run_strategies(found, snapshot, bound)
        parts = []
        for model in found:
            rows = self.con.execute(self._best_of(model.name)).fetchnumpy()
            user = rows["user_idx"].astype(np.int64)
            bit = self.settings.strategies[model.name.removeprefix("cand_")]
            parts.append((user, rows["item_idx"].astype(np.int64), np.full(len(user), bit)))
        user, item, bits = (np.concatenate(p) for p in zip(*parts, strict=True))

        def of_block(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            keep = np.isin(user, block)
            return np.searchsorted(block, user[keep]), item[keep], bits[keep]

        return of_block

    def _extra_for_everybody(
        self, strategies: dict[str, int], snapshot: arrays.Snapshot, bound: dict[str, Any]
    ) -> list[str]:
        """Temp tables of the SQL-only strategies' best candidates; returns the SELECTs that read them."""
        selects = []
        found = self._sql_strategies()
        if found:
            self._run_strategies(found, snapshot, bound)
        for model in found:
            bit = strategies[model.name.removeprefix("cand_")]
            best = self._best_of(model.name)
            selects.append(
                f"select u.user_id, i.item_id, cast({int(bit)} as utinyint) as bit from ({best}) as c "
                "join stg_users as u using (user_idx) join stg_items as i using (item_idx)"
            )
        return selects

    # the one transaction

    def _commit(self, snapshot: arrays.Snapshot, extra: list[str], *, activate: bool) -> int:
        from m6rec_udf.reweight import ensure_default_policy

        con = self.con
        con.execute("begin")
        try:
            version = int(one(con, "select coalesce(max(model_version), 0) + 1 from m6.models")[0])
            self.settings.learned.setdefault("version", version)
            con.execute(
                "insert into m6.models (model_version, as_of, event_seq, feedback_seq, encoder, seed, parameters) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                [version, self.as_of, *self.marks, self.settings.encoder, self.seed, json.dumps(vars(self.settings))],
            )
            for strategy in self.new_strategies:
                con.execute("insert into m6.strategies values (?, ?, true, ?)", list(strategy))
            arrays.store(con, version, snapshot)
            con.executemany(
                "insert into m6.decisions values (?, ?, ?, ?)", [[version, *decision] for decision in self.decisions]
            )
            self._store_extra(version, extra)
            if activate:
                if (before := self._satisfaction_in_force()) != self.satisfaction:
                    detail = {"from": before, "to": self.satisfaction, "model_version": version}
                    con.execute("insert into m6.audit (action, detail) values "
                        "('use_satisfaction', ?)", [json.dumps(detail)])
                self._publish_tables(snapshot, version)
                ensure_default_policy(con)
                con.execute("update m6.active set model_version = ?", [version])
                for table in ("artefacts", "extra_candidates"):
                    con.execute(f"delete from m6.{table} where model_version <= ?", [version - KEPT_VERSIONS])
            con.execute("commit")
        except BaseException:
            con.execute("rollback")
            raise
        return version

    def _is_stored(self, model: models.Model) -> bool:
        """Features of items and those of the project's own are tables; the others views over the staged behaviour."""
        return model.name in ("feat_item_activity", "feat_item_transitions") or model.path != "shipped"

    def _publish_tables(self, snapshot: arrays.Snapshot, version: int) -> None:
        """What a build leaves for people to read: staging, features, item models, vectors, lineage."""
        con = self.con
        kinds = dict(
            con.execute(
                "select table_name, 'table' from duckdb_tables() "
                "where schema_name = 'm6' and database_name = current_database() "
                "union all select view_name, 'view' from duckdb_views() "
                "where schema_name = 'm6' and database_name = current_database()"
            ).fetchall()
        )
        layers = {n: m for n, m in self.models.items() if m.layer in ("staging", "features") and n not in models.LIVE}
        for model in models.ordered(layers):
            kind = "table" if model.layer == "staging" or self._is_stored(model) else "view"
            if kinds.get(model.name, kind) != kind:
                con.execute(f"drop {kinds[model.name]} m6.{model.name}")
            if kind == "table":
                con.execute(f"create or replace table m6.{model.name} as from temp.{model.name}")
            else:
                models.define(con, model, self.bound, schema="m6", names=set(layers))
            about = model.description.replace("'", "''")
            con.execute(f"comment on {kind} m6.{model.name} is '{about}'")
        con.execute(f"create or replace view m6.behaviour as\n{models.live(self.models)}")
        histories.write(con, self.models, self.log, histories.Marks(*self.marks, self.as_of), version)
        write_item_tables(con, snapshot, "m6.")
        self._write_vectors()
        if kinds.get("item_text_vectors", "view") != "view":
            con.execute("drop table m6.item_text_vectors")
        con.execute(
            "create or replace view m6.item_text_vectors as select i.item_idx, v.vector "
            "from m6.stg_items as i inner join m6.item_vectors as v on i.item_id = v.item_id"
        )
        con.execute("delete from m6.lineage")
        con.executemany(
            "insert into m6.lineage values (?, ?, ?, ?)",
            [
                [model.name, model.layer, reads, model.path]
                for model in self.models.values()
                for reads in sorted(models.references(model, set(self.models))) or [""]
            ],
        )

    def _store_extra(self, version: int, selects: list[str]) -> None:
        """Candidates of the SQL-only strategies, per version: serving reads them by user."""
        if selects:
            self.con.execute(
                "insert into m6.extra_candidates by name select cast(? as bigint) as model_version, * "
                f"from ({' union all '.join(selects)})",
                [version],
            )

    def _write_vectors(self) -> None:
        """Text vectors of the items; those that are there already stay as they are."""
        import pyarrow as pa

        frame = pa.table(
            {
                "item_id": pa.array(self.items["item_ids"], pa.string()),
                "encoder": pa.array([self.settings.encoder] * len(self.text), pa.string()),
                "content_hash": pa.array([content_hash(t or "") for t in self.items["texts"]], pa.string()),
                "vector": lists(self.text),
            }
        )
        keys = "using (item_id, encoder, content_hash)"
        self.con.register("m6_item_vectors", frame)
        self.con.execute(
            "delete from m6.item_vectors where item_id in "
            f"(select v.item_id from m6.item_vectors as v anti join m6_item_vectors as f {keys})"
        )
        self.con.execute(f"insert into m6.item_vectors from m6_item_vectors as f anti join m6.item_vectors as v {keys}")
        self.con.unregister("m6_item_vectors")


def write_item_tables(con: duckdb.DuckDBPyConnection, snapshot: arrays.Snapshot, prefix: str) -> None:
    """What Python learned about items, as the tables the strategies' SQL reads.

    item_neighbours(item_idx, next_item_idx, weight), item_factors(item_idx, factors, fold_in),
    item_trend(item_idx, trend_factor), item_text_vectors(item_idx, vector).
    """
    import pyarrow as pa

    matrix = snapshot.item_item.tocsr()
    index = pa.array(np.arange(snapshot.n, dtype=np.int32))
    tables = {
        "item_neighbours": {
            "item_idx": pa.array(np.repeat(np.arange(snapshot.n, dtype=np.int32), np.diff(matrix.indptr))),
            "next_item_idx": pa.array(matrix.indices.astype(np.int32)),
            "weight": pa.array(matrix.data),
        },
        "item_factors": {
            "item_idx": index,
            "factors": lists(snapshot.factors),
            "fold_in": lists(snapshot.fold_in),
        },
        "item_trend": {"item_idx": index, "trend_factor": pa.array(snapshot.trend_factor)},
        "item_text_vectors": {"item_idx": index, "vector": lists(snapshot.text)},
    }
    for name, columns in tables.items():
        if prefix and name == "item_text_vectors":  # those of m6.item_vectors, numbered
            continue
        con.register("m6_arrays", pa.table(columns))
        kind = "table" if prefix else "temp table"
        con.execute(f"create or replace {kind} {prefix}{name} as select * from m6_arrays")
        con.unregister("m6_arrays")
