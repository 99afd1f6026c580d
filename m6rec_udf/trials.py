"""Search for settings on the validation slice: encoder, strategies and trees; every trial is a row of m6.runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf import runs
from m6rec_udf.backtest import remove_version
from m6rec_udf.builder import build
from m6rec_udf.copies import private_copy
from m6rec_udf.embed import as_encoder
from m6rec_udf.errors import M6Error, MissingExtraError, ParameterError
from m6rec_udf.evaluate import default_as_of, validate
from m6rec_udf.figures import Row, figures
from m6rec_udf.fitting import checked_settings
from m6rec_udf.publish import require_built
from m6rec_udf.registry import context_of
from m6rec_udf.tracking import track as send
from m6rec_udf.tracking import tracker

OWN = ("encoder", "strategies")
Space = Mapping[str, Sequence[Any]]


def tune(
    con: duckdb.DuckDBPyConnection,
    space: Space,
    *,
    method: str = "grid",
    trials: int = 20,
    as_of: datetime | None = None,
    test_share: float = 0.1,
    k: int = 10,
    seed: int = 0,
    track: Sequence[str] = (),
    to: str | Path = "runs",
) -> duckdb.DuckDBPyRelation:
    """Try settings on the validation slice, the last ``test_share`` of the events before the test; never the test.

    Each trial builds as of the beginning of the slice in a private copy of the database and scores ``ndcg@k`` of its
    lists on it. A trial is a row of ``m6.runs`` (kind ``tune``, its settings in ``parameters``) with its figures in
    ``m6.metrics``; one that fails is there with status ``failed`` and its error. Nothing is adopted.

    Args:
        con: a dressed connection with a build.
        space: values to try by name: ``encoder`` (as for ``connect``), ``strategies`` (lists of names to enable;
            ``blended`` always is), and settings of ``fitting.TUNABLE``. With ``bayes`` a tuple (low, high) of two
            numbers is a range; any list is a choice.
        method: ``grid`` (every combination) or ``bayes`` (Optuna's tree-structured Parzen estimator, extra ``tune``).
        trials: of ``bayes``.
        as_of: end of the slice (UTC); None: where ``evaluate`` would split.
        seed: seed of the builds and of the search.
        track: tools of ``track`` that get the trials too, below the folder ``to``.

    Returns:
        One row per trial, the best first: run_id, status, ndcg, seconds, parameters.

    Raises:
        NotBuiltError: there is no build. ParameterError: the space or the method makes no sense.
        MissingExtraError: Optuna, or a tool of ``track``, is not installed.
    """
    require_built(con)
    _check(con, space, method, trials)
    for tool in track:
        tracker(tool, to)
    with private_copy(con) as copy:
        until = as_of or default_as_of(copy, test_share=test_share)

        def attempt(settings: dict[str, Any]) -> tuple[str, float | None]:
            return _attempt(con, copy, settings, until, test_share, k, seed)

        search = _grid(space, attempt) if method == "grid" else _bayes(space, attempt, trials, seed)
        run_ids = list(search)
    for tool in track:
        send(con, tool, to=to, run_ids=run_ids)
    return con.sql(
        "select r.run_id, r.status, max(m.value) filter (where m.metric = $metric) as ndcg, "
        "max(m.value) filter (where m.metric = 'seconds') as seconds, r.parameters "
        "from m6.runs as r left join m6.metrics as m on r.run_id = m.run_id and m.slice = 'all' "
        "where list_contains($run_ids, r.run_id) group by r.run_id, r.status, r.parameters, r.started_at "
        "order by ndcg desc nulls last, r.started_at, r.run_id",
        params={"run_ids": run_ids, "metric": f"ndcg@{k}"},
    )


def _check(con: duckdb.DuckDBPyConnection, space: Space, method: str, trials: int) -> None:
    if method not in ("grid", "bayes"):
        raise ParameterError(f"method is {method!r}, expected grid or bayes", "tune(con, space, method='grid')")
    if trials < 1:
        raise ParameterError(f"trials = {trials}, expected at least 1", "trials=20")
    if not space or any(isinstance(values, str) or not len(values) for values in space.values()):
        raise ParameterError(
            f"space is {dict(space)!r}, expected some values to try by name", "{'num_leaves': [7, 15]}"
        )
    checked_settings({name: None for name in space if name not in OWN})
    known = {row[0] for row in con.execute("select strategy from m6.strategies").fetchall()}
    for chosen in space.get("strategies", ()):
        if unknown := sorted(set(chosen) - known):
            raise ParameterError(
                f"strategies names {', '.join(unknown)}, expected some of {', '.join(sorted(known))}",
                "a list of lists: [['popular', 'item_item'], ['popular']]",
            )


def _grid(space: Space, attempt: Callable[[dict[str, Any]], tuple[str, float | None]]) -> Iterator[str]:
    for values in itertools.product(*space.values()):
        yield attempt(dict(zip(space, values, strict=True)))[0]


def _bayes(
    space: Space, attempt: Callable[[dict[str, Any]], tuple[str, float | None]], trials: int, seed: int
) -> list[str]:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(
            "the package optuna is not installed, expected it for method='bayes'",
            "pip install 'm6rec[tune]', or method='grid'",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    run_ids = []
    for _ in range(trials):
        trial = study.ask()
        run_id, value = attempt({name: _suggest(trial, name, values) for name, values in space.items()})
        run_ids.append(run_id)
        study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
    return run_ids


def _suggest(trial: Any, name: str, values: Sequence[Any]) -> Any:
    is_range = isinstance(values, tuple) and len(values) == 2 and all(type(v) in (int, float) for v in values)
    if not is_range:
        return values[trial.suggest_categorical(name, list(range(len(values))))]
    low, high = values
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high)
    return trial.suggest_float(name, low, high, log=low > 0 and high / low >= 10)


def _attempt(
    con: duckdb.DuckDBPyConnection,
    copy: duckdb.DuckDBPyConnection,
    settings: dict[str, Any],
    until: datetime,
    test_share: float,
    k: int,
    seed: int,
) -> tuple[str, float | None]:
    """One trial, recorded in ``con``: (run_id, NDCG, None where it failed)."""
    import lightgbm

    started_at = runs.now()
    trees = {name: value for name, value in settings.items() if name not in OWN}
    context = context_of(copy)
    encoder = context.encoder
    parameters: dict[str, Any] = {**settings, "k": k, "seed": seed, "until": until.isoformat()}
    rows: list[Row] = []
    value = None
    try:
        if "encoder" in settings:
            context.encoder = as_encoder(settings["encoder"])
            parameters["encoder"] = context.encoder.name
        enabled = list(settings.get("strategies", ()))
        copy.execute(
            "update m6.strategies set is_enabled = strategy = 'blended' or not $is_chosen "
            "or list_contains(cast($enabled as varchar []), strategy)",
            {"is_chosen": "strategies" in settings, "enabled": enabled},
        )
        scored = validate(copy, {"m6rec": _lists(trees, seed)}, as_of=until, test_share=test_share, k=k, seed=seed)
        value = scored["m6rec"]
        rows = figures(copy, k, seed)
    except (M6Error, lightgbm.basic.LightGBMError) as error:
        parameters["error"] = str(error)
    finally:
        context.encoder = encoder
    rows.append(("m6rec", "all", "seconds", (runs.now() - started_at).total_seconds(), None, None, 0))
    known = json.loads(json.dumps(parameters, default=str))
    status = "failed" if value is None else "done"
    return runs.write_run(con, "tune", started_at, known, rows, status=status), value


def _lists(trees: dict[str, Any], seed: int) -> Any:
    """A recommender that builds with settings of the trees as of the moment it is asked about."""

    def lists(con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        version = build(con, as_of=as_of, seed=seed, activate=False, retrain=True, lightgbm=trees).model_version
        try:
            return con.sql(
                "select user_id, item_id, rank from m6.slates("
                "$users, k := $k, exclude_seen := true, until := $until, version := $version)",
                params={
                    "users": [str(u) for u in users["user_id"].to_pylist()],
                    "k": k,
                    "until": as_of,
                    "version": version,
                },
            ).to_arrow_table()
        finally:
            remove_version(con, version)

    return lists
