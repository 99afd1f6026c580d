"""Tables of hostile columns, in every form that ``load`` takes."""

from __future__ import annotations

import csv
import datetime as dt
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import hostile
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = {
    "event_types": ["event_type", "interest", "satisfaction", "value_low", "value_high", "unit", "description"],
    "items": [
        "item_id",
        "domain",
        "title",
        "description",
        "text",
        "category",
        "brand",
        "tags",
        "price",
        "image_path",
        "created_at",
        "is_available",
        "attributes",
        "colour",
        'size, "extra"',
    ],
    "users": ["user_id", "segment", "profile", "attributes", "age"],
    "relations": ["user_id", "other_user_id", "kind", "weight"],
    "events": ["event_id", "user_id", "item_id", "event_type", "value", "happened_at", "ts", "timestamp", "junk"],
    "feedback": [
        "feedback_id",
        "impression_id",
        "request_id",
        "user_id",
        "item_id",
        "event_type",
        "value",
        "happened_at",
        "ingested_at",
    ],
}
REQUIRED = {
    "event_types": ["event_type", "interest", "satisfaction"],
    "items": ["item_id"],
    "users": ["user_id"],
    "relations": ["user_id", "other_user_id"],
    "events": ["user_id", "item_id", "happened_at"],
    "feedback": ["event_type", "happened_at", "user_id", "item_id"],
}
WIDE = ["view", "purchase", "rating", "click"]
FORMS = ["polars", "lazy", "arrow", "reader", "pandas", "relation", "parquet", "csv", "json", "ndjson"]


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def column(rng: random.Random, name: str, rows: int) -> pa.Array:
    """A column of one Arrow type, mostly of a type that suits the name."""
    suits = rng.random() < 0.93
    if name in ("happened_at", "ts", "timestamp", "created_at", "ingested_at") and suits:
        kind = rng.choice(["time", "time", "time_text", "int", "date", "time_tz", "float"])
    elif name in ("value", "price", "weight", "interest", "satisfaction", "value_low", "value_high", *WIDE) and suits:
        kind = rng.choice(["float", "int", "text_number", "decimal", "small"])
    elif name == "event_type" and suits:
        kind = "type"
    elif name == "tags" and suits:
        kind = rng.choice(["list", "text"])
    elif suits:
        kind = rng.choice(["text", "ids", "ids", "int", "dictionary"])
    else:
        kind = rng.choice(
            [
                "text",
                "text",
                "text",
                "int",
                "float",
                "bool",
                "list",
                "struct",
                "binary",
                "date",
                "time_of_day",
                "null",
                "decimal",
                "dictionary",
                "duration",
                "time_tz",
                "ids",
                "bad_utf8",
            ]
        )
    return _COLUMNS[kind](rng, rows)


def _maybe(rng: random.Random, value: Any) -> Any:
    return None if rng.random() < 0.1 else value


def _texts(rng: random.Random, rows: int, pool: list[str] | None = None) -> pa.Array:
    return pa.array(
        [_maybe(rng, _utf8(rng.choice(pool) if pool else hostile.text(rng))) for _ in range(rows)], pa.string()
    )


def _floats(rng: random.Random, rows: int) -> pa.Array:
    return pa.array([hostile.number(rng) for _ in range(rows)], pa.float64())


def _ints(rng: random.Random, rows: int) -> pa.Array:
    kind = rng.choice([pa.int64(), pa.int8(), pa.uint64(), pa.int32()])
    low, high = {"int64": (-(2**63), 2**63 - 1), "int8": (-128, 127), "uint64": (0, 2**64 - 1)}.get(
        str(kind), (-(2**31), 2**31 - 1)
    )
    pool = [n for n in hostile.INTEGERS if low <= n <= high] + ([1714557600] if high > 2**31 else [])
    return pa.array([_maybe(rng, rng.choice(pool)) for _ in range(rows)], kind)


def _times(rng: random.Random, rows: int, zone: str | None = None) -> pa.Array:
    unit = rng.choice(["s", "ms", "us"])
    return pa.array([_maybe(rng, rng.choice(hostile.TIMES)) for _ in range(rows)], pa.timestamp(unit, zone))


def _bad_utf8(rng: random.Random, rows: int) -> pa.Array:
    parts = [rng.choice([b"\xff\xfe", b"u1", b"\xc3\x28", b"\xed\xa0\x80", b""]) for _ in range(rows)]
    binary = pa.array(parts, pa.binary())
    return pa.StringArray.from_buffers(rows, binary.buffers()[1], binary.buffers()[2])


