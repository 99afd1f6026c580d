"""One user's list in one function: what the planner need not join is handed over as rows and put together here.

``m6_one_list`` and ``m6_lists`` (a block of users) are two entrances to m6rec_udf.listing, so that one user alone
equals the same user in a batch.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.arrow import HISTORY, item_index, whole
from m6rec_udf.errors import NotBuiltError
from m6rec_udf.registry import Context, Function

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.history import Behaviour
    from m6rec_udf.listing import Lists

STATE = "STRUCT(kind INTEGER, a VARCHAR, b VARCHAR, c VARCHAR, x DOUBLE, n BIGINT)[]"
IN_FORCE, STRATEGY, WEIGHT, SEGMENT, BLOCKED, EXTRA, AMONG, BOOST, EDITED = range(9)
LINE = (
    "STRUCT(item_id VARCHAR, rank INTEGER, score DOUBLE, satisfaction DOUBLE, strategy VARCHAR, supporters UBIGINT, "
    "eligible UBIGINT, propensity DOUBLE, because_item_id VARCHAR, segment VARCHAR, policy_version BIGINT, "
    "model_version BIGINT, drawn_seed BIGINT, token VARCHAR)[]"
)
_NEWEST = """
select item_id
from m6.items
where
    is_available
    and not list_contains($listed, item_id)
    and ($domain is null or domain = $domain)
    and (created_at is null or created_at <= $until)
    and ($among is null or list_contains($among, item_id))
order by list_contains($seen, item_id), created_at desc nulls last, item_id
limit $k
"""


@dataclass
class Asked:
    """The arguments of one request beside the user's history and the state of the file."""

    user: str
    domain: str | None
    has_among: bool
    exclude_seen: bool | None
    k: int
    diversity: float
    calibrated: float
    until: float | None
    version: int | None
    policy: int | None
    seed: int | None


class State:
    """Rows of the file that a list depends on, as the query's transaction sees them."""

    def __init__(self, rows: Any) -> None:
        flat = rows.flatten()
        self.kind, self._a = np.asarray(flat.field(0)), flat.field(1)
        few = np.flatnonzero((self.kind != BLOCKED) & (self.kind != AMONG))
        if len(few) < len(self.kind):
            flat = flat.take(_array(few))
        self._rows: dict[int, list[tuple[Any, ...]]] = {}
        columns = (flat.field(at).to_pylist() for at in range(1, 6))
        for kind, *row in zip(self.kind[few].tolist(), *columns, strict=True):
            self._rows.setdefault(kind, []).append(tuple(row))

    def rows(self, kind: int) -> list[tuple[Any, ...]]:
        """(a, b, c, x, n) of the rows of a kind; not of BLOCKED and AMONG, which may be many."""
        return self._rows.get(kind, [])

    def ids(self, kind: int) -> Any:
        """Column a of the rows of a kind, an Arrow array."""
        return self._a.take(_array(np.flatnonzero(self.kind == kind)))


