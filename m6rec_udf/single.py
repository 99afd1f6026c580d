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
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf import quotas
from m6rec_udf.arrays import PEOPLE, of_version
from m6rec_udf.arrow import item_index, whole
from m6rec_udf.errors import NotBuiltError
from m6rec_udf.histories import unpacked
from m6rec_udf.list_state import (
    AMONG,
    BLOCKED,
    BOOST,
    EVENT,
    SEGMENT,
    STATE,
    UNREAD,
    State,
    extra_candidates,
    weights_by_bit,
    weights_of_policy,
)
from m6rec_udf.registry import Context, Function
from m6rec_udf.user_history import History, Stored, read_afresh, with_what_came_later

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.listing import Lists

ASKED = (
    'STRUCT("user" VARCHAR, "domain" VARCHAR, has_among BOOLEAN, exclude_seen BOOLEAN, k INTEGER, diversity DOUBLE, '
    'calibrated DOUBLE, "until" DOUBLE, "version" BIGINT, "policy" BIGINT, seed BIGINT, quotas MAP(VARCHAR, DOUBLE))'
)
LINE = {
    "user_id": "VARCHAR",
    "item_id": "VARCHAR",
    "rank": "INTEGER",
    "score": "DOUBLE",
    "satisfaction": "DOUBLE",
    "strategy": "VARCHAR",
    "domain": "VARCHAR",
    "policy_version": "BIGINT",
    "model_version": "BIGINT",
    "supporters": "UBIGINT",
    "eligible": "UBIGINT",
    "propensity": "DOUBLE",
    "segment": "VARCHAR",
    "weights_domain": "VARCHAR",
    "because_item_id": "VARCHAR",
    "reason": "VARCHAR",
    "drawn_seed": "BIGINT",
    "token": "VARCHAR",
}
LINES = f"STRUCT({', '.join(f'{name} {kind}' for name, kind in LINE.items())})[]"
_NEWEST = """
select item_id, domain
from m6.items
where
    is_available
    and not list_contains($listed, item_id)
    and not (
        domain = 'people'
        and (
            item_id = $user
            or item_id in (select other_user_id from m6.relations where user_id = $user and kind = 'blocks')
            or item_id in (select user_id from m6.relations where other_user_id = $user and kind = 'blocks')
        )
    )
    and ($domains is null or list_contains($domains, domain))
    and (created_at is null or created_at <= $until)
    and ($among is null or list_contains($among, item_id))
order by list_contains($seen, item_id), created_at desc nulls last, item_id
limit $k
"""
_BLOCKS = """
select case when user_id = $user then other_user_id else user_id end
from m6.relations
where kind = 'blocks' and (user_id = $user or other_user_id = $user)
"""
_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799  # seconds since 1970 that datetime can hold


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
    quotas: dict[str, float] | None = None

    @property
    def domains(self) -> list[str | None]:
        """The domains that make lists of their own; [None]: one list of all."""
        return [self.domain] if self.quotas is None else list(self.quotas)


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


def _blocks(context: Context, user: str) -> list[str]:
    """user_ids of those whom the user blocked, or who blocked the user, by a connection of its own."""
    con = context.open()
    try:
        return [other for (other,) in con.execute(_BLOCKS, {"user": user}).fetchall()]
    finally:
        con.close()


def _allowed(context: Context, snapshot: Snapshot, state: State, asked: Asked) -> np.ndarray | None:
    """Mask of the items that may be shown; None for all."""
    mask = snapshot.in_domain(asked.domain)
    if asked.has_among:
        among = _mask_of(snapshot, state.ids(AMONG))
        mask = among if mask is None else mask & among
    if PEOPLE in snapshot.settings["domains"]:
        open_ = ~snapshot.persons([asked.user, *_blocks(context, asked.user)])
        mask = open_ if mask is None else mask & open_
    if (state.kind == BLOCKED).any():
        free = ~_mask_of(snapshot, state.ids(BLOCKED))
        mask = free if mask is None else mask & free
    return mask


def _history(context: Context, snapshot: Snapshot, version: int, state: State, user: str) -> History:
    if state.is_edited:
        return read_afresh(context, snapshot, user)
    made_by = state.kept.histories_of
    assert made_by is not None
    stored = Stored(
        snapshot if made_by == version else of_version(context, made_by),
        unpacked(state.packed)[1],
        (made_by, state.kept.grading),
    )
    events = state.rows(EVENT)
    return with_what_came_later(context, snapshot, user, stored, events, has_feedback=bool(state.rows(UNREAD)))


