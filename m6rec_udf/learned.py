"""What a build takes over from the version in force where little has changed since that was learned.

Looking back at past moments is the longest part of a build, and what it teaches (the settings of item-item, the
satisfaction model) changes slowly. A rebuild that takes it over still computes features, item models, candidates and
vectors from all behaviour.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from m6rec_udf import __version__
from m6rec_udf.errors import NotBuiltError
from m6rec_udf.models import Model
from m6rec_udf.query import one
from m6rec_udf.satisfaction import SatisfactionModel

if TYPE_CHECKING:
    import duckdb

    from m6rec_udf.moment import Settings

MOST_GROWTH = 0.05  # of behaviour and impressions
GIVEN = ("positive_at", "repeats_allowed", "strategies", "encoder", "satisfaction", "seed", "in_sql", "lightgbm")
CHOSEN = ("regularisation", "neighbours", "tail_weight", "trend_power", "trend_column")


@dataclass(frozen=True)
class Learned:
    """Settings and satisfaction model of an earlier build, and why they still hold."""

    settings: Settings
    model: SatisfactionModel
    why: str


def basis(
    con: duckdb.DuckDBPyConnection, found: dict[str, Model], as_of: datetime, marks: tuple[int, int], behaviour: int
) -> dict[str, Any]:
    """What a build learns from, in figures: the ``learned`` of its settings.

    Args:
        marks: the last event_seq and feedback_seq.
        behaviour: rows read.

    ``definition`` stands for the SQL of all models, the event types and the version of m6rec.
    """
    events, feedback, impressions, items, forgotten, kinds = one(
        con,
        "select (select count(*) from m6.events where event_seq <= ?), "
        "(select count(*) from m6.feedback where feedback_seq <= ?), "
        "(select count(*) from m6.impressions where shown_at <= ?), (select count(*) from m6.items), "
        "(select count(*) from m6.audit where action = 'forget_user'), "
        "(select cast(bit_xor(hash(t)) as varchar) from m6.event_types as t)",
        [*marks, as_of],
    )
    text = "\n".join(f"{name}\n{found[name].sql}" for name in sorted(found))
    return {
        "as_of": as_of.isoformat(),
        "marks": list(marks),
        "events": events,
        "feedback": feedback,
        "rows": behaviour + impressions,
        "items": items,
        "forgotten": forgotten,
        "definition": hashlib.sha256(f"{__version__}\n{text}\n{kinds}".encode()).hexdigest(),
    }


def in_force(
    con: duckdb.DuckDBPyConnection, settings: Settings, now: dict[str, Any], found: dict[str, Model]
) -> Learned | None:
    """What the version in force has learned, if it still holds for a build with these settings and this ``basis``.

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
    if not then or any(before.get(name) != getattr(settings, name) for name in GIVEN):
        return None
    tables = one(
        con,
        "select count(*) from duckdb_tables() where database_name = current_database() and schema_name = 'm6' "
        "and table_name in ('events', 'feedback', 'impressions', 'event_types')",
    )[0]
    edited = one(con, "select count(*) from m6.history_edits")[0]
    if tables < 4 or edited or then["as_of"] > now["as_of"] or then["definition"] != now["definition"]:
        return None
    left = basis(con, found, datetime.fromisoformat(then["as_of"]), tuple(then["marks"]), 0)
    if any(left[name] != then[name] for name in ("events", "feedback", "forgotten")):
        return None
    growth = {name: now[name] / max(then[name], 1) - 1 for name in ("rows", "items")}
    if not all(0 <= grown < MOST_GROWTH for grown in growth.values()):
        return None
    row = one(con, "select content from m6.artefacts where model_version = ? and name = 'satisfaction'", [version])
    try:
        model = SatisfactionModel.from_json(row[0].decode()) if row[0] else None
    except NotBuiltError:  # of another version of m6rec
        model = None
    if model is None:
        return None
    chosen = {name: before[name] for name in CHOSEN}
    why = (
        f"as version {then['version']} learned it: behaviour has grown by {growth['rows']:.1%} since, "
        f"less than {MOST_GROWTH:.0%}"
    )
    return Learned(replace(settings, **chosen, learned=then), model, why)
