"""Off-line evaluation: a global temporal split, full-catalogue ranking, intervals over users.

Everything up to ``as_of`` may be learned from; a target is an item the user liked later and had not
touched before (with ``repeats`` any item). The tables and metrics are the SQL models in ``sql/evaluation``;
after a run the temporary tables ``eval_lists``, ``eval_targets``, ``eval_users`` and ``eval_user_metrics``
stay on the connection for a look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from m6rec_udf import baselines, registry, resources, runs
from m6rec_udf.baselines import BASELINES, REPEAT_BASELINES, Choice, Recommender, materialise
from m6rec_udf.errors import ParameterError
from m6rec_udf.figures import Row, figures
from m6rec_udf.lists import collect
from m6rec_udf.logs import logged
from m6rec_udf.query import one

_SCRATCH = (
    "eval_events",
    "eval_history",
    "eval_touched",
    "eval_popular",
    "eval_item_scores",
    "eval_item_item_scores",
    "eval_most_bought",
)


@dataclass(frozen=True)
class Split:
    """One fit/score problem, held in the temporary ``eval_*`` tables of the connection."""

    as_of: datetime
    until: datetime
    k: int
    n_users: int
    n_targets: int


@dataclass(frozen=True)
class _Settings:
    """What all splits of one evaluation share."""

    k: int
    positive: float
    max_users: int
    seed: int
    repeats: bool = False


@logged("evaluate")
def evaluate(
    con: duckdb.DuckDBPyConnection,
    *,
    as_of: datetime | None = None,
    test_share: float = 0.1,
    k: int = 10,
    repeats: bool = False,
    methods: Sequence[str] | None = None,
    recommender: Recommender | None = None,
    peers: Mapping[str, Recommender] | None = None,
    positive: float | None = None,
    max_users: int = 20_000,
    seed: int = 0,
) -> duckdb.DuckDBPyRelation:
    """Compare m6rec with baselines on what users liked after a moment; writes ``m6.runs`` and ``m6.metrics``.

    Rows of ``m6.metrics``: per method, slice (``all``, ``warm``: at least 5 events before the split, ``cold``: fewer)
    and metric (``ndcg@10``, ``recall@10``, ...) the mean over users with a 95 % bootstrap interval and the number of
    users; ``coverage@k`` and ``gini@k`` of the catalogue without an interval; method ``m6rec - item_item`` and the
    like hold paired differences, whose interval is that of the same users' differences; ``seconds`` is the time to
    make the lists.

    Args:
        con: a connection with the contract tables.
        as_of: the split (UTC); None leaves ``test_share`` of the events for the test.
        test_share: share of the events after the split; also the length of the slice on which the half-life of
            ``recently_popular`` is chosen, which ends at the split.
        k: length of the lists.
        repeats: next purchases, not discoveries: items already known count as targets and stay in the lists.
        methods: baselines to run; default all of ``BASELINES``, of ``REPEAT_BASELINES`` with ``repeats``.
        recommender: lists of m6rec, ``(con, as_of, users, k) -> user_id, item_id, rank``; None: on a connection
            dressed by ``connect`` or ``install`` a build as of the split (removed again), else baselines only.
        peers: more methods of the same form by name.
        positive: satisfaction y in [0, 1] from which an event is a target; None: 0.75 (four of five stars), or the best
            that the log up to the split can show where that is less, as a build decides (0.1 of a log of views).
        max_users: more test users than that are sampled.
        seed: seed of the bootstrap and of the sample.

    Raises:
        ParameterError: a parameter is out of range, or there is nothing to test on.
        SchemaError: a recommender's table lacks a column or ranks an item twice.
    """
    known = REPEAT_BASELINES if repeats else BASELINES
    methods = known if methods is None else methods
    _check(k=k, test_share=test_share, methods=methods, positive=positive, max_users=max_users, known=known)
    started_at = runs.now()
    materialise(con, "eval_events")
    last = _last_moment(con)
    moment = _naive(as_of) if as_of is not None else _cut(con, last, test_share)
    positive = _positive(con, moment, positive)
    settings = _Settings(k=k, positive=positive, max_users=max_users, seed=seed, repeats=repeats)
    parameters: dict[str, Any] = {"k": k, "test_share": test_share, "positive": positive, "seed": seed}
    parameters["repeats"] = repeats
    choices = {name: _choose(con, name, moment, test_share, settings) for name in methods}
    parameters["chosen"] = {name: choice.of(name) for name, choice in choices.items()}
    split = _split(con, moment, last, settings)
    parameters |= {"as_of": moment.isoformat(), "n_users": split.n_users, "n_targets": split.n_targets}

    recommender = recommender or _own_lists(con, seed, repeats=repeats)
    todo: dict[str, Recommender] = {"m6rec": recommender} if recommender else {}
    todo |= peers or {}
    todo |= {name: baselines.recommender(name, choice) for name, choice in choices.items()}
    seconds = collect(con, split.as_of, split.k, todo)
    rows = figures(con, split.k, seed) + [
        (m, "all", "seconds", s, None, None, split.n_users) for m, s in seconds.items()
    ]
    run_id = runs.write_run(con, "evaluate", started_at, parameters, rows)
    for table in _SCRATCH:
        con.execute(f"drop table if exists temp.{table}")
    return con.sql("from m6.metrics where run_id = $run_id order by metric, slice, method", params={"run_id": run_id})


def _own_lists(con: duckdb.DuckDBPyConnection, seed: int, *, repeats: bool) -> Recommender | None:
    """Build the lists of m6rec itself, where the connection has its functions."""
    if not registry.is_registered(con):
        return None
    from m6rec_udf.backtest import Backtest

    return Backtest(seed=seed, exclude_seen=not repeats)


def validate(
    con: duckdb.DuckDBPyConnection,
    recommenders: Mapping[str, Recommender],
    *,
    as_of: datetime | None = None,
    test_share: float = 0.1,
    k: int = 10,
    positive: float | None = None,
    max_users: int = 20_000,
    seed: int = 0,
    repeats: bool = False,
) -> dict[str, float]:
    """NDCG@k on the slice of time before the split: where settings are chosen, never the test.

    Same parameters as ``evaluate``; the slice is the last ``test_share`` of the events (of all, not of what is left)
    up to ``as_of``. A recommender is called with the beginning of the slice as its ``as_of``.
    """
    _check(k=k, test_share=test_share, methods=(), positive=positive, max_users=max_users)
    materialise(con, "eval_events")
    moment = _naive(as_of) if as_of is not None else _cut(con, _last_moment(con), test_share)
    settings = _Settings(k, _positive(con, moment, positive), max_users, seed, repeats)
    return _validate(con, recommenders, moment, test_share, settings)


def _positive(con: duckdb.DuckDBPyConnection, moment: datetime, given: float | None) -> float:
    """Satisfaction from which an event is a target: as given, or as a build at that moment decides."""
    from m6rec_udf.moment import positive_at

    return positive_at(con, moment)[0] if given is None else given


def default_as_of(con: duckdb.DuckDBPyConnection, *, test_share: float = 0.1) -> datetime:
    """The split ``evaluate`` chooses by itself: the last moment before the newest ``test_share`` of the events."""
    materialise(con, "eval_events")
    return _cut(con, _last_moment(con), test_share)


def validation_as_of(con: duckdb.DuckDBPyConnection, *, test_share: float = 0.1) -> datetime:
    """Where the slice that ``validate`` scores on begins; it ends at ``default_as_of``."""
    return _cut(con, default_as_of(con, test_share=test_share), test_share / (1 - test_share))


def score(
    con: duckdb.DuckDBPyConnection,
    recommenders: Mapping[str, Recommender],
    targets: str,
    *,
    as_of: datetime | None = None,
    hidden: str | None = None,
    k: int = 10,
    seed: int = 0,
) -> list[Row]:
    """Compare recommenders on targets of the caller's own: leave-last-out, new items only.

    Args:
        con: a connection with the contract tables.
        recommenders: methods by name, in the form ``evaluate`` takes.
        targets: name of a table of (user_id, item_id): what the lists should find.
        as_of: what happened later is not in ``eval_history``; None: everything is.
        hidden: name of a table of (user_id, item_id) whose events are left out of the history.
        k: length of the lists.
        seed: seed of the bootstrap.

    Returns:
        Rows of (method, slice, metric, value, low, high, n), as in ``m6.metrics``; nothing is written there.
    """
    _check(k=k, test_share=0.1, methods=(), positive=0.0, max_users=1)
    materialise(con, "eval_events")
    if hidden is not None:
        con.execute(
            "delete from eval_events where (user_id, item_id) in (select (user_id, item_id) from query_table($1))",
            [hidden],
        )
    moment = _naive(as_of) if as_of is not None else _last_moment(con)
    for model in ("eval_history", "eval_touched", "eval_catalogue"):
        materialise(con, model, as_of=moment, repeats=False)
    con.execute("create or replace temp table eval_targets as select user_id, item_id from query_table($1)", [targets])
    materialise(con, "eval_users")
    split = _empty_lists(con, moment, moment, k)
    collect(con, split.as_of, split.k, recommenders)
    return figures(con, k, seed)


# ---------------------------------------------------------------------------------------------- splits
def _check(
    *,
    k: int,
    test_share: float,
    methods: Sequence[str],
    positive: float | None,
    max_users: int,
    known: Sequence[str] = BASELINES,
) -> None:
    """Every mistake in the parameters at once."""
    wrong = []
    if k < 1:
        wrong.append(f"k = {k}, expected at least 1")
    if not 0 < test_share < 0.5:
        wrong.append(f"test_share = {test_share}, expected above 0 and below 0.5")
    if positive is not None and not 0 <= positive <= 1:
        wrong.append(f"positive = {positive}, expected in [0, 1]")
    if max_users < 1:
        wrong.append(f"max_users = {max_users}, expected at least 1")
    unknown = sorted(set(methods) - set(known))
    if unknown:
        wrong.append(f"methods {unknown}, expected some of {list(known)}")
    if wrong:
        raise ParameterError("evaluate: " + "; ".join(wrong), "see help(m6rec_udf.evaluate)")


def _naive(moment: datetime) -> datetime:
    """UTC without a zone, as the tables hold it."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _last_moment(con: duckdb.DuckDBPyConnection) -> datetime:
    last = one(con, "select max(happened_at) from eval_events where is_interest")[0]
    if last is None:
        raise ParameterError(
            "m6.events holds no event of interest, expected some to evaluate on", "load events with m6rec_udf.load"
        )
    assert isinstance(last, datetime)
    return last


