"""The behaviour of a build in memory: read from the staged events, or from the histories that were stored before.

A rebuild reads the histories of the build before and puts behind them what came since: to grade, number and sort the
whole log again takes ten times as long.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np

from m6rec_udf import artefacts, histories, models
from m6rec_udf.errors import CorruptError, NotBuiltError
from m6rec_udf.history import Behaviour
from m6rec_udf.kernels.counting import merge, pair_order, successes_of
from m6rec_udf.models import Model

_KINDS: dict[str, Any] = {
    "user_idx": np.int32,
    "item_idx": np.int32,
    "interest": np.float32,
    "satisfaction": np.float32,
    "happened_at": np.float64,
    "is_positive": np.bool_,
}
_COLUMNS = "user_idx, item_idx, interest, satisfaction, epoch(happened_at) as happened_at, is_positive"
_ORDER = (0, 4, 1, 2, 3)  # user, time, and what it was


@dataclass
class Log:
    """Every behaviour of the build, integer-coded, sorted by user, time and what it was.

    Attributes:
        user, item: int32 ``[e]``.
        interest, satisfaction: float32 ``[e]``.
        happened_at: float64 ``[e]``, seconds since 1970.
        segment: name per user.
        is_positive: bool ``[e]``, a success.
    """

    user: np.ndarray
    item: np.ndarray
    interest: np.ndarray
    satisfaction: np.ndarray
    happened_at: np.ndarray
    segment: np.ndarray
    is_positive: np.ndarray

    @classmethod
    def of(cls, columns: list[np.ndarray], segment: np.ndarray) -> Log:
        """A log of user, item, interest, satisfaction, happened_at, is_positive."""
        user, item, interest, satisfaction, happened_at, is_positive = columns
        return cls(user, item, interest, satisfaction, happened_at, segment, is_positive)

    def only(self, keep: np.ndarray) -> Log:
        """The behaviour of a mask, of the same users."""
        columns = self.user, self.item, self.interest, self.satisfaction, self.happened_at, self.is_positive
        out = Log.of([column[keep] for column in columns], self.segment)
        order = self.by_pair[keep[self.by_pair]]  # sorting anew costs ten times as much
        out.__dict__["by_pair"] = (np.cumsum(keep, dtype=np.int32) - 1)[order]
        return out

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.segment)

    @cached_property
    def by_pair(self) -> np.ndarray:
        """Order by (user, item), time inside, int32 ``[e]``."""
        return np.asarray(pair_order(self.user, self.item))

    def successes(self) -> tuple[int, int]:
        """(pairs of user and item with a success, different moments of success of all pairs)."""
        pairs, moments = successes_of(self.by_pair, self.user, self.item, self.happened_at, self.is_positive)
        return int(pairs), int(moments)

    @cached_property
    def _first(self) -> np.ndarray:
        """Where the behaviour of each user starts, and the end; int64 ``[users + 1]``."""
        return np.searchsorted(self.user, np.arange(self.users + 1, dtype=np.int32))

    def _span(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the behaviour of some users starts and ends; nowhere for -1, an unknown user."""
        known = users >= 0
        at = np.where(known, users, 0)
        start = self._first[at]
        return start, np.where(known, self._first[np.minimum(at + 1, self.users)], start)

    def behaviour(self, users: np.ndarray, until: float, segments: list[str]) -> Behaviour:
        """Behaviour of some users up to a moment, in the order of ``users``."""
        return self.before(users, np.full(len(users), np.nextafter(until, np.inf)), segments)

    def positions(self, users: np.ndarray, moments: Any) -> np.ndarray:
        """Position of each user's first behaviour at or after a moment, int64 ``[users]``; -1 is an unknown user."""
        start, stop = self._span(users)
        moments = np.broadcast_to(moments, len(users))
        found = (a + np.searchsorted(self.happened_at[a:b], m) for a, b, m in zip(start, stop, moments, strict=True))
        return np.fromiter(found, np.int64, len(users))

    def before(self, users: np.ndarray, moments: np.ndarray, segments: list[str]) -> Behaviour:
        """Behaviour of each user before a moment of its own; a user may come more than once, -1 is an unknown one."""
        start, _ = self._span(users)
        length = self.positions(users, moments) - start
        at = np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(length.sum())
        code = {name: at for at, name in enumerate(segments)}
        own = ["*" if user < 0 else self.segment[user] for user in users]
        return Behaviour(
            len(users),
            np.repeat(np.arange(len(users)), length),
            self.item[at],
            self.interest[at],
            self.satisfaction[at],
            self.happened_at[at],
            np.asarray([code.get(s, -1) for s in own], np.int64),
        )


