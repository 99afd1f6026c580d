"""What a build takes over from the version in force where little has changed since that was learned.

Looking back at past moments is the longest part of a build, and what it teaches (the settings of item-item, the
satisfaction model) changes slowly; so do the item models. A rebuild that takes them over still computes features,
histories and vectors from all behaviour, and folds in the items that they could not know (``item_models``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from m6rec_udf import __version__, artefacts, histories
from m6rec_udf.arrays import cells_of
from m6rec_udf.errors import CorruptError, NotBuiltError
from m6rec_udf.item_models import TakenOver
from m6rec_udf.models import Model
from m6rec_udf.query import one
from m6rec_udf.ranking import FEATURES
from m6rec_udf.satisfaction import SatisfactionModel

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from m6rec_udf.cells import Cells
    from m6rec_udf.item_texts import ItemTexts
    from m6rec_udf.moment import Settings

MEANING = 2  # raised where the same SQL and features come to say something else: then everything is learned again
MOST_GROWTH = 0.05  # of behaviour and impressions
GIVEN = ("positive_at", "repeats_allowed", "strategies", "encoder", "satisfaction", "seed", "in_sql", "lightgbm")
LATER: dict[str, Any] = {"columns": []}  # settings that builds of an earlier release lack, with what they meant
CHOSEN = ("regularisation", "neighbours", "either_sign", "tail_weight", "trend_power", "trend_column", "baskets")


@dataclass(frozen=True)
class Learned:
    """Settings, satisfaction model and item models of an earlier build, and why they still hold."""

    settings: Settings
    model: SatisfactionModel
    items: TakenOver
    cells: Cells | None
    kept: dict[str, str]
    why: str


def basis(
    con: duckdb.DuckDBPyConnection, found: dict[str, Model], as_of: datetime, marks: tuple[int, int]
) -> dict[str, Any]:
    """What a build learns from, in figures: the ``learned`` of its settings.

    ``marks``: the last event_seq and feedback_seq. ``rows``: events, feedback and impressions up to the moment.
    ``definition`` stands for the SQL of all models, what features mean, the event types and the version of m6rec.
    """
    event_seq, feedback_seq = marks
    events, feedback, rows, items, forgotten, kinds = one(
        con,
        "select (select count(*) from m6.events where event_seq <= $events), "
        "(select count(*) from m6.feedback where feedback_seq <= $feedback), "
        "(select count(*) from m6.events where event_seq <= $events and happened_at <= $as_of) "
        "+ (select count(*) from m6.feedback where feedback_seq <= $feedback and happened_at <= $as_of) "
        "+ (select count(*) from m6.impressions where shown_at <= $as_of), (select count(*) from m6.items), "
        "(select count(*) from m6.audit where action = 'forget_user'), "
        "(select cast(bit_xor(hash(t)) as varchar) from m6.event_types as t)",
        {"events": event_seq, "feedback": feedback_seq, "as_of": as_of},
    )
    text = "\n".join(f"{name}\n{found[name].sql}" for name in sorted(found))
    return {
        "as_of": as_of.isoformat(),
        "marks": list(marks),
        "events": events,
        "feedback": feedback,
        "rows": rows,
        "items": items,
        "forgotten": forgotten,
        "definition": hashlib.sha256(f"{__version__}\n{MEANING}\n{text}\n{kinds}".encode()).hexdigest(),
    }


def in_force(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    now: dict[str, Any],
    found: dict[str, Model],
    items: dict[str, Any],
    text: np.ndarray,
    *,
    known_texts: ItemTexts | None = None,
) -> Learned | None:
    """What the version in force has learned, if it still holds for a build with these settings and this ``basis``.

    ``items``, ``text``: columns of ``moment.catalogue`` and the items' text vectors. ``known_texts``: which of these
    are those of the version in force, where that was seen; else they are compared.

    It holds where nothing that it was learned from was deleted or edited and nobody was forgotten, behaviour with
    impressions and the items have grown by less than 5 % each since, and settings, SQL and event types are the same.
    """
    version, stored = one(
        con,
        "select a.model_version, m.parameters from m6.active as a "
        "left join m6.models as m on a.model_version = m.model_version",
    )
    before = json.loads(stored) if stored else {}
    then = before.get("learned")
    if not then or any(before.get(name, LATER.get(name)) != getattr(settings, name) for name in (*GIVEN, *LATER)):
        return None
    edited = one(con, "select count(*) from m6.history_edits")[0]
    if (
        not histories.are_tables(con)
        or edited
        or then["as_of"] > now["as_of"]
        or then["definition"] != now["definition"]
    ):
        return None
    left = basis(con, found, datetime.fromisoformat(then["as_of"]), tuple(then["marks"]))
    if any(left[name] != then[name] for name in ("events", "feedback", "forgotten")):
        return None
    growth = {name: now[name] / max(then[name], 1) - 1 for name in ("rows", "items")}
    if not all(0 <= grown < MOST_GROWTH for grown in growth.values()):
        return None
    chosen = replace(settings, **{name: before[name] for name in CHOSEN}, learned=then)
    why = (
        f"as version {then['version']} learned it: behaviour has grown by {growth['rows']:.1%} since, "
        f"less than {MOST_GROWTH:.0%}"
    )
    try:
        parts = artefacts.read(con, version, ["satisfaction"])
        model = SatisfactionModel.from_json(bytes(parts["satisfaction"]).decode())
        is_same_text = known_texts.is_known if known_texts and known_texts.version == version else None
        taken = TakenOver(con, version, chosen, items, text, is_same_text)
        cells, kept = _cells(con, version) if "text" in taken.kept else (None, {})
    except (NotBuiltError, CorruptError, KeyError):  # of another version of m6rec, or broken: learned again
        return None
    return Learned(chosen, model, taken, cells, kept, why) if model.features == FEATURES else None


def _cells(con: duckdb.DuckDBPyConnection, version: int) -> tuple[Cells | None, dict[str, str]]:
    """The cells of a version, and the content hashes of their artefacts."""
    hashes = {name: digest for name, digest in artefacts.hashes(con, version).items() if name.startswith("cells.")}
    return cells_of(artefacts.read(con, version, hashes)), hashes
