"""Whether a generated text keeps to its facts: no title, no quotation and no number that was not given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

SHORTEST = 4  # titles of fewer letters are words of any sentence
_QUOTED = re.compile(r'"([^"\n]{2,})"|“([^”\n]{2,})”|«([^»\n]{2,})»|「([^」\n]+)」|《([^》\n]+)》')
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_WORD = re.compile(r"[\w'’]+")


def strays(con: duckdb.DuckDBPyConnection, text: str, titles: Sequence[str], facts: Iterable[str] = ()) -> list[str]:
    """What a text names and was not given; empty where it keeps to its facts.

    Args:
        con: a dressed connection; the titles of ``m6.items`` are looked for in the text.
        text: what was generated.
        titles: titles it may name.
        facts: other texts it was given, whose numbers it may repeat.

    Caught: any title of the catalogue, as it is written there, that is neither given nor part of what is given;
    anything in quotation marks that is not a given title; any number that was not given. Not caught: a title that
    exists nowhere and stands without quotation marks, a false adjective. So generated texts also have to name a given
    title.
    """
    allowed = [title.strip() for title in titles if title and title.strip()]
    plain = [_plain(title) for title in allowed]
    found = [next(filter(None, groups)) for groups in _QUOTED.findall(text)]
    wrong = [f"quoted {name!r}" for name in found if _plain(name) not in plain]
    rest = text
    for title in sorted(allowed, key=len, reverse=True):
        rest = re.sub(re.escape(title), " ", rest, flags=re.IGNORECASE)
    numbers = {number for given in (*allowed, *facts) for number in _NUMBER.findall(given)}
    wrong += [f"number {number}" for number in _NUMBER.findall(rest) if number not in numbers]
    named = con.execute(
        "select distinct title from m6.items where length(trim(title)) >= ? and contains(?, trim(title))",
        [SHORTEST, rest],
    ).fetchall()
    wrong += [f"title {title!r}" for (title,) in sorted(named) if _stands_alone(title.strip(), rest)]
    return wrong


def names_one_of(text: str, titles: Iterable[str]) -> bool:
    """Whether a text names at least one of the titles."""
    return any(title and _plain(title) in _plain(text) for title in titles)


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _stands_alone(title: str, text: str) -> bool:
    """Whether a title is in a text as words of its own, not inside another one."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(title)}(?![A-Za-z0-9])", text) is not None