def _cut(con: duckdb.DuckDBPyConnection, until: datetime, share: float) -> datetime:
    text = resources.read_sql("evaluation", "eval_cut")
    moment = con.execute(text, {"until": until, "share": share}).fetchall()[0][0]
    if moment is None:
        raise ParameterError(
            f"all events up to {until} happened at one moment, expected events before and after a split",
            "load events over a longer time, or pass as_of",
        )
    assert isinstance(moment, datetime)
    return moment


def _split(con: duckdb.DuckDBPyConnection, as_of: datetime, until: datetime, settings: _Settings) -> Split:
    """Fill the ``eval_*`` tables for one moment."""
    for model in ("eval_history", "eval_touched", "eval_targets", "eval_users", "eval_catalogue"):
        materialise(
            con,
            model,
            as_of=as_of,
            until=until,
            positive=settings.positive,
            max_users=settings.max_users,
            seed=str(settings.seed),
            repeats=settings.repeats,
        )
    split = _empty_lists(con, as_of, until, settings.k)
    if split.n_users == 0:
        raise ParameterError(
            f"nobody liked (y >= {settings.positive}) an item new to them between {as_of} and {until}, "
            "expected at least one such user",
            "choose an earlier as_of or a lower positive, or edit m6.event_types",
        )
    return split


