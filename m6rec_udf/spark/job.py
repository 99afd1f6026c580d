"""``m6.spark.build``: Spark frames in, a serving file and a table of recommendations out."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m6rec_udf.arrays import of_version
from m6rec_udf.builder import BuildReport, build_with
from m6rec_udf.connection import connect
from m6rec_udf.errors import NotInstalledError, ParameterError
from m6rec_udf.load import load, raise_scale
from m6rec_udf.publish import private_folder, require_closed, take_place
from m6rec_udf.registry import context_of, release
from m6rec_udf.spark.engine import SparkEngine, isolated
from m6rec_udf.spark.events import frame_of, seen_by, write_events
from m6rec_udf.spark.lists import all_lists
from m6rec_udf.spark.tables import Tables, named, rows_of

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame, SparkSession

    from m6rec_udf.embed import EncoderLike

OF_THE_FILE = ("items", "users", "relations", "event_types", "feedback", "impressions")
SMALL = ("event_types", "items", "users", "relations")
REJECTED_ROWS = 10_000  # that the file keeps; all are counted


@dataclass
class SparkReport:
    """What a build on Spark did.

    Attributes:
        build: what the build says of itself.
        events: behaviours read. rejected: rows that do not fit the contract, by reason.
        share: share of the users that satisfaction model and item-item weights were learned from.
        lists: rows of the table of recommendations; 0 where none was asked for.
        sizes: bytes of what Spark wrote, by table.
    """

    build: BuildReport
    events: int
    rejected: dict[str, int]
    share: float
    lists: int
    sizes: dict[str, int] = field(default_factory=dict)


def build(
    session: SparkSession,
    *,
    events: Any,
    items: Any = None,
    users: Any = None,
    relations: Any = None,
    event_types: Any = None,
    columns: Mapping[str, Mapping[str, str]] | None = None,
    target: str | Path = "m6rec.duckdb",
    recommendations: str | None = "recommendations",
    k: int = 10,
    as_of: datetime | None = None,
    seed: int = 0,
    satisfaction: str | None = None,
    encoder: EncoderLike | None = None,
    project: str | Path | None = None,
    work: str | Path | None = None,
    with_events: bool = True,
    learn_from: int = 20_000_000,
    most_history: int = 10_000,
) -> SparkReport:
    """Build on Spark what ``m6rec_udf.build`` builds in one process, and write the file that serves.

    Staging, features, strategies and marts are the same SQL files, run by Spark. Where there are more than
    ``learn_from`` events, the satisfaction model and the item-item weights are learned from a share of the users, and
    the factors by MLlib's ALS from all of them; ``m6.decisions`` says so.

    Args:
        session: a Spark session of this process (not Spark Connect). The build has temp views and settings of its own.
        events, items, users, relations, event_types: a DataFrame, the name of a table, or a path of Parquet files
            (``delta.`/lake/events``` where the session can read Delta); columns as in ``m6rec_udf.load``.
        columns: per table, contract column by source column.
        target: the serving file. What an earlier one has learned from feedback is kept; it is replaced in one step.
        recommendations: table for the lists of all users (a name), a folder of Parquet files (a path with a slash) or
            None; replaced if it exists.
        k: length of these lists.
        as_of, seed, satisfaction, encoder, project: as in ``m6rec_udf.build`` and ``m6rec_udf.connect``.
        work: folder for what Spark hands over, seen by the driver and by every executor under the same path; default: a
            temporary folder, which serves in local mode only.
        with_events: False leaves the events out of the file: it serves from stored histories, and a further build
            needs Spark.
        learn_from: events that the driver may hold in memory.
        most_history: behaviours of a user that the file keeps for serving, the latest ones.

    Raises:
        MissingExtraError: pyspark, sqlglot or Java is missing.
        SchemaError: columns are missing or of a wrong type.
        ParameterError: the default ``work`` and a cluster.
        LockedError: another process has ``target`` open.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    own = isolated(session)
    own.catalog.setCurrentDatabase(session.catalog.currentDatabase())
    require_workers(session)
    given = {"items": items, "users": users, "relations": relations, "event_types": event_types}
    frames = {name: frame_of(session, data, name) for name, data in given.items() if data is not None}
    behaviour = frame_of(session, events, "events")
    with _folder(session, work) as folder, private_folder(target) as beside:
        tables = Tables(own, folder)
        file = beside / target.name
        if target.exists():
            require_closed(target).close()
            shutil.copy2(target, file)
        con = connect(file, encoder=encoder, project=project)
        try:
            _load_small(con, tables, frames, columns or {})
            tables.take(con, "m6_event_types", "from m6.event_types")
            rejected = write_events(tables, seen_by(own, behaviour, "events"), dict((columns or {}).get("events", {})))
            count = _load_events(con, tables, rejected, with_events=with_events)
            for name in OF_THE_FILE:
                tables.take(con, f"m6_{name}", f"from m6.{name}")
            share = min(1.0, learn_from / max(count, 1))
            engine = SparkEngine(own, tables, share=share, most_history=most_history, has_events=with_events)
            built = build_with(engine, con, as_of=as_of, seed=seed, satisfaction=satisfaction, retrain=True)
            lists = 0
            if recommendations is not None:
                snapshot = of_version(context_of(con), built.model_version)
                lists = _save(session, all_lists(tables, con, snapshot, k=k), recommendations)
            release(con)
            con.execute("checkpoint")
        finally:
            con.close()
        take_place(file, target)
        return SparkReport(built, count, rejected, share, lists, tables.sizes())