_COLUMNS: dict[str, Any] = {
    "text": _texts,
    "ids": lambda rng, rows: _texts(rng, rows, ["u01", "u02", "i01", "i02", "e1", "e2", "1"]),
    "type": lambda rng, rows: _texts(rng, rows, ["view", "purchase", "rating", "nope", "", "VIEW", "click"]),
    "text_number": lambda rng, rows: _texts(rng, rows, ["1", "-1", "nan", "inf", "", "1e400", "x", "5"]),
    "time_text": lambda rng, rows: _texts(rng, rows, hostile.TIME_TEXTS),
    "float": _floats,
    "small": lambda rng, rows: pa.array([rng.choice([0.0, 0.25, 1.0, 5.0]) for _ in range(rows)], pa.float32()),
    "int": _ints,
    "bool": lambda rng, rows: pa.array([_maybe(rng, rng.random() < 0.5) for _ in range(rows)], pa.bool_()),
    "time": _times,
    "time_tz": lambda rng, rows: _times(rng, rows, "Europe/Madrid"),
    "date": lambda rng, rows: pa.array([_maybe(rng, rng.choice(hostile.TIMES).date()) for _ in range(rows)]),
    "time_of_day": lambda rng, rows: pa.array([dt.time(1, 2)] * rows, pa.time64("us")),
    "duration": lambda rng, rows: pa.array([dt.timedelta(days=1)] * rows, pa.duration("us")),
    "decimal": lambda rng, rows: pa.array(
        [_maybe(rng, Decimal(rng.choice(["1.50", "0", "-3", "99999999999999999.99"]))) for _ in range(rows)],
        pa.decimal128(38, 2),
    ),
    "list": lambda rng, rows: pa.array(
        [_maybe(rng, [_maybe(rng, _utf8(hostile.text(rng))) for _ in range(rng.randrange(4))]) for _ in range(rows)],
        pa.list_(pa.string()),
    ),
    "struct": lambda rng, rows: pa.array(
        [_maybe(rng, {"a": _utf8(hostile.text(rng)), "b": hostile.number(rng)}) for _ in range(rows)],
        pa.struct([("a", pa.string()), ("b", pa.float64())]),
    ),
    "binary": lambda rng, rows: pa.array(
        [_maybe(rng, rng.randbytes(rng.randrange(6))) for _ in range(rows)], pa.binary()
    ),
    "null": lambda rng, rows: pa.nulls(rows),
    "dictionary": lambda rng, rows: _texts(rng, rows, ["u01", "i01", ""]).dictionary_encode(),
    "bad_utf8": _bad_utf8,
}


def table(rng: random.Random, name: str) -> pa.Table:
    """A table for one contract table: what it needs (mostly), some of the rest, in any order."""
    rows = rng.choice([0, 1, 2, 3, 8, 8, 20])
    names = [n for n in REQUIRED[name] if rng.random() < 0.95]
    names += [n for n in COLUMNS[name] if n not in names and rng.random() < 0.3]
    if name == "events" and rng.random() < 0.1:
        names += [n for n in WIDE if rng.random() < 0.6]
    rng.shuffle(names)
    if not names:
        names = ["nothing"]
    return pa.table({n: column(rng, n, rows) for n in dict.fromkeys(names)})


def _pandas(rng: random.Random, frame: pa.Table) -> Any:
    import pandas as pd

    found = {}
    for name in frame.column_names:
        values = frame[name].to_pylist()
        if rng.random() < 0.2:  # mixed types in one column
            values = [rng.choice([v, 1, "x", 2.5, None, "\ud800"]) for v in values]
        found[name] = pd.Series(values, dtype=object)
    return pd.DataFrame(found)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def can_be(form: str, frame: pa.Table) -> bool:
    """Whether the rows can be written in a form: text that is not UTF-8 exists in Arrow alone."""
    try:
        frame.validate(full=True)
        frame.to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError, OverflowError):
        return form in ("arrow", "reader", "polars")
    return True


def in_form(rng: random.Random, form: str, frame: pa.Table, folder: Path, con: duckdb.DuckDBPyConnection) -> Any:
    """The table as something ``load`` takes; files are written into the folder, some of them damaged."""
    if form == "arrow":
        return frame
    if form == "reader":
        return pa.RecordBatchReader.from_batches(frame.schema, frame.to_batches(max_chunksize=3))
    if form == "polars":
        return pl.from_arrow(frame)
    if form == "lazy":
        return pl.from_arrow(frame).lazy()
    if form == "pandas":
        return _pandas(rng, frame)
    if form == "relation":
        return con.from_arrow(frame)
    path = folder / f"t.{form}"
    if form == "parquet":
        pq.write_table(frame, path)
    elif form == "csv":
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(frame.column_names)
            writer.writerows([_plain(v) for v in row.values()] for row in frame.to_pylist())
    else:
        rows = [_plain(row) for row in frame.to_pylist()]
        path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    if rng.random() < 0.15:
        path.write_bytes(hostile.damaged(rng, path.read_bytes()))
        return [str(path)]  # a list marks the file as damaged: how many rows it holds is anybody's guess
    return str(path)
