"""One user's history as arrays: what the build stored with what came later.

The batch counterpart is m6.user_history; the stored rows are written by ``histories``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.history import Behaviour
    from m6rec_udf.registry import Context

_WHOLE = """
select unnest(history, recursive := true)
from m6.user_history([$user])
"""
_GRADED = """
select cast(item_id as integer) as at, interest, satisfaction
from m6.graded(
    cast($places as varchar[]), cast($types as varchar[]), cast($values as double[]), cast($moments as bigint[])
)
"""
_REACTIONS = """
select m.model_version, r.item_id, r.interest, r.satisfaction, epoch(r.happened_at) as happened_at
from m6.history_marks as m
left join (select * from m6.recent_reactions where user_id = $user) as r on true
"""
VALUES = ("interest", "satisfaction", "happened_at")
MOST_GRADES = 100_000  # kept in memory


@dataclass
class Stored:
    """What a build has stored of one user.

    Attributes:
        snapshot: of the version that stored it, whose item_idx the records name.
        records: ``[e]`` of histories.RECORD.
        grading: what its grades were made with; the same value, the same grades.
    """

    snapshot: Snapshot
    records: np.ndarray
    grading: tuple[Any, ...]


@dataclass
class History:
    """One user's behaviour in any order; ``item`` is -1 for items that the version asked for does not know."""

    item: np.ndarray
    interest: np.ndarray
    satisfaction: np.ndarray
    happened_at: np.ndarray
    unknown: list[str]  # item_ids behind the -1, in their order

    def behaviour(self, snapshot: Snapshot, segment: str, until: float | None) -> Behaviour:
        """The behaviour up to a moment in the order of m6.user_history."""
        from m6rec_udf.history import Behaviour

        limit = np.inf if until is None else until
        keep = np.flatnonzero((self.item >= 0) & (self.happened_at <= limit))
        columns = self.satisfaction[keep], self.interest[keep], self.item[keep], self.happened_at[keep]
        keep = keep[np.lexsort(columns)]
        segments = snapshot.settings["segments"]
        code = segments.index(segment) if segment in segments else -1
        return Behaviour(
            1,
            np.zeros(len(keep), np.int64),
            self.item[keep],
            self.interest[keep],
            self.satisfaction[keep],
            self.happened_at[keep],
            np.asarray([code], np.int64),
            None if until is None else np.asarray([limit]),
        )

    def with_(self, other: History) -> History:
        """Both together."""
        return History(
            np.concatenate([self.item, other.item]),
            np.concatenate([self.interest, other.interest]),
            np.concatenate([self.satisfaction, other.satisfaction]),
            np.concatenate([self.happened_at, other.happened_at]),
            self.unknown + other.unknown,
        )

    def seen(self, snapshot: Snapshot, until: float | None) -> list[str]:
        """item_ids of the behaviour up to a moment."""
        limit = np.inf if until is None else until
        is_known, is_inside = self.item >= 0, self.happened_at <= limit
        known = [snapshot.item_ids[at] for at in np.unique(self.item[is_known & is_inside]).tolist()]
        return known + [i for i, at in zip(self.unknown, is_inside[~is_known].tolist(), strict=True) if at]


def read_afresh(context: Context, snapshot: Snapshot, user: str) -> History:
    """One user's history from m6.user_history, where what the build stored was edited since."""
    return _from_rows(snapshot, *_read(context, _WHOLE, {"user": user}))


def with_what_came_later(
    context: Context,
    snapshot: Snapshot,
    user: str,
    stored: Stored,
    events: list[tuple[Any, ...]],
    *,
    has_feedback: bool,
) -> History:
    """One user's history: what a build has stored, and what came later.

    Args:
        snapshot: of the version that is asked for.
        events: (item_id, event_type, value, microseconds since 1970) of events the build has not read.
        has_feedback: there may be feedback that the build has not read.
    """
    records = stored.records
    if snapshot is stored.snapshot:
        item, unknown = records["item"].astype(np.int64), list[str]()
        interest, satisfaction, when = (records[name].astype(np.float64) for name in VALUES)
        history = History(item, interest, satisfaction, when, unknown)
    else:
        ids = np.asarray(stored.snapshot.item_ids, object)[records["item"]].tolist()
        history = _from_rows(snapshot, ids, *(records[name] for name in VALUES))
    if events:
        history = history.with_(_from_rows(snapshot, *_graded(context, stored.grading, events)))
    if has_feedback:
        reactions = _reactions(context, user, made_by=stored.grading[0])
        if reactions is None:
            return read_afresh(context, snapshot, user)
        history = history.with_(_from_rows(snapshot, *reactions))
    return history


def _reactions(context: Context, user: str, *, made_by: int) -> tuple[Any, ...] | None:
    """(item_ids, interest, satisfaction, seconds) of feedback the build has not read.

    None: another build has been committed since the query began; what is unread has another meaning there.
    """
    con = context.open()
    try:
        rows = con.execute(_REACTIONS, {"user": user}).fetchall()
    finally:
        con.close()
    if [version for version, *_ in rows[:1]] != [made_by]:
        return None
    found = [row for _, *row in rows if row[0] is not None]
    return tuple(map(list, zip(*found, strict=True))) if found else ([], [], [], [])


def _graded(context: Context, grading: tuple[Any, ...], events: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """(item_ids, interest, satisfaction, seconds) of events; those that no event type knows are left out.

    Where histories are stored, a grade depends on the event's type and value alone (see ``histories``): m6.graded says
    it once for each pair of them.
    """
    known = context.grades.get(grading)
    if known is None or len(known) > MOST_GRADES:
        context.grades.clear()
        known = context.grades.setdefault(grading, {})
    new = list({(kind, value) for _, kind, value, _ in events if (kind, value) not in known})
    if new:
        con = context.open()
        try:
            given = {"places": [str(at) for at in range(len(new))], "moments": [0] * len(new)}
            given |= {"types": [kind for kind, _ in new], "values": [value for _, value in new]}
            found = {at: grade for at, *grade in con.execute(_GRADED, given).fetchall()}
        finally:
            con.close()
        known.update((pair, found.get(at)) for at, pair in enumerate(new))
    rows = [(item, known[kind, value], moment / 1e6) for item, kind, value, moment in events]
    rows = [(item, *grade, when) for item, grade, when in rows if grade is not None and item is not None]
    return tuple(map(list, zip(*rows, strict=True))) if rows else ([], [], [], [])


def _read(context: Context, query: str, given: dict[str, Any]) -> tuple[Any, ...]:
    """(item_ids, interest, satisfaction, seconds) by a connection of its own, which sees what is committed."""
    con = context.open()
    try:
        rows = con.execute(query, given).fetchnumpy()
    finally:
        con.close()
    return rows["item_id"].tolist(), rows["interest"], rows["satisfaction"], rows["happened_at"]


def _from_rows(snapshot: Snapshot, ids: list[str], interest: Any, satisfaction: Any, when: Any) -> History:
    item = np.fromiter((snapshot.index.get(i, -1) for i in ids), np.int64, len(ids))
    unknown = [i for i, at in zip(ids, item.tolist(), strict=True) if at < 0]
    interest, satisfaction = (np.asarray(c, np.float32).astype(np.float64) for c in (interest, satisfaction))
    return History(item, interest, satisfaction, np.asarray(when, np.float64), unknown)
