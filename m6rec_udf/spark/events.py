"""Where data comes in: frames, tables and paths, and the events of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from m6rec_udf.errors import SchemaError
from m6rec_udf.load_columns import CONTRACTS
from m6rec_udf.spark.tables import Tables, rows_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TIMES = ("timestamp", "timestamp_ntz", "date", "string")
_CHECKED = """
select
    *,
    case
        when user_id is null or trim(user_id) = '' then 'user_id is empty'
        when item_id is null or trim(item_id) = '' then 'item_id is empty'
        when happened_at is null then 'happened_at is empty or no time'
        when event_type is null or trim(event_type) = '' then 'event_type is empty'
        when event_type not in (select event_type from m6_event_types) then 'unknown event_type'
        when isnan(value) or abs(value) = double('infinity') then 'value is NaN or infinite'
    end as reason
from {given}
"""
# rows without an id are no copies of each other: they are spread, not gathered in one window
_ONCE = """
select * except (copy) from (
    select
        *,
        row_number() over (
            partition by event_id, case when event_id is null then xxhash64(user_id, item_id, happened_at) end
            order by happened_at, user_id, item_id, event_type, value
        ) as copy
    from {given}
    where reason is null
)
where event_id is null or copy = 1
"""


def frame_of(session: SparkSession, given: Any, table: str) -> DataFrame:
    """A frame as it is; a path with a slash as Parquet; any other name as a table, also ``delta.`/lake/events```.

    Raises SchemaError: it is none of these.
    """
    if hasattr(given, "createOrReplaceGlobalTempView"):
        return cast("DataFrame", given)
    if isinstance(given, str):
        return session.read.parquet(given) if "/" in given and "`" not in given else session.table(given)
    raise SchemaError(
        f"{table} is a {type(given).__name__}, expected a Spark DataFrame, the name of a table or a path",
        f"session.createDataFrame(...) makes one; {table}='delta.`/lake/{table}`' reads a Delta path",
    )


def seen_by(own: SparkSession, frame: DataFrame, name: str) -> DataFrame:
    """A frame of another session of the same context."""
    view = f"m6_given_{name}_{id(frame):x}"
    frame.createOrReplaceGlobalTempView(view)
    return own.table(f"global_temp.{view}")


def write_events(tables: Tables, frame: DataFrame, columns: Mapping[str, str]) -> dict[str, int]:
    """The tables m6_events and rejected_events from what was given; rejected rows by reason.

    ``columns``: contract column by given column. Rows of one event_id count once, the earliest.
    """
    session = tables.session
    _in_contract(frame, columns).createOrReplaceTempView("given_events")
    session.sql(_CHECKED.format(given="given_events")).createOrReplaceTempView("checked_events")
    has_ids = "event_id" in _picked(frame.columns, columns)
    once = _ONCE.format(given="checked_events") if has_ids else "select * from checked_events where reason is null"
    tables.write("m6_events", session.sql(f"select * except (reason) from ({once})"))
    tables.write("rejected_events", session.sql("select * from checked_events where reason is not null"))
    return dict(rows_of(session.sql("select reason, count(*) from rejected_events group by reason order by reason")))


def _picked(given: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Given column by contract column: by mapping, by name, by another usual name."""
    found = {contract: name for name, contract in columns.items() if name in given}
    lower = {name.lower(): name for name in given}
    for column in CONTRACTS["events"].columns:
        for name in (column.name, *column.aliases):
            if name in lower and lower[name] not in found.values():
                found.setdefault(column.name, lower[name])
    return found


def _in_contract(frame: DataFrame, columns: Mapping[str, str]) -> DataFrame:
    """The columns of m6.events; times are UTC without a zone.

    Raises SchemaError: a column is missing or has a type that cannot be one.
    """
    from pyspark.sql import functions as f

    picked = _picked(frame.columns, columns)
    missing = [c.name for c in CONTRACTS["events"].columns if c.is_required and c.name not in picked]
    if missing:
        raise SchemaError(
            f"events: found {', '.join(frame.columns)}, expected {' and '.join(missing)}",
            f'map the columns: columns={{"events": {{"your_column": "{missing[0]}"}}}}',
        )
    kind = dict(frame.dtypes)[picked["happened_at"]]
    if kind not in TIMES:
        raise SchemaError(
            f"events: found {picked['happened_at']} of type {kind}, expected {', '.join(TIMES)}",
            "bring epoch numbers to times first: timestamp_seconds(ts)",
        )
    usual = {
        "event_id": f.lit(None).cast("string"),
        "event_type": f.lit("rating" if "value" in picked else "view"),
        "value": f.lit(None).cast("double"),
    }
    types = {"value": "double", "happened_at": "timestamp_ntz"}
    return frame.select(
        *(
            (f.col(f"`{picked[c.name]}`") if c.name in picked else usual[c.name])
            .try_cast(types.get(c.name, "string"))
            .alias(c.name)
            for c in CONTRACTS["events"].columns
        )
    )