def _array(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(values)


def _mask_of(snapshot: Snapshot, ids: Any) -> np.ndarray:
    """Mask of the items of an Arrow array of ids; kept per content, so that a large set is looked up once."""
    import pyarrow as pa

    if ids.null_count:
        ids = ids.drop_null()
    digest = hashlib.blake2b(digest_size=16)
    for buffer in pa.concat_arrays([ids]).buffers()[1:]:
        if buffer is not None:
            digest.update(buffer)
    key = ("ids", len(ids), digest.digest())
    mask = snapshot.masks.get(key)
    if mask is None:
        mask = np.zeros(snapshot.n, bool)
        found = item_index(snapshot, ids)
        mask[found[found >= 0]] = True
        while len(snapshot.masks) > 200:
            snapshot.masks.pop(next(iter(snapshot.masks)), None)
        snapshot.masks[key] = mask
    return mask


def _allowed(snapshot: Snapshot, state: State, asked: Asked) -> np.ndarray | None:
    """Mask of the items that may be shown; None for all."""
    mask = snapshot.in_domain(asked.domain)
    if asked.has_among:
        among = _mask_of(snapshot, state.ids(AMONG))
        mask = among if mask is None else mask & among
    if (state.kind == BLOCKED).any():
        free = ~_mask_of(snapshot, state.ids(BLOCKED))
        mask = free if mask is None else mask & free
    return mask


def _weights(state: State, policy: int, segment: str, domain: str | None, bits: dict[str, int]) -> dict[int, float]:
    """Weight by bit of the enabled strategies: those of the segment, else everybody's; of the domain, else all."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for own_domain, own_segment, strategy, weight, version in state.rows(WEIGHT):
        if version == policy and strategy in bits:
            found.setdefault((own_segment, own_domain), {})[bits[strategy]] = weight
    for own_segment in (segment, "*"):
        for own_domain in (domain or "*", "*"):
            if (own_segment, own_domain) in found:
                return dict(sorted(found[own_segment, own_domain].items()))
    return {}


def _behaviour(snapshot: Snapshot, history: Any, segment: str, until: float | None) -> tuple[Behaviour, list[str]]:
    """The history (Arrow structs in any order) up to a moment as arrays in the order of m6.user_history; item_ids."""
    from m6rec_udf.history import Behaviour

    ids = history.field(0).to_pylist()
    interest, satisfaction, when = (np.asarray(history.field(at), np.float64) for at in (1, 2, 3))
    index = snapshot.index
    item = np.fromiter((index.get(i, -1) for i in ids), np.int64, len(ids))
    limit = np.inf if until is None else until
    inside = when <= limit
    keep = np.flatnonzero(inside & (item >= 0))
    keep = keep[np.lexsort((satisfaction[keep], interest[keep], item[keep], when[keep]))]
    segments = snapshot.settings["segments"]
    code = segments.index(segment) if segment in segments else -1
    behaviour = Behaviour(
        1,
        np.zeros(len(keep), np.int64),
        item[keep],
        interest[keep],
        satisfaction[keep],
        when[keep],
        np.asarray([code], np.int64),
        None if until is None else np.asarray([limit]),
    )
    seen = ids if inside.all() else [i for i, is_inside in zip(ids, inside.tolist(), strict=True) if is_inside]
    return behaviour, seen


def one_list(context: Context, history: Any, state: State, asked: Asked) -> list[dict[str, Any]]:
    """The lines of one user's list, best first."""
    from m6rec_udf.arrays import of_version
    from m6rec_udf.listing import Request, boost_of, drawn, lists_of, weights_of

    [(_, _, _, policy, model)] = state.rows(IN_FORCE)
    version = model if asked.version is None else asked.version
    if version is None:
        raise NotBuiltError("nothing is built in this file, expected a build in force", "run m6rec_udf.build(con)")
    policy = int(policy or 0) if asked.policy is None else asked.policy
    segment = next((a for a, *_ in state.rows(SEGMENT) if a is not None), "*")
    snapshot = of_version(context, version)
    assert snapshot.model is not None
    if (state.kind == EDITED).any():
        history = _read_afresh(context, asked.user)
    behaviour, seen_ids = _behaviour(snapshot, history, segment, asked.until)
    extra = [(snapshot.index[a], n) for a, _, _, x, n in state.rows(EXTRA) if x == version and a in snapshot.index]
    strategies = state.rows(STRATEGY)
    weights = _weights(state, policy, segment, asked.domain, {a: n for a, _, _, x, n in strategies if x})
    request = Request(
        k=asked.k,
        allowed=_allowed(snapshot, state, asked),
        exclude_seen=asked.exclude_seen,
        boost=boost_of(snapshot, {a: x for a, _, _, x, _ in state.rows(BOOST)}),
        diversity=asked.diversity,
        calibrated=asked.calibrated,
    )
    found = lists_of(
        snapshot,
        behaviour,
        request,
        weights=weights_of([weights]),
        uniform=drawn([asked.seed], [asked.user], asked.k),
        extra=_extra_of(extra),
    )
    slots = _slots(snapshot, found, {n: a for a, _, _, _, n in strategies})
    if sum(slot["strategy"] != "seen" for slot in slots) < asked.k:
        slots = _filled(context, snapshot, state, asked, slots, seen_ids)
    same = {
        "segment": segment,
        "policy_version": policy,
        "model_version": version,
        "drawn_seed": asked.seed,
        "token": str(uuid.uuid4()),
    }
    return [slot | same for slot in slots]


def _slots(snapshot: Snapshot, found: Lists, strategies: dict[int, str]) -> list[dict[str, Any]]:
    """The lines of one list as rows, item_ids and names of strategies in place of numbers."""
    ids = snapshot.item_ids
    return [
        {
            "item_id": ids[item],
            "rank": rank,
            "score": score,
            "satisfaction": satisfaction,
            "strategy": "seen" if bit < 0 else strategies.get(bit),
            "supporters": supporters,
            "eligible": eligible,
            "propensity": None if math.isnan(propensity) else propensity,
            "because_item_id": None if because < 0 else ids[because],
        }
        for rank, (item, score, satisfaction, bit, supporters, eligible, propensity, because) in enumerate(
            zip(*(column.tolist() for column in found.columns()), strict=True), 1
        )
    ]


def _read_afresh(context: Context, user: str) -> Any:
    """The history of a user whose behaviour was edited since the build, as Arrow structs.

    Read by a connection of its own: an edit that an open transaction has not committed yet is not in it.
    """
    con = context.open()
    try:
        query = "select unnest(history) as h from m6.user_history([$user])"
        found = con.sql(query, params={"user": user}).to_arrow_table()["h"]
    finally:
        con.close()
    return whole(found)


def _extra_of(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    if not rows:
        return None
    item, bit = (np.asarray(column, np.int64) for column in zip(*rows, strict=True))
    return np.zeros(len(item), np.int64), item, bit


def _filled(
    context: Context, snapshot: Snapshot, state: State, asked: Asked, slots: list[dict[str, Any]], seen: list[str]
) -> list[dict[str, Any]]:
    """The end of the fallback chain: what the build cannot rank yet, the newest first, before items seen already.

    Read by a connection of its own: an item that an open transaction has not committed yet does not fill its lists.
    """
    from datetime import datetime, timedelta

    assert snapshot.model is not None
    until = None
    if asked.until is not None:
        until = datetime(1970, 1, 1) + timedelta(seconds=asked.until)
    given = {
        "listed": [slot["item_id"] for slot in slots],
        "seen": seen,
        "domain": asked.domain,
        "until": until or "infinity",
        "among": state.ids(AMONG).to_pylist() if asked.has_among else None,
        "k": asked.k,
    }
    con = context.open()
    try:
        new = con.execute(_NEWEST.replace("$until", "cast($until as timestamp)"), given).fetchall()
    finally:
        con.close()
    known, rate = set(seen), snapshot.model.base_rate
    more = [
        {
            "item_id": item_id,
            "score": rate,
            "satisfaction": rate,
            "strategy": "seen" if item_id in known else "new",
            "supporters": 0,
            "eligible": 0,
            "propensity": None if asked.seed is None else 1.0,
            "because_item_id": None,
        }
        for (item_id,) in new
    ]
    everything = [slot for slot in slots if slot["strategy"] != "seen"] + [s for s in more if s["strategy"] != "seen"]
    everything += [slot for slot in slots if slot["strategy"] == "seen"] + [s for s in more if s["strategy"] == "seen"]
    return [slot | {"rank": rank} for rank, slot in enumerate(everything[: asked.k], 1)]


def _make_one_list(context: Context) -> Callable[..., Any]:
    def m6_one_list(
        user: Any,
        history: Any,
        state: Any,
        domain: Any,
        among: Any,
        exclude_seen: Any,
        k: Any,
        diversity: Any,
        calibrated: Any,
        until: Any,
        version: Any,
        policy: Any,
        seed: Any,
    ) -> Any:
        """One user's list: candidates, satisfaction, mixing, evidence and the fallback chain."""
        import pyarrow as pa

        arguments = (user, domain, among, exclude_seen, k, diversity, calibrated, until, version, policy, seed)
        rows = zip(*(column.to_pylist() for column in arguments), strict=True)
        histories, states = whole(history), whole(state)
        out = [
            one_list(context, histories.slice(at, 1).flatten(), State(states.slice(at, 1)), Asked(*own))
            for at, own in enumerate(rows)
        ]
        return pa.array(out, _line_type())

    return m6_one_list


def _line_type() -> Any:
    import pyarrow as pa

    return pa.list_(
        pa.struct(
            [
                ("item_id", pa.string()),
                ("rank", pa.int32()),
                ("score", pa.float64()),
                ("satisfaction", pa.float64()),
                ("strategy", pa.string()),
                ("supporters", pa.uint64()),
                ("eligible", pa.uint64()),
                ("propensity", pa.float64()),
                ("because_item_id", pa.string()),
                ("segment", pa.string()),
                ("policy_version", pa.int64()),
                ("model_version", pa.int64()),
                ("drawn_seed", pa.int64()),
                ("token", pa.string()),
            ]
        )
    )


ONE_LIST = Function(
    "m6_one_list",
    _make_one_list,
    (
        "VARCHAR",
        HISTORY,
        STATE,
        "VARCHAR",
        "BOOLEAN",
        "BOOLEAN",
        "INTEGER",
        "DOUBLE",
        "DOUBLE",
        "DOUBLE",
        "BIGINT",
        "BIGINT",
        "BIGINT",
    ),
    LINE,
)