def read_log(con: duckdb.DuckDBPyConnection) -> Log:
    """The temp table stg_events as arrays."""
    return Log.of(_sorted(_fetched(con, f"select {_COLUMNS} from stg_events")), _segments(con))


def appended(con: duckdb.DuckDBPyConnection, found: dict[str, Model], bound: dict[str, Any]) -> Log | None:
    """The log of ``read_log`` from the stored histories and what came since; None where they do not say the same.

    They do where staging and satisfaction function are the shipped ones and nothing that they were made of was edited,
    deleted or added to since, see ``histories.still_valid``. The temp tables stg_users and stg_items are those of the
    moment.
    """
    version = stored_version(con, found, bound)
    if version is None:
        return None
    try:
        before = json.loads(bytes(artefacts.read(con, version, ["item_ids"])["item_ids"]))
        sql = found["stg_events"].sql.replace("from satisfaction_in_force", "from m6.recent_behaviour")
        new = _sorted(_fetched(con, f"select {_COLUMNS} from (\n{sql}\n)", models.used(sql, bound)))
        whole = _merged(con, before, bound["positive_at"], new)
    except (CorruptError, NotBuiltError):
        return None
    return Log.of(whole, _segments(con)) if whole else None


def stored_version(con: duckdb.DuckDBPyConnection, found: dict[str, Model], bound: dict[str, Any]) -> int | None:
    """The version whose stored histories can be appended to; None where all has to be read."""
    if any(found[name].path != "shipped" for name in ("stg_events", "stg_users", "stg_items", *models.LIVE)):
        return None
    return histories.still_valid(con, found, bound["as_of"])


def _fetched(con: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any] | None = None) -> list[np.ndarray]:
    """The columns of a log."""
    rows = con.execute(sql, parameters or {}).fetchnumpy()
    return [np.asarray(rows.pop(name), kind) for name, kind in _KINDS.items()]


def _segments(con: duckdb.DuckDBPyConnection) -> np.ndarray:
    found = con.execute("select segment from stg_users order by user_idx").fetchnumpy()["segment"]
    return np.asarray(found, object)


def _sorted(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Rows by user, time and what it was."""
    if _is_ascending(*(columns[at] for at in _ORDER)):
        return columns
    order = np.lexsort([columns[at] for at in reversed(_ORDER)])
    return [column[order] for column in columns]


def _merged(
    con: duckdb.DuckDBPyConnection, item_ids: list[str], positive_at: float, new: list[np.ndarray]
) -> list[np.ndarray] | None:
    """The stored histories and new rows as columns of a log, in the numbers of stg_users and stg_items.

    ``item_ids``: by the item numbers that the histories hold. None: the histories do not fit.
    """
    table = con.sql(
        "select u.user_idx, h.history from m6.stored_histories as h "
        "left join stg_users as u on h.user_id = u.user_id order by u.user_idx"
    ).to_arrow_table()
    if table["user_idx"].null_count:
        return None
    rows = con.execute("select item_id from stg_items order by item_idx").fetchall()
    now = {item: at for at, (item,) in enumerate(rows)}
    numbers = np.asarray([now.get(item, -1) for item in item_ids], np.int32)
    parts = [histories.unpacked(chunk) for chunk in table["history"].chunks]
    owner = np.asarray(table["user_idx"].to_numpy(), np.int32)
    size = len(new[0]) + sum(len(records) for _, records in parts)
    whole = [np.empty(size, kind) for kind in _KINDS.values()]
    reached, first = np.zeros(2, np.int64), 0
    for length, records in parts:
        words = np.require(records.view(np.int32).reshape(-1, histories.RECORD.itemsize // 4), requirements=["C", "A"])
        own = owner[first : first + len(length)]
        first += len(length)
        if not merge(words, length, own, numbers, np.float32(positive_at), reached, *new, *whole):
            return None
    done, at = reached
    for column, more in zip(whole, new, strict=True):
        column[at:] = more[done:]
    return whole


def _is_ascending(*columns: np.ndarray) -> bool:
    """Whether rows are in the order of the columns, the first one first."""
    tied = np.ones(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        if (tied & (column[1:] < column[:-1])).any():
            return False
        tied &= column[1:] == column[:-1]
    return True