def one_list(context: Context, state: State, asked: Asked) -> list[dict[str, Any]]:
    """The lines of one user's list, best first."""
    from m6rec_udf.listing import Request, boost_of, drawn, lists_of, weights_of

    kept = state.kept
    version = kept.model if asked.version is None else asked.version
    if version is None:
        raise NotBuiltError("nothing is built in this file, expected a build in force", "run m6rec_udf.build(con)")
    policy = (kept.policy or 0) if asked.policy is None else asked.policy
    segment = next((a for a, *_ in state.rows(SEGMENT) if a is not None), "*")
    snapshot = of_version(context, version)
    assert snapshot.model is not None
    history = _history(context, snapshot, version, state, asked.user)
    proposed = extra_candidates(context, kept, version, asked.user)
    extra = [(snapshot.index[item], bit) for item, bit in proposed if item in snapshot.index]
    bits = {strategy: bit for strategy, bit, is_enabled in kept.strategies if is_enabled}
    of_policy = weights_of_policy(context, kept, policy)
    weights = [weights_by_bit(of_policy, segment, domain, bits) for domain in asked.domains]
    request = Request(
        k=asked.k,
        allowed=_allowed(context, snapshot, state, asked),
        exclude_seen=asked.exclude_seen,
        boost=boost_of(snapshot, {item: boost for item, _, boost, _ in state.rows(BOOST)}),
        diversity=asked.diversity,
        calibrated=asked.calibrated,
        quotas=asked.quotas,
    )
    found = lists_of(
        snapshot,
        history.behaviour(snapshot, segment, asked.until),
        request,
        weights=weights_of(weights)[:, None],
        uniform=drawn([asked.seed], [asked.user], min(asked.k, snapshot.n) * request.parts),
        extra=_extra_of(extra),
    )
    slots = _slots(snapshot, found, {bit: strategy for strategy, bit, _ in kept.strategies})
    if sum(slot["strategy"] != "seen" for slot in slots) < asked.k:
        slots = _filled(context, snapshot, state, asked, slots, history.seen(snapshot, asked.until))
    same = {
        "user_id": asked.user,
        "segment": segment,
        "policy_version": policy,
        "model_version": version,
        "drawn_seed": asked.seed,
        "token": str(uuid.uuid4()),
    }
    if asked.quotas is None:
        same["weights_domain"] = asked.domain or "*"
        return [slot | same for slot in slots]
    return [slot | same | {"weights_domain": slot["domain"]} for slot in slots]


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
            "reason": reason("seen" if bit < 0 else strategies.get(bit), *_evidence(snapshot, because)),
            "domain": snapshot.settings["domains"][snapshot.domain[item]],
        }
        for rank, (item, score, satisfaction, bit, supporters, eligible, propensity, because) in enumerate(
            zip(*(column.tolist() for column in found.columns()), strict=True), 1
        )
    ]


def _evidence(snapshot: Snapshot, item: int) -> tuple[str | None, str | None]:
    """(item_id, title) of the item of the history that speaks for a line; item: -1 for none."""
    return (None, None) if item < 0 else (snapshot.item_ids[item], snapshot.titles[item])


def reason(strategy: str | None, item_id: str | None, title: str | None) -> str:
    """Why a line is in a list, in words: the macro m6.reason, which costs a single list 0.4 ms to plan."""
    if strategy == "seen":
        return "you know this one; nothing new is left"
    if item_id is not None:
        return f'because of "{item_id if title is None else title}" in your history'
    if strategy in ("fresh", "new"):
        return "new in the catalogue"
    return "liked by many" if strategy == "popular" else "popular lately"


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
        until = datetime(1970, 1, 1) + timedelta(seconds=min(max(asked.until, _YEAR_1), _YEAR_9999))
    given = {
        "listed": [slot["item_id"] for slot in slots],
        "seen": seen,
        "user": asked.user,
        "domains": None if asked.domains == [None] else asked.domains,
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
            "reason": reason("seen" if item_id in known else "new", None, None),
            "domain": domain,
        }
        for item_id, domain in new
    ]
    everything = [slot for slot in slots if slot["strategy"] != "seen"] + [s for s in more if s["strategy"] != "seen"]
    everything += [slot for slot in slots if slot["strategy"] == "seen"] + [s for s in more if s["strategy"] == "seen"]
    return [slot | {"rank": rank} for rank, slot in enumerate(everything[: asked.k], 1)]


def _make_one_list(context: Context) -> Callable[..., Any]:
    def m6_one_list(asked: Any, state: Any) -> Any:
        """One user's list: candidates, satisfaction, mixing, evidence and the fallback chain."""
        import pyarrow as pa

        states = whole(state)
        # Many small steps hold the interpreter's lock: threads that take it from each other at every one of them make
        # fewer lists than threads that take turns, while the database plans the queries of the others.
        with context.turn:
            out = [
                one_list(context, State(states.slice(at, 1)), _asked(own)) for at, own in enumerate(asked.to_pylist())
            ]
        return pa.array(out, _line_type())

    return m6_one_list


def _asked(own: dict[str, Any]) -> Asked:
    """The arguments of one request. Raises ParameterError: both a domain and quotas are given."""
    return Asked(**{**own, "quotas": quotas.given(own["quotas"], own["domain"])})


@cache
def _line_type() -> Any:
    """LINES as a type of Arrow."""
    import pyarrow as pa

    kinds = {
        "VARCHAR": pa.string(),
        "INTEGER": pa.int32(),
        "BIGINT": pa.int64(),
        "UBIGINT": pa.uint64(),
        "DOUBLE": pa.float64(),
    }
    return pa.list_(pa.struct([(name, kinds[kind]) for name, kind in LINE.items()]))


ONE_LIST = Function("m6_one_list", _make_one_list, (ASKED, STATE), LINES)
