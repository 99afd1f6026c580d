"""The Python core as SQL functions (Arrow arrays in, one Arrow array out)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf import basket_lists
from m6rec_udf.arrow import HISTORY, item_index, numbers, offsets_of, whole
from m6rec_udf.comparisons import RESAMPLED
from m6rec_udf.errors import CorruptError, ParameterError, UnknownNameError
from m6rec_udf.item_sets import ITEM_SET, mask_of
from m6rec_udf.registry import Context, Function
from m6rec_udf.single import ONE_LIST
from m6rec_udf.vector_functions import VECTOR_FUNCTIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.history import Behaviour
    from m6rec_udf.listing import Lists

EXTRA = "STRUCT(item_id VARCHAR, bit UTINYINT)[]"
CANDIDATE = "STRUCT(item_id VARCHAR, supporters UBIGINT, is_seen BOOLEAN, features FLOAT[])[]"
SCORED = "STRUCT(item_id VARCHAR, supporters UBIGINT, is_seen BOOLEAN, satisfaction DOUBLE)[]"
WEIGHTS = "STRUCT(bit UTINYINT, weight DOUBLE)[]"
PARTS = f"STRUCT(domain VARCHAR, share DOUBLE, weights {WEIGHTS})[]"
SLOTS = (
    "STRUCT(item_id VARCHAR, rank INTEGER, score DOUBLE, satisfaction DOUBLE, bit TINYINT, "
    "supporters UBIGINT, eligible UBIGINT, propensity DOUBLE, because_item_id VARCHAR)[]"
)
USERS_AT_ONCE = 6_000_000  # cells of one dense score matrix


def behaviour_of(
    snapshot: Snapshot, histories: pa.ListArray, segments: list[str | None], asked_at: np.ndarray | None = None
) -> Behaviour:
    """Arrow histories (one list of structs per user) as arrays; ``asked_at`` as in ``Behaviour``."""
    from m6rec_udf.history import Behaviour

    offsets, flat = offsets_of(histories)
    row = np.repeat(np.arange(len(histories)), np.diff(offsets))
    item = item_index(snapshot, flat.field("item_id"))
    keep = item >= 0
    codes = {name: code for code, name in enumerate(snapshot.settings["segments"])}
    return Behaviour(
        len(histories),
        row[keep],
        item[keep],
        numbers(flat.field("interest"))[keep].astype(np.float64),
        numbers(flat.field("satisfaction"))[keep].astype(np.float64),
        numbers(flat.field("happened_at"))[keep],
        np.asarray([codes.get(s or "*", -1) for s in segments], np.int64),
        asked_at,
    )


def _make_candidates(context: Context) -> Callable[..., Any]:
    def m6_candidates(
        version: Any,
        segment: Any,
        history: Any,
        extra: Any,
        domain: Any,
        among: Any,
        blocked: Any,
        seen: Any,
        k: Any,
        asked_at: Any,
    ) -> Any:
        import pyarrow as pa

        if not len(version):
            return pa.array([], _candidate_type())
        request = (version, segment, history, extra, domain, among, blocked, seen, k, asked_at)
        snapshot, offsets, found, x = _requested(context, request)
        width = x.shape[1]
        lists = pa.ListArray.from_arrays(np.arange(len(x) + 1, dtype=np.int32) * width, pa.array(x.ravel()))
        return _found_lists(snapshot, offsets, found, "features", lists)

    return m6_candidates


def _make_scored(context: Context) -> Callable[..., Any]:
    def m6_scored(
        version: Any,
        segment: Any,
        history: Any,
        extra: Any,
        domain: Any,
        among: Any,
        blocked: Any,
        seen: Any,
        k: Any,
        asked_at: Any,
    ) -> Any:
        """m6_candidates and m6_satisfaction in one step: the features never leave Python."""
        import pyarrow as pa

        if not len(version):
            return pa.array([], _scored_type())
        request = (version, segment, history, extra, domain, among, blocked, seen, k, asked_at)
        snapshot, offsets, found, x = _requested(context, request)
        assert snapshot.model is not None
        return _found_lists(snapshot, offsets, found, "satisfaction", pa.array(snapshot.model.predict(x), pa.float64()))

    return m6_scored


def _requested(context: Context, request: tuple[Any, ...]) -> tuple[Snapshot, np.ndarray, Any, np.ndarray]:
    """(snapshot, offsets of each user's candidates, candidates, features) of the arguments of m6_candidates."""
    from m6rec_udf.arrays import of_version

    version, segment, history, extra, domain, among, blocked, seen, k, asked_at = request
    snapshot = of_version(context, version[0].as_py())
    behaviour = behaviour_of(snapshot, whole(history), segment.to_pylist(), numbers(whole(asked_at), np.nan))
    exclude = seen[0].as_py()
    found, x = candidates_of(
        snapshot,
        behaviour,
        allowed=mask_of(context, snapshot, domain[0].as_py(), among[0].as_py(), blocked[0].as_py()),
        exclude_seen=not snapshot.settings["repeats_allowed"] if exclude is None else exclude,
        at_least=int(k[0].as_py()),
        extra=extra_of(snapshot, whole(extra)),
    )
    return snapshot, np.searchsorted(found.row, np.arange(behaviour.users + 1)).astype(np.int32), found, x


def _found_lists(snapshot: Snapshot, offsets: np.ndarray, found: Any, name: str, values: pa.Array) -> pa.ListArray:
    """One list of (item_id, supporters, is_seen, ``name``) per user."""
    import pyarrow as pa

    structs = pa.StructArray.from_arrays(
        [snapshot.arrow_ids.take(pa.array(found.item)), pa.array(found.supporters), pa.array(found.is_seen), values],
        ["item_id", "supporters", "is_seen", name],
    )
    return pa.ListArray.from_arrays(offsets, structs)


def _candidate_type() -> Any:
    import pyarrow as pa

    fields = [("item_id", pa.string()), ("supporters", pa.uint64()), ("is_seen", pa.bool_())]
    return pa.list_(pa.struct([*fields, ("features", pa.list_(pa.float32()))]))


def _scored_type() -> Any:
    import pyarrow as pa

    fields = [("item_id", pa.string()), ("supporters", pa.uint64()), ("is_seen", pa.bool_())]
    return pa.list_(pa.struct([*fields, ("satisfaction", pa.float64())]))


def extra_of(snapshot: Snapshot, lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(row, item, bit) of proposals computed beforehand, those of items that the build knows; None for none at all."""
    offsets, flat = offsets_of(lists)
    if not len(flat):
        return None
    row = np.repeat(np.arange(len(lists)), np.diff(offsets))
    item = item_index(snapshot, flat.field("item_id"))
    keep = item >= 0
    return row[keep], item[keep], numbers(flat.field("bit"))[keep]


def candidates_of(
    snapshot: Snapshot,
    behaviour: Behaviour,
    *,
    allowed: np.ndarray | None,
    exclude_seen: bool,
    at_least: int,
    extra: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> tuple[Any, np.ndarray]:
    """Candidates and their features for any number of users, in blocks that bound the memory."""
    from m6rec_udf.candidates import Candidates, propose
    from m6rec_udf.history import Profile
    from m6rec_udf.ranking import FEATURES, features

    step = max(1, min(behaviour.users, USERS_AT_ONCE // max(snapshot.n, 1)))
    parts, xs = [], []
    for start in range(0, behaviour.users, step):
        stop = min(start + step, behaviour.users)
        profile = Profile(snapshot, behaviour.block(start, stop))
        own = None
        if extra is not None:
            inside = (extra[0] >= start) & (extra[0] < stop)
            own = (extra[0][inside] - start, extra[1][inside], extra[2][inside])
        found = propose(snapshot, profile, allowed=allowed, exclude_seen=exclude_seen, at_least=at_least, extra=own)
        xs.append(features(snapshot, profile, found))
        found.row = found.row + start
        parts.append(found)
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Candidates(nothing, nothing, nothing.astype(np.uint64), nothing.astype(bool), nothing[None]), np.zeros(
            (0, len(FEATURES)), np.float32
        )
    joined = Candidates(
        np.concatenate([p.row for p in parts]),
        np.concatenate([p.item for p in parts]),
        np.concatenate([p.supporters for p in parts]),
        np.concatenate([p.is_seen for p in parts]),
        np.concatenate([p.scores for p in parts], axis=1),
    )
    return joined, np.concatenate(xs)


def _make_satisfaction(context: Context) -> Callable[..., Any]:
    def m6_satisfaction(version: Any, rows: Any) -> Any:
        """Calibrated satisfaction of each feature list; NULL, an item the build does not know, gets the base rate."""
        import pyarrow as pa

        from m6rec_udf.arrays import of_version
        from m6rec_udf.ranking import FEATURES

        if not len(version):
            return pa.array([], pa.float64())
        model = of_version(context, version[0].as_py()).model
        assert model is not None
        width = len(FEATURES)
        lists = whole(rows)
        lengths = np.asarray(lists.value_lengths().fill_null(-1))
        wrong = lengths[(lengths != width) & (lengths != -1)]
        if len(wrong):
            raise ParameterError(f"m6_satisfaction got {int(wrong[0])} features, expected {width}")
        out = np.full(len(lists), model.base_rate)
        out[lengths == width] = model.predict(np.asarray(lists.flatten(), np.float32).reshape(-1, width))
        return pa.array(out)

    return m6_satisfaction


def _make_standings(context: Context) -> Callable[..., Any]:
    """m6_standings: the lists of m6_lists with every candidate in them, not only the first k."""
    return _make_lists(context, everything=True)


def _make_lists(context: Context, *, everything: bool = False) -> Callable[..., Any]:
    def m6_lists(
        version: Any,
        user: Any,
        segment: Any,
        history: Any,
        extra: Any,
        weights: Any,
        domain: Any,
        among: Any,
        blocked: Any,
        boosts: Any,
        seen: Any,
        k: Any,
        diversity: Any,
        calibrated: Any,
        asked_at: Any,
        seed: Any,
        parts: Any,
    ) -> Any:
        """The lists of a block of users: candidates, satisfaction, mixing, evidence.

        ``parts``: (domain, share, weights) of each domain of a list with quotas, in place of ``weights``; else NULL.
        """
        import pyarrow as pa

        from m6rec_udf.arrays import of_version
        from m6rec_udf.listing import Request, boost_of, drawn, lists_of

        if not len(version):
            return pa.array([], slot_type())
        snapshot = of_version(context, version[0].as_py())
        wanted = k[0].as_py()
        request = Request(
            k=wanted,
            allowed=mask_of(context, snapshot, domain[0].as_py(), among[0].as_py(), blocked[0].as_py()),
            exclude_seen=seen[0].as_py(),
            boost=boost_of(snapshot, context.item_sets.get(boosts[0].as_py())),
            diversity=diversity[0].as_py(),
            calibrated=calibrated[0].as_py(),
            quotas=_quotas(parts, domain[0].as_py()),
            everything=everything,
        )
        seeds = seed.to_pylist()
        found = lists_of(
            snapshot,
            behaviour_of(snapshot, whole(history), segment.to_pylist(), numbers(whole(asked_at), np.nan)),
            request,
            weights=weights_by_bit(whole(weights))[None] if request.quotas is None else _weights_of_parts(whole(parts)),
            uniform=None
            if seeds[0] is None
            else drawn(seeds, user.to_pylist(), min(wanted, snapshot.n) * request.parts),
            extra=extra_of(snapshot, whole(extra)),
        )
        return slot_lists(snapshot, found, len(version))

    return m6_lists


def weights_by_bit(lists: pa.ListArray) -> np.ndarray:
    """Weight by strategy bit of each user, float64 ``[users, bits]``."""
    offsets, flat = offsets_of(lists)
    bit = numbers(flat.field("bit")).astype(np.int64)
    out = np.zeros((len(lists), int(bit.max(initial=0)) + 1))
    out[np.repeat(np.arange(len(lists)), np.diff(offsets)), bit] = numbers(flat.field("weight"))
    return out


def _quotas(parts: Any, domain: str | None) -> dict[str, float] | None:
    """Shares by domain, the same for all users."""
    from m6rec_udf import quotas

    own = parts[0].as_py()
    return quotas.given(None if own is None else [(p["domain"], p["share"]) for p in own if p["domain"]], domain)


def _weights_of_parts(parts: pa.ListArray) -> np.ndarray:
    """Weight by strategy bit in each domain of the quotas, float64 ``[domains, users, bits]``."""
    offsets, flat = offsets_of(parts)
    weights = weights_by_bit(flat.field("weights"))
    return weights.reshape(len(offsets) - 1, -1, weights.shape[1]).transpose(1, 0, 2)


def slot_lists(snapshot: Snapshot, found: Lists, users: int) -> pa.ListArray:
    """Lines of lists as one Arrow list per user."""
    import pyarrow as pa

    offsets = np.searchsorted(found.row, np.arange(users + 1))
    columns = [
        snapshot.arrow_ids.take(pa.array(found.item)),
        pa.array(np.arange(len(found.row)) - offsets[found.row] + 1, pa.int32()),
        pa.array(found.score),
        pa.array(found.satisfaction),
        pa.array(found.bit, pa.int8()),
        pa.array(found.supporters),
        pa.array(found.eligible),
        pa.array(found.propensity, mask=np.isnan(found.propensity)),
        snapshot.arrow_ids.take(pa.array(found.because, mask=found.because < 0)),
    ]
    lines = pa.StructArray.from_arrays(columns, fields=list(slot_type().value_type))
    return pa.ListArray.from_arrays(offsets.astype(np.int32), lines)


def slot_type() -> Any:
    """The Arrow type of SLOTS."""
    import pyarrow as pa

    return pa.list_(
        pa.struct(
            [
                ("item_id", pa.string()),
                ("rank", pa.int32()),
                ("score", pa.float64()),
                ("satisfaction", pa.float64()),
                ("bit", pa.int8()),
                ("supporters", pa.uint64()),
                ("eligible", pa.uint64()),
                ("propensity", pa.float64()),
                ("because_item_id", pa.string()),
            ]
        )
    )


def _make_explain(context: Context) -> Callable[..., Any]:
    def m6_explain(
        version: Any,
        segment: Any,
        item: Any,
        history: Any,
        extra: Any,
        domain: Any,
        among: Any,
        blocked: Any,
        seen: Any,
        k: Any,
        asked_at: Any,
    ) -> Any:
        """Parts of the satisfaction of users with items: a list of (part, name, value, contribution)."""
        import pyarrow as pa

        from m6rec_udf.arrays import of_version
        from m6rec_udf.explain import explain

        out = []
        segments, histories, moments = segment.to_pylist(), whole(history), numbers(whole(asked_at), np.nan)
        proposals = whole(extra)
        for at, (v, item_id) in enumerate(zip(version.to_pylist(), item.to_pylist(), strict=True)):
            snapshot = of_version(context, v)
            if item_id not in snapshot.index:
                raise UnknownNameError(
                    f"there is no item {item_id!r} in model_version {v}, expected one of m6.items",
                    "check the id; an item loaded after the build needs m6rec_udf.build(con); "
                    "m6.why_not says what keeps an item out",
                )
            out.append(
                explain(
                    snapshot,
                    behaviour_of(snapshot, histories.slice(at, 1), [segments[at]], moments[at : at + 1]),
                    snapshot.index[item_id],
                    allowed=mask_of(context, snapshot, domain[at].as_py(), among[at].as_py(), blocked[at].as_py()),
                    exclude_seen=seen[at].as_py(),
                    at_least=int(k[at].as_py()),
                    extra=extra_of(snapshot, proposals.slice(at, 1)),
                )
            )
        parts = [("part", pa.string()), ("name", pa.string()), ("value", pa.float64()), ("contribution", pa.float64())]
        return pa.array(out, pa.list_(pa.struct(parts)))

    return m6_explain


def _make_unpacked_history(context: Context) -> Callable[..., Any]:
    def m6_unpacked_history(version: Any, packed: Any) -> Any:
        """A stored history (see m6rec_udf.histories) as the list that m6.user_history gives."""
        import pyarrow as pa

        from m6rec_udf.arrays import of_version
        from m6rec_udf.histories import unpacked

        length, records = unpacked(whole(packed))
        offsets = pa.array(np.concatenate([[0], np.cumsum(length)]).astype(np.int32))
        ids = pa.array([], pa.string())
        if len(records):
            known = of_version(context, version[0].as_py()).arrow_ids
            if records["item"].min() < 0 or records["item"].max() >= len(known):
                raise CorruptError(
                    f"a stored history names items that the build does not have, expected numbers below {len(known)}",
                    "run m6rec_udf.build(con): it writes m6.stored_histories afresh",
                )
            ids = known.take(pa.array(records["item"]))
        rest = [pa.array(np.ascontiguousarray(records[name])) for name in ("interest", "satisfaction", "happened_at")]
        names = ["item_id", "interest", "satisfaction", "happened_at"]
        return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([ids, *rest], names))

    return m6_unpacked_history


LIST_REQUEST = (
    "BIGINT",
    "VARCHAR",
    "VARCHAR",
    HISTORY,
    EXTRA,
    WEIGHTS,
    "VARCHAR",
    "BIGINT",
    "BIGINT",
    "BIGINT",
    "BOOLEAN",
    "INTEGER",
    "DOUBLE",
    "DOUBLE",
    "DOUBLE",
    "BIGINT",
    PARTS,
)
FUNCTIONS = (
    Function("m6_unpacked_history", _make_unpacked_history, ("BIGINT", "BLOB"), HISTORY),
    *VECTOR_FUNCTIONS,
    ITEM_SET,
    Function(
        "m6_candidates",
        _make_candidates,
        ("BIGINT", "VARCHAR", HISTORY, EXTRA, "VARCHAR", "BIGINT", "BIGINT", "BOOLEAN", "INTEGER", "DOUBLE"),
        CANDIDATE,
    ),
    Function(
        "m6_scored",
        _make_scored,
        ("BIGINT", "VARCHAR", HISTORY, EXTRA, "VARCHAR", "BIGINT", "BIGINT", "BOOLEAN", "INTEGER", "DOUBLE"),
        SCORED,
    ),
    ONE_LIST,
    RESAMPLED,
    Function("m6_satisfaction", _make_satisfaction, ("BIGINT", "FLOAT[]"), "DOUBLE"),
    Function("m6_lists", _make_lists, LIST_REQUEST, SLOTS),
    Function("m6_standings", _make_standings, LIST_REQUEST, SLOTS),
    Function("m6_basket_lists", basket_lists.make, basket_lists.PARAMETERS, SLOTS),
    Function(
        "m6_explain",
        _make_explain,
        (
            "BIGINT",
            "VARCHAR",
            "VARCHAR",
            HISTORY,
            EXTRA,
            "VARCHAR",
            "BIGINT",
            "BIGINT",
            "BOOLEAN",
            "INTEGER",
            "DOUBLE",
        ),
        "STRUCT(part VARCHAR, name VARCHAR, value DOUBLE, contribution DOUBLE)[]",
    ),
)
