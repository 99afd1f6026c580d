"""The databases the cases run against, and what counts as a good end of a case."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import hostile
import polars as pl
import shop_world

import m6rec_udf as m6
from m6rec_udf.connection import migrate
from m6rec_udf.errors import M6Error

ANSWERED, REFUSED, ENGINE, UNHANDLED, WRONG = "answered", "clear error", "engine's error", "unhandled", "wrong answer"
_BINDING = (
    duckdb.ConversionException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.OutOfRangeException,
    duckdb.NotImplementedException,
    duckdb.InvalidTypeException,
    duckdb.TypeMismatchException,
    duckdb.ConstraintException,
)
_ENGINE_SAYS = ("not suitable for replacement scans", "Lists larger than", "cannot be negative")


@dataclass
class Counts:
    """What was tried and how it ended.

    Attributes:
        ends: cases per (entrance, end).
        reasons: rejected rows by reason.
        given: rows handed to ``load``.
        failures: unhandled exceptions and wrong answers, in words.
    """

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class WrongAnswerError(AssertionError):
    """A case ended without an error and with an answer that cannot be right."""


def require(condition: bool, words: str) -> None:
    """Raise WrongAnswerError with the words unless the condition holds."""
    if not condition:
        raise WrongAnswerError(words)


def is_clear(error: BaseException) -> bool:
    """Whether an error says what was expected, or what to do."""
    text = str(error)
    if isinstance(error, M6Error):
        return "expected" in text or "Hint:" in text
    if not isinstance(error, duckdb.Error):
        return False
    return "expected" in text and ("Hint:" in text or "Python exception" not in text or "Error: " in text)


def attempt(case: Callable[[], None]) -> tuple[str, str]:
    """Run a case; returns how it ended, and the words of an end that is a failure."""
    try:
        case()
    except WrongAnswerError as error:
        return WRONG, str(error)
    except (M6Error, duckdb.Error) as error:
        if is_clear(error):
            return REFUSED, ""
        if isinstance(error, _BINDING) and "Python exception" not in str(error):
            return ENGINE, str(error)
        if any(words in str(error) for words in _ENGINE_SAYS):
            return ENGINE, str(error)
        return UNHANDLED, f"{type(error).__name__}: {error}"
    except Exception as error:  # what a fuzz test is for
        if "Query interrupted" in str(error):  # Ctrl-C while the database was at work
            raise KeyboardInterrupt from error
        return UNHANDLED, f"{type(error).__module__}.{type(error).__name__}: {error}"
    return ANSWERED, ""


class World:
    """An empty database for loads, and a built shop whose ids, texts and tables are hostile too."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.counts = Counts()
        self.bare = duckdb.connect()
        migrate(self.bare)
        self.path = folder / "hostile.duckdb"
        self.shop = shop_world.fill(self.path, _shop(random.Random(seed)))
        _tables(self.shop)
        self.shop.execute("insert into m6.impressions by name from m6.serve('u01', k := 5, seed := 1, request := 'r1')")
        self.shop.execute("checkpoint")
        self.copied = folder / "copied.duckdb"
        shutil.copy(self.path, self.copied)

    def close(self) -> None:
        """Close every database."""
        self.bare.close()
        self.shop.close()


def _shop(rng: random.Random) -> dict[str, pl.DataFrame]:
    data = shop_world.frames()
    at = shop_world.START
    ids = [text for text in hostile.TEXTS if text.strip()]
    items = pl.DataFrame(
        {
            "item_id": ids,
            "domain": [rng.choice(["movies", "books", "'; --", "🛒"]) for _ in ids],
            "title": [hostile.text(rng) for _ in ids],
            "description": [hostile.text(rng, longest=2000) for _ in ids],
            "category": [hostile.text(rng) for _ in ids],
            "price": [rng.choice([0.0, -1.0, 1e308, None]) for _ in ids],
        }
    )
    events = pl.DataFrame(
        [
            (
                None,
                rng.choice(ids),
                rng.choice(ids),
                rng.choice(["view", "purchase"]),
                None,
                at + dt.timedelta(days=n % 200),
            )
            for n in range(400)
        ],
        schema=shop_world.EVENT_SCHEMA,
        orient="row",
    )
    data["items"] = pl.concat([data["items"], items], how="diagonal_relaxed")
    data["events"] = pl.concat([data["events"], events], how="diagonal_relaxed")
    chain = [*shop_world.USERS[:6], *ids[:6]]
    data["relations"] = pl.DataFrame(
        {"user_id": chain, "other_user_id": [*chain[1:], chain[0]], "weight": [1.0] * len(chain)}
    )  # a circle
    return data


def _tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("create table empty (item_id varchar, user_id varchar, boost double)")
    con.execute("create table odd (item_id varchar, user_id varchar, boost double)")
    con.execute(
        "insert into odd values ('i01', 'u01', 'nan'), ('i01', 'u01', 'inf'), ('i02', null, -5), (null, '', null), "
        "('i03', 'x', 1e308), ('no such item', 'u02', 0), ('', 'u03', '-inf')"
    )


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """A dressed connection to a copy."""
    return shop_world.connect(path)


__all__ = ["ANSWERED", "ENGINE", "REFUSED", "UNHANDLED", "WRONG", "Counts", "World", "attempt", "m6", "require"]
