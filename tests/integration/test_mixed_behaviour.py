"""Views, purchases and ratings of the same users: both forms of load, and what each kind of behaviour does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import duckdb
import polars as pl
import pytest

import m6rec_udf as m6

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mixed" / "run.py"


@pytest.fixture(scope="module")
def mixed() -> ModuleType:
    """benchmarks/mixed/run.py, whose generated data the tests share."""
    spec = importlib.util.spec_from_file_location("mixed_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def frames(mixed: ModuleType) -> dict[str, pl.DataFrame]:
    """Events and items of 80 users and 96 items; one user with views alone."""
    made: dict[str, pl.DataFrame] = mixed.make(80, 96, seed=1)
    last = made["events"]["happened_at"].max()
    looks = pl.DataFrame(
        {
            "user_id": ["looker"] * 6,
            "item_id": [f"i{n:04d}" for n in range(3, 3 + 6 * mixed.TASTES, mixed.TASTES)],
            "event_type": ["view"] * 6,
            "value": [1.0] * 6,
            "happened_at": [last - timedelta(hours=n + 1) for n in range(6)],  # type: ignore[operator]
        },
        schema=made["events"].schema,
    )
    return {**made, "events": pl.concat([made["events"], looks])}


@pytest.fixture(scope="module")
def built(mixed: ModuleType, frames: dict[str, pl.DataFrame]) -> Callable[[pl.DataFrame], duckdb.DuckDBPyConnection]:
    """A built database in memory from a frame of events."""

    def of_events(events: pl.DataFrame) -> duckdb.DuckDBPyConnection:
        con: duckdb.DuckDBPyConnection = mixed.filled({**frames, "events": events})
        m6.build(con)
        return con

    return of_events


@pytest.fixture(scope="module")
def everything(
    built: Callable[[pl.DataFrame], duckdb.DuckDBPyConnection], frames: dict[str, pl.DataFrame]
) -> duckdb.DuckDBPyConnection:
    """The build that knows all behaviour, loaded in the long form."""
    return built(frames["events"])


LISTS = "select user_id, item_id, rank, satisfaction, strategy from m6.recommend_many('m6.known_users')"


def test_wide_and_long_forms_give_the_same_build(
    mixed: ModuleType,
    frames: dict[str, pl.DataFrame],
    built: Callable[[pl.DataFrame], duckdb.DuckDBPyConnection],
    everything: duckdb.DuckDBPyConnection,
) -> None:
    """One row per (user, item, moment) with a column per event type is the same data as one row per event."""
    wide_frame = mixed.widen(frames["events"])
    assert set(wide_frame.columns) == {"user_id", "item_id", "happened_at", *mixed.TYPES}
    assert wide_frame.height < frames["events"].height
    wide = built(wide_frame)
    arrays = "select name, content_hash from m6.artefacts order by name"
    assert wide.execute(arrays).fetchall() == everything.execute(arrays).fetchall()
    assert wide.execute(LISTS).fetchall() == everything.execute(LISTS).fetchall()


def test_views_change_recommendations(
    mixed: ModuleType,
    frames: dict[str, pl.DataFrame],
    built: Callable[[pl.DataFrame], duckdb.DuckDBPyConnection],
    everything: duckdb.DuckDBPyConnection,
) -> None:
    """A user who only looked gets what they looked for; without the views, what everybody gets."""
    blind = built(frames["events"].filter(pl.col("event_type") != "view"))

    def share(con: duckdb.DuckDBPyConnection) -> float:
        rows = con.execute("select item_id from m6.recommend('looker', exclude_seen := true)").fetchall()
        return sum(int(item[1:]) % mixed.TASTES == 3 for (item,) in rows) / len(rows)

    assert share(everything) >= 0.4
    assert share(blind) < 0.3
    ours, theirs = (dict(con.execute(PER_USER).fetchall()) for con in (everything, blind))
    changed = sum(ours[user] != theirs[user] for user in theirs)
    assert changed > 0.9 * len(theirs)


PER_USER = "select user_id, list(item_id order by rank) from m6.recommend_many('m6.known_users') group by user_id"


def test_one_more_view_changes_the_next_query(everything: duckdb.DuckDBPyConnection) -> None:
    """A view that is newer than the build is in the history and out of the list at once."""
    query = "select item_id from m6.recommend('looker', exclude_seen := true)"
    first = everything.execute(query).fetchall()
    everything.execute("begin")
    everything.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select 'looker', ?, 'view', as_of + interval 1 hour from m6.active_version",
        [first[0][0]],
    )
    second = everything.execute(query).fetchall()
    everything.execute("rollback")
    assert first[0] not in second
    assert len(second) == len(first)
