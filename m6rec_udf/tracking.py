"""Runs of m6.runs and m6.metrics, sent on to the tools teams already watch: one small interface, files on disk.

Weights & Biases writes offline (``wandb sync`` uploads, if you want), TensorBoard event files, MLflow its own folder of
files. Each needs its package; nothing here opens a network connection.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from m6rec_udf.errors import MissingExtraError, UnknownNameError

if TYPE_CHECKING:
    import duckdb


class Tracker(Protocol):
    """Takes one finished run."""

    def log(self, run_id: str, kind: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write a run with its parameters and figures; a name is ``method/slice/metric``."""


class WandbTracker:
    """Weights & Biases, offline: one folder ``wandb/offline-run-...`` per run."""

    def __init__(self, folder: Path) -> None:
        self._wandb, self._folder = _package("wandb", "wandb"), folder

    def log(self, run_id: str, kind: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """See Tracker."""
        settings = self._wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
        is_alone = self._wandb.run is None  # a run of the caller's own goes on
        run = self._wandb.init(
            project="m6rec", id=run_id, name=run_id, job_type=kind, config=dict(parameters), dir=str(self._folder),
            mode="offline", settings=settings, reinit="create_new",
        )  # fmt: skip
        run.log(dict(metrics))
        run.finish()
        if is_alone:
            self._wandb.teardown()  # finish() may answer before its service has written the file


class TensorBoardTracker:
    """TensorBoard event files: one folder per run, named by its id; parameters are a text."""

    def __init__(self, folder: Path) -> None:
        _package("tensorboard", "tensorboard")
        self._folder = folder

    def log(self, run_id: str, kind: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """See Tracker."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        writer = EventFileWriter(str(self._folder / run_id))
        try:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
            writer.add_event(Event(step=0, summary=Summary(value=values)))
            text = json.dumps({"kind": kind, **parameters}, default=str)
            writer.add_event(Event(step=0, summary=text_pb("parameters", text)))
        finally:
            writer.close()


class MlflowTracker:
    """MLflow runs of the experiment m6rec, in a folder ``mlruns`` of files."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        client = _package("mlflow", "mlflow").MlflowClient
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._client = client(tracking_uri=(folder / "mlruns").as_uri())
        found = self._client.get_experiment_by_name("m6rec")
        self._experiment = found.experiment_id if found else self._client.create_experiment("m6rec")

    def log(self, run_id: str, kind: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """See Tracker."""
        run = self._client.create_run(self._experiment, run_name=run_id, tags={"kind": kind, "run_id": run_id})
        for name, value in parameters.items():
            self._client.log_param(run.info.run_id, name, str(value)[:6000])
        for name, value in metrics.items():
            self._client.log_metric(run.info.run_id, name.replace("@", "_at_"), value)
        self._client.set_terminated(run.info.run_id)


TRACKERS: dict[str, type[WandbTracker] | type[TensorBoardTracker] | type[MlflowTracker]] = {
    "wandb": WandbTracker,
    "tensorboard": TensorBoardTracker,
    "mlflow": MlflowTracker,
}


def tracker(tool: str, to: str | Path) -> Tracker:
    """A tracker that writes below a folder.

    Raises:
        UnknownNameError: ``tool`` is none of wandb, tensorboard, mlflow.
        MissingExtraError: its package is not installed.
    """
    if tool not in TRACKERS:
        raise UnknownNameError(
            f"there is no tracker {tool!r}, expected one of {', '.join(TRACKERS)}",
            'm6rec_udf.track(con, "tensorboard")',
        )
    folder = Path(to)
    made = TRACKERS[tool](folder)
    folder.mkdir(parents=True, exist_ok=True)
    return made


def track(
    con: duckdb.DuckDBPyConnection, tool: str, *, to: str | Path = "runs", run_ids: Sequence[str] | None = None
) -> int:
    """Send runs of ``m6.runs`` with their figures to wandb, tensorboard or mlflow, as files below a folder.

    Args:
        run_ids: which; None: all. A run that is sent twice is there twice.

    Returns:
        The number of runs sent.

    Raises:
        UnknownNameError: no such tool or run. MissingExtraError: the package is not installed.
    """
    made = tracker(tool, to)
    rows = con.execute("select run_id, kind, parameters, status from m6.runs order by started_at, run_id").fetchall()
    known = {row[0] for row in rows}
    unknown = sorted(set(run_ids or ()) - known)
    if unknown:
        raise UnknownNameError(f"there is no run {unknown[0]!r}, expected one of m6.runs", "select run_id from m6.runs")
    wanted = known if run_ids is None else set(run_ids)
    for run_id, kind, parameters, status in rows:
        if run_id in wanted:
            figures = con.execute(
                "select method || '/' || slice || '/' || metric, value from m6.metrics "
                "where run_id = ? and value is not null order by 1",
                [run_id],
            ).fetchall()
            made.log(run_id, kind, {**json.loads(parameters or "{}"), "status": status}, dict(figures))
    return len(wanted)


def _package(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"the package {name} is not installed, expected it for tracking", f"pip install 'm6rec[{extra}]'"
        ) from error
