"""The columns `load` knows, and the SQL that brings each source type to its contract type.

An expression reads ``raw_<column>`` and gives the contract value, or NULL; a check tells why a row is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from m6rec_udf.sources import literal


@dataclass(frozen=True)
class Column:
    """One column of the contract: kind is id, text, time, number, flag, tags or json."""

    name: str
    kind: str
    is_required: bool = False
    default: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """What `load` knows of one table.

    Attributes:
        key: columns of the key; a row of a log (events, feedback) may lack it.
        columns: every column that can be given.
        rules: (condition, reason) over the contract columns; the first that holds refuses the row.
        is_log: rows are appended; otherwise they are inserted or updated by key.
        has_extras: columns the contract does not know go to ``attributes``.
    """

    key: tuple[str, ...]
    columns: tuple[Column, ...]
    rules: tuple[tuple[str, str], ...] = ()
    is_log: bool = False
    has_extras: bool = False

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


_TIME = Column("happened_at", "time", is_required=True, aliases=("ts", "timestamp"))
_TYPE = Column("event_type", "id")
_VALUE = Column("value", "number")

CONTRACTS: dict[str, Contract] = {
    "event_types": Contract(
        key=("event_type",),
        columns=(
            Column("event_type", "id", is_required=True),
            Column("interest", "number", is_required=True),
            Column("satisfaction", "number", is_required=True),
            Column("value_low", "number"),
            Column("value_high", "number"),
            Column("unit", "text"),
            Column("description", "text"),
        ),
        rules=(
            ("interest is null", "interest is empty"),
            ("satisfaction is null", "satisfaction is empty"),
            ("satisfaction not between 0 and 1", "satisfaction is outside [0, 1]"),
            ("value_low >= value_high", "value_low is not below value_high"),
        ),
    ),
    "items": Contract(
        key=("item_id",),
        columns=(
            Column("item_id", "id", is_required=True),
            Column("domain", "text", default="'default'"),
            Column("title", "text"),
            Column("description", "text", aliases=("text",)),
            Column("category", "text"),
            Column("brand", "text"),
            Column("tags", "tags"),
            Column("price", "number"),
            Column("image_path", "text"),
            Column("created_at", "time"),
            Column("is_available", "flag", default="true"),
            Column("attributes", "json"),
        ),
        has_extras=True,
    ),
    "users": Contract(
        key=("user_id",),
        columns=(
            Column("user_id", "id", is_required=True),
            Column("segment", "text"),
            Column("profile", "text"),
            Column("attributes", "json"),
        ),
        has_extras=True,
    ),
    "relations": Contract(
        key=("user_id", "other_user_id", "kind"),
        columns=(
            Column("user_id", "id", is_required=True),
            Column("other_user_id", "id", is_required=True),
            Column("kind", "text", default="'follows'"),
            Column("weight", "number", default="1.0"),
        ),
        rules=(
            ("user_id = other_user_id", "relation of a user to oneself"),
            ("not weight > 0", "weight is not above 0"),
        ),
    ),
    "events": Contract(
        key=("event_id",),
        columns=(
            Column("event_id", "id"),
            Column("user_id", "id", is_required=True),
            Column("item_id", "id", is_required=True),
            _TYPE,
            _VALUE,
            _TIME,
        ),
        is_log=True,
    ),
    "feedback": Contract(
        key=("feedback_id",),
        columns=(
            Column("feedback_id", "id"),
            Column("impression_id", "id"),
            Column("request_id", "id"),
            Column("user_id", "id"),
            Column("item_id", "id"),
            Column("event_type", "id", is_required=True),
            _VALUE,
            _TIME,
            Column("ingested_at", "time"),
        ),
        rules=(
            (
                "impression_id is null and (item_id is null or (request_id is null and user_id is null))",
                "names no impression_id, and no item_id with a request_id or user_id",
            ),
        ),
        is_log=True,
    ),
}

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_FAMILIES = {
    **dict.fromkeys(_INTEGERS | {f"U{name}" for name in _INTEGERS} | {"BIGNUM"}, "integer"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "timestamp"),
    **dict.fromkeys(("VARCHAR", "UUID", '"NULL"', "NULL"), "text"),
    "TIMESTAMP WITH TIME ZONE": "timestamp_tz",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "JSON": "json",
}
_NUMERIC = {"integer", "float", "decimal"}
ACCEPTS = {
    "id": {"text", "json", "integer", "float", "decimal", "boolean", "date", "timestamp", "timestamp_tz"},
    "text": {"text", "json", "integer", "float", "decimal", "boolean", "date", "timestamp", "timestamp_tz"},
    "time": {"text", "json", "integer", "float", "decimal", "date", "timestamp", "timestamp_tz"},
    "number": {"text", "json", "integer", "float", "decimal", "boolean"},
    "flag": {"text", "json", "integer", "float", "decimal", "boolean"},
    "tags": {"text", "json", "list"},
    "json": {"text", "json", "struct", "list"},
}
KIND_WORDS = {
    "id": "text or a number",
    "text": "text or a number",
    "time": "a timestamp, a date, ISO text or epoch seconds",
    "number": "a number",
    "flag": "true or false",
    "tags": "a list of text, or text parted by |",
    "json": "JSON or a struct",
}


def family(type_name: str) -> str:
    """What a DuckDB type is to the loader: text, integer, float, decimal, boolean, date, timestamp, ..."""
    if type_name.endswith("]"):
        return "list"
    head = type_name.split("(", maxsplit=1)[0].strip()
    if head in {"STRUCT", "MAP"}:
        return "struct"
    return {"DECIMAL": "decimal", "ENUM": "text"}.get(head) or _FAMILIES.get(head, "other")


def raw_expression(quoted: str, kind: str, of_family: str) -> str:
    """The source column as it is carried beside its contract value: JSON scalars become text."""
    if of_family == "json" and kind not in {"json", "tags"}:
        return f"({quoted} ->> '$')"
    if of_family in {"text", "json"} and kind != "json":
        return f"cast({quoted} as varchar)"
    return quoted


def expression(column: Column, of_family: str) -> str:
    """SQL from ``raw_<column>`` to the contract type; NULL where the value does not fit."""
    raw = f"raw_{column.name}"
    text = {
        "id": _text,
        "text": _text,
        "time": _time,
        "number": _number,
        "flag": _flag,
        "tags": _tags,
        "json": _json,
    }[column.kind](raw, of_family)
    return text if column.default is None else f"coalesce({text}, {column.default})"


def _text(raw: str, of_family: str) -> str:
    if of_family == "float":
        whole = f"isfinite({raw}) and {raw} = trunc({raw}) and abs({raw}) < 1e15"
        return (
            f"case when {whole} then cast(try_cast({raw} as bigint) as varchar) "
            f"when isfinite({raw}) then cast({raw} as varchar) end"
        )
    if of_family == "decimal":
        whole = f"cast(case when {raw} = trunc({raw}) then try_cast({raw} as hugeint) end as varchar)"
        return f"coalesce({whole}, cast({raw} as varchar))"
    if of_family in {"text", "json"}:
        return f"case when trim({raw}) <> '' then {raw} end"
    return f"cast({raw} as varchar)"


def _epoch(number: str) -> str:
    """Epoch seconds, milliseconds, microseconds or nanoseconds, told apart by size, as a timestamp.

    A number beyond the year 2200 in its unit gives 2200-01-01, which the time check refuses.
    """
    micros = (
        f"case when {number} > 1e17 then {number} / 1e3 when {number} > 1e14 then {number} "
        f"when {number} > 1e11 then {number} * 1e3 else {number} * 1e6 end"
    )
    bounded = f"greatest(-62135596800e6, least(7258118400e6, round({micros})))"
    return f"case when isfinite({number}) then make_timestamp(cast({bounded} as bigint)) end"


def _time(raw: str, of_family: str) -> str:
    if of_family in _NUMERIC:
        return _epoch(f"cast({raw} as double)")
    if of_family in {"text", "json"}:
        as_time = f"make_timestamp(epoch_us(try_cast({raw} as timestamptz)))"
        return f"coalesce({as_time}, {_epoch(f'try_cast({raw} as double)')})"
    if of_family == "timestamp_tz":
        return f"make_timestamp(epoch_us({raw}))"
    return f"case when isfinite({raw}) then try_cast({raw} as timestamp) end"


def _number(raw: str, of_family: str) -> str:
    if of_family in {"text", "json"}:
        return f"try_cast({raw} as double)"
    return f"cast({raw} as double)"


def _flag(raw: str, of_family: str) -> str:
    if of_family in {"text", "json"}:
        return f"try_cast(trim({raw}) as boolean)"
    return raw if of_family == "boolean" else f"({raw} <> 0)"


def _tags(raw: str, of_family: str) -> str:
    if of_family == "list":
        parts = f"try_cast({raw} as varchar[])"
    else:
        as_json = f"try_cast(case when json_valid({raw}) then cast({raw} as json) end as varchar[])"
        parts = f"coalesce(case when {raw} like '[%' then {as_json} end, string_split({raw}, '|'))"
    return f"list_filter(list_transform({parts}, lambda part: trim(part)), lambda part: part <> '')"


def _json(raw: str, of_family: str) -> str:
    if of_family in {"text", "json"}:
        return f"case when json_valid(cast({raw} as varchar)) then cast({raw} as json) end"
    return f"to_json({raw})"


def checks(column: Column, of_family: str, *, is_key: bool) -> list[tuple[str, str]]:
    """(condition, reason) pairs that refuse a row for what one column holds."""
    name, raw = column.name, f"raw_{column.name}"
    is_text = of_family in {"text", "json"}
    given = f"trim({raw}) <> ''" if is_text else f"{raw} is not null"
    found: list[tuple[str, str]] = []
    if column.kind == "id" and (column.is_required or is_key):
        found.append((f"{name} is null", f"{name} is empty"))
    if column.kind == "time":
        if column.is_required:
            found.append((f"{raw} is null" + (f" or trim({raw}) = ''" if is_text else ""), f"{name} is empty"))
        found.append((f"{given} and {name} is null", f"{name} is not a time"))
        if column.is_required:  # an item may be older than that, behaviour in a data set is not
            found.append((f"{name} < timestamp '1970-01-01'", f"{name} is before 1970"))
        found.append((f"{name} >= timestamp '2200-01-01'", f"{name} is after 2200"))
    if column.kind == "number":
        if is_text:
            found.append((f"{given} and try_cast({raw} as double) is null", f"{name} is not a number"))
        if is_text or of_family == "float":
            found.append((f"not isfinite({name})", f"{name} is NaN or infinite"))
    if column.kind == "flag" and is_text:
        found.append((f"{given} and try_cast(trim({raw}) as boolean) is null", f"{name} is not true or false"))
    if column.kind == "json" and is_text:
        found.append((f"{given} and {name} is null", f"{name} is not JSON"))
    return found


def as_json(quoted: str, of_family: str) -> str:
    """A source column as JSON; NaN and infinity, which JSON lacks, become text."""
    if of_family == "float":
        return f"case when isfinite({quoted}) then to_json({quoted}) else to_json(cast({quoted} as varchar)) end"
    return f"to_json({quoted})"


def row_as_json(columns: dict[str, str]) -> str:
    """SQL of a JSON object, from expressions by name."""
    pairs = ", ".join(f"{literal(name)}, {text}" for name, text in columns.items())
    return f"json_object({pairs})"
