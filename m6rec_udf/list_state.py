"""What one list depends on beside the arrays of the build, as the query's transaction sees it.

``m6.one_list`` hands over rows (kind, a, b, x, n, packed) of one union. What is the same for every list comes out of
``m6.list_state``, a table that triggers keep in step with the versions in force, the strategies and their weights, the
event types and the marks of the stored histories; its JSON is read once and remembered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from m6rec_udf.registry import Context

STATE = "STRUCT(kind INTEGER, a VARCHAR, b VARCHAR, x DOUBLE, n BIGINT, packed BLOB)[]"
KEPT, SEGMENT, BLOCKED, AMONG, BOOST, EDITED, EVENT, STORED, UNREAD = range(9)
_WEIGHTS = "select domain, segment, strategy, weight from m6.strategy_weights where policy_version = ?"
_EXTRA = "select item_id, bit from m6.extra_candidates where model_version = ? and user_id = ?"

Weights = Mapping[tuple[str, str], Mapping[str, float]]  # by (segment, domain), then by strategy


@dataclass(frozen=True)
class Kept:
    """The content of ``m6.list_state``.

    Attributes:
        model, policy: versions in force; None where nothing is built, no weights were set.
        weights: of the policy in force.
        strategies: (name, bit, is_enabled), by bit.
        histories_of: the build whose item numbers the stored histories hold.
        grading: hash of the event types they were graded by; None where they are not to be read, since there are none
            or the event types were edited since.
        with_extra: builds that stored proposals of strategies in SQL only.
    """

    model: int | None
    policy: int | None
    weights: Weights
    strategies: tuple[tuple[str, int, bool], ...]
    histories_of: int | None
    grading: str | None
    with_extra: frozenset[int]


@lru_cache(maxsize=64)
def _kept(*contents: str) -> Kept:
    in_force, strategies, event_types, stored, extra = map(json.loads, contents)
    rows = ((w["domain"], w["segment"], w["strategy"], w["weight"]) for w in in_force["weights"] or [])
    return Kept(
        model=in_force["model"],
        policy=in_force["policy"],
        weights=_by_group(rows),
        strategies=tuple((s["strategy"], s["bit"], s["is_enabled"]) for s in strategies),
        histories_of=stored["model"],
        grading=stored["types"] if stored["made"] == 1 and stored["types"] == event_types else None,
        with_extra=frozenset(extra),
    )


def _by_group(rows: Any) -> Weights:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for domain, segment, strategy, weight in rows:
        found.setdefault((segment, domain), {})[strategy] = weight
    return found


class State:
    """Rows of the file that a list depends on, as the query's transaction sees them."""

    def __init__(self, rows: Any) -> None:
        flat = rows.flatten()
        self.kind, self._a = np.asarray(flat.field(0)), flat.field(1)
        few = np.flatnonzero((self.kind != BLOCKED) & (self.kind != AMONG))
        self.packed = flat.field(5).take(_array(np.flatnonzero(self.kind == STORED)))
        if len(few) < len(self.kind):
            flat = flat.take(_array(few))
        self._rows: dict[int, list[tuple[Any, ...]]] = {}
        columns = (flat.field(at).to_pylist() for at in range(1, 5))
        for kind, *row in zip(self.kind[few].tolist(), *columns, strict=True):
            self._rows.setdefault(kind, []).append(tuple(row))
        kept = {name: content for name, content, *_ in self.rows(KEPT)}
        self.kept = _kept(
            *(kept[name] for name in ("in_force", "strategies", "event_types", "stored_histories", "extra_candidates"))
        )

    def rows(self, kind: int) -> list[tuple[Any, ...]]:
        """(a, b, x, n) of the rows of a kind; not of BLOCKED and AMONG, which may be many."""
        return self._rows.get(kind, [])

    @property
    def is_edited(self) -> bool:
        """Whether there is no stored history to read: none was made, or events or event types were edited since."""
        return bool(self.rows(EDITED)) or self.kept.grading is None

    def ids(self, kind: int) -> Any:
        """Column a of the rows of a kind, an Arrow array."""
        return self._a.take(_array(np.flatnonzero(self.kind == kind)))


def _array(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(values)


def weights_of_policy(context: Context, kept: Kept, policy: int) -> Weights:
    """The weights of a policy; of another one than that in force as a connection of its own sees them."""
    if policy == (kept.policy or 0):
        return kept.weights
    return _by_group(_read(context, _WEIGHTS, [policy]))


def weights_by_bit(weights: Weights, segment: str, domain: str | None, bits: Mapping[str, int]) -> dict[int, float]:
    """Weight by bit of the enabled strategies: those of the segment, else everybody's; of the domain, else all."""
    for own_segment in (segment, "*"):
        for own_domain in (domain or "*", "*"):
            own = {bits[s]: weight for s, weight in weights.get((own_segment, own_domain), {}).items() if s in bits}
            if own:
                return dict(sorted(own.items()))
    return {}


def extra_candidates(context: Context, kept: Kept, version: int, user: str) -> list[tuple[str, int]]:
    """(item_id, bit) that strategies in SQL only proposed to a user in a build, by a connection of its own."""
    if version not in kept.with_extra:
        return []
    return [(item, bit) for item, bit in _read(context, _EXTRA, [version, user])]


def _read(context: Context, sql: str, given: list[Any]) -> list[tuple[Any, ...]]:
    con = context.open()
    try:
        return con.execute(sql, given).fetchall()
    finally:
        con.close()
