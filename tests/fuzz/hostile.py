"""Values that break things, drawn from a seeded generator: text, numbers, times, ids, SQL."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any

TEXTS = [
    "",
    " ",
    "\t\n",
    "u1",
    "u01",
    "i01",
    "i00",
    "é",
    "🛒✨👩‍👩‍👧‍👦",
    "مرحبا بالعالم",
    "\u202eright to left\u202c",
    "a\0b",
    "\0",
    "a\nb",
    "\\",
    '"',
    "'",
    "'; drop table m6.events; --",
    '"; drop table m6.items; --',
    "1 or 1=1",
    "x' union select * from m6.users --",
    "%",
    "_",
    "$1",
    "$user",
    "{}",
    "[1, 2",
    "null",
    "NULL",
    "nan",
    "Infinity",
    "1e999",
    "-1",
    "9" * 40,
    "*",
    "view",
    "purchase",
    "rating",
    "m6.available_items",
    "main.picked",
    "../../etc/passwd",
    "\ufeffbom",
    "\u0301combining",
    "ﷺ",
    "\x7f\x1b[31m",
]
NUMBERS: list[float | None] = [
    None,
    float("nan"),
    float("inf"),
    float("-inf"),
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    5.0,
    1e308,
    -1e308,
    5e-324,
    2.0**53 + 1,
    1e15,
    1e22,
]
INTEGERS = [0, 1, -1, 5, 10, 127, 128, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**53, 2**62, 2**63 - 1, -(2**63)]
TIMES = [
    dt.datetime(1970, 1, 1),
    dt.datetime(1969, 12, 31, 23, 59, 59),
    dt.datetime(1, 1, 1),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2199, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2200, 1, 1),
    dt.datetime(2024, 2, 29, 12),
    dt.datetime(2024, 5, 1),
    dt.datetime(2024, 7, 19),
]
TIME_TEXTS = [
    "2024-05-01",
    "2024-05-01T10:00:00+02:00",
    "2024-02-30",
    "9999-12-31",
    "0001-01-01",
    "infinity",
    "-infinity",
    "epoch",
    "now",
    "today",
    "1714557600",
    "1714557600000",
    "1e999",
    "10:00",
    "yesterday",
]
SQL_NAMES = [
    "m6.available_items",
    "picked",
    "audience",
    "margin",
    "main.picked",
    "empty",
    "odd",
    "nowhere",
    "m6.nowhere",
    "m6.events",
    "m6.users",
    "picked; drop table m6.items",
    'picked"; drop table m6.items; --',
    "(select 'i1' as item_id)",
    "read_csv('/etc/passwd')",
    "/etc/passwd",
    "a.b.c.d",
    "information_schema.tables",
    "duckdb_settings()",
]


def text(rng: random.Random, *, longest: int = 200) -> str:
    """Hostile or random text."""
    if rng.random() < 0.6:
        return rng.choice(TEXTS)
    size = rng.choice([1, 2, 5, 20, longest])
    span = rng.choice([(32, 126), (0x0600, 0x06FF), (0x4E00, 0x9FFF), (0x1F300, 0x1F6FF), (1, 0x2FFF)])
    return "".join(chr(rng.randint(*span)) for _ in range(rng.randint(0, size)))


def number(rng: random.Random) -> float | None:
    """Hostile or random number."""
    return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.uniform(-10, 10) * 10.0 ** rng.randint(-5, 20)


def anything(rng: random.Random) -> Any:
    """A value of any kind that DuckDB can bind."""
    kind = rng.randrange(9)
    if kind == 0:
        return None
    if kind == 1:
        return text(rng)
    if kind == 2:
        return number(rng)
    if kind == 3:
        return rng.choice(INTEGERS)
    if kind == 4:
        return rng.choice([True, False])
    if kind == 5:
        return rng.choice(TIMES)
    if kind == 6:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(8)))
    if kind == 7:
        return [text(rng) for _ in range(rng.randrange(3))]
    return rng.choice([Decimal("1e20"), dt.date(2024, 5, 1), dt.time(1, 2), dt.timedelta(days=1), {"a": 1}])


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with some flipped, cut off, or put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(4)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.choice([1, 10, len(data)])]
        elif kind == 2:
            data[at:at] = rng.choice([b"\xff\xfe", b"\0", b"\xc3\x28", b'"', b"\n", b"{", b"\xed\xa0\x80"])
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
    return bytes(data)