def require_workers(session: SparkSession) -> None:
    """Raise NotInstalledError unless the Python of the executors has m6rec and what it needs."""

    def found(batches: Iterator[Any]) -> Iterator[Any]:
        import m6rec_udf.listing  # noqa: F401

        yield from batches

    from pyspark.errors import PySparkException

    try:
        session.range(1).mapInArrow(found, "id bigint").collect()
    except PySparkException as error:
        raise NotInstalledError(
            f"the Python of Spark's workers cannot import m6rec_udf ({_last_line(error)}), expected it there",
            "set PYSPARK_PYTHON to the Python of this environment before the session starts; on a cluster install "
            "m6rec on every node or ship the environment with spark.archives",
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "Error" in line]
    return lines[-1].strip() if lines else str(error).splitlines()[0]


@contextlib.contextmanager
def _folder(session: SparkSession, work: str | Path | None) -> Iterator[Path]:
    """A new folder inside ``work``, gone afterwards."""
    if work is None and not str(session.sparkContext.master).startswith("local"):
        raise ParameterError(
            f"found the cluster {session.sparkContext.master} and no work folder, expected one that driver and "
            "executors see",
            "work='/mnt/shared/m6rec': a mounted bucket, NFS or any path that is the same on every machine",
        )
    path = Path(tempfile.mkdtemp(prefix="m6rec-spark-", dir=None if work is None else str(work)))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _load_small(
    con: duckdb.DuckDBPyConnection,
    tables: Tables,
    frames: dict[str, DataFrame],
    columns: Mapping[str, Mapping[str, str]],
) -> None:
    """Items, users, relations and event types into the file, checked as ever."""
    given: dict[str, Any] = {}
    for name in [name for name in SMALL if name in frames]:
        tables.write(f"given_{name}", seen_by(tables.session, frames[name], name))
        given[name] = str(tables.path(f"given_{name}") / "*.parquet")
    if given:
        load(con, **given, columns={name: own for name, own in columns.items() if name in given})


def _load_events(con: duckdb.DuckDBPyConnection, tables: Tables, rejected: dict[str, int], *, with_events: bool) -> int:
    """The events into the file, or what of them it needs in any case; their number."""
    count, best = rows_of(
        tables.session.sql("select count(*), max(value) filter (where event_type = 'rating') from m6_events")
    )[0]
    con.execute("delete from m6.events")
    con.execute("delete from m6.load_batches where table_name = 'events'")
    con.execute("delete from m6.rejected_rows where table_name = 'events'")
    if with_events and count:
        load(con, events=str(tables.path("m6_events") / "*.parquet"))
    elif best is not None:
        raise_scale(con, best)
    if rejected:
        tables.show(con, "rejected_events")
        con.execute(
            "insert into m6.rejected_rows (batch_id, table_name, row_number, reason, content) "
            "select 'spark', 'events', row_number() over (), reason, cast(to_json(r) as varchar) "
            f"from rejected_events as r limit {REJECTED_ROWS}"
        )
    return int(count)


def _save(session: SparkSession, lists: DataFrame, name: str) -> int:
    with named(session, "recommendations"):
        if "/" in name:
            lists.write.mode("overwrite").parquet(name)
            return int(session.read.parquet(name).count())
        lists.write.mode("overwrite").saveAsTable(name)
        return int(session.table(name).count())
