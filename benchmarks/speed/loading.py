"""Events per second of every kind of input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from report import peak_gb, reset_peak, say, seconds_of

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder

SLOW_ROWS = 1_000_000  # of the kinds that nobody loads much of


def inputs(events: pl.DataFrame, folder: Path) -> Iterator[tuple[str, Any, int]]:
    """(name, input, rows)."""
    with_id = events.with_row_index("event_id").with_columns(pl.col("event_id").cast(pl.String))
    for name, frame in (("Parquet", events), ("Parquet, with event_id", with_id)):
        path = folder / f"{'ids' if frame is with_id else 'events'}.parquet"
        frame.write_parquet(path)
        yield name, str(path), len(frame)
    yield "Polars frame of strings", events, len(events)
    yield "Arrow table", events.to_arrow(), len(events)
    few = events.head(SLOW_ROWS)
    yield "pandas frame", few.to_pandas(), len(few)
    few.write_csv(folder / "events.csv", datetime_format="%Y-%m-%d %H:%M:%S%.6f")
    yield "CSV", str(folder / "events.csv"), len(few)
    few.write_ndjson(folder / "events.json")
    yield "JSON", str(folder / "events.json"), len(few)


def measure(frames: dict[str, pl.DataFrame], folder: Path) -> None:
    """Load each input into a file of its own, items and users first."""
    for name, given, rows in inputs(frames["events"], folder):
        path = folder / "loading.duckdb"
        con = m6.connect(path, encoder=HashEncoder(384))
        m6.load(con, items=frames["items"], users=frames["users"])
        reset_peak()
        took, _ = seconds_of(lambda con=con, given=given: m6.load(con, events=given))
        con.close()
        path.unlink()
        say(f"load, {name}", f"{rows / took:,.0f} /s", f"{rows:,} events, peak {peak_gb():.2f} GB")