def _empty_lists(con: duckdb.DuckDBPyConnection, as_of: datetime, until: datetime, k: int) -> Split:
    con.execute(
        "create or replace temp table eval_lists (method varchar, user_id varchar, item_id varchar, rank integer)"
    )
    n_users, n_targets = one(con, "select count(*), coalesce(sum(n_targets), 0)::bigint from eval_users")
    return Split(as_of=as_of, until=until, k=k, n_users=n_users, n_targets=n_targets)


def _choose(con: duckdb.DuckDBPyConnection, name: str, as_of: datetime, share: float, settings: _Settings) -> Choice:
    """Settings of a baseline with the best NDCG on the slice before ``as_of``; the first of the grid on ties."""
    span, is_graded = one(
        con,
        "select date_diff('second', min(happened_at), $1) / 86400.0, coalesce(bool_or(y < $2), false) "
        "from eval_events where is_interest and happened_at <= $1",
        [as_of, settings.positive],
    )
    choices = baselines.grid(name, span_days=span or 0.0, levels=(0.0, settings.positive) if is_graded else (0.0,))
    if len(choices) == 1:
        return choices[0]
    cache: dict[float, Any] = {}
    todo = {str(number): baselines.recommender(name, choice, cache) for number, choice in enumerate(choices)}
    try:
        scores = _validate(con, todo, as_of, share, settings)
    except ParameterError:  # nobody to choose on
        return choices[0]
    return choices[int(max(scores, key=lambda number: scores[number]))]


def _validate(
    con: duckdb.DuckDBPyConnection,
    recommenders: Mapping[str, Recommender],
    as_of: datetime,
    share: float,
    settings: _Settings,
) -> dict[str, float]:
    split = _split(con, _cut(con, as_of, share / (1 - share)), as_of, settings)
    collect(con, split.as_of, split.k, recommenders)
    materialise(con, "eval_user_metrics", k=split.k)
    rows = con.execute("select method, round(avg(ndcg), 9) from eval_user_metrics group by method").fetchall()
    return {name: 0.0 for name in recommenders} | {str(name): float(value) for name, value in rows}
