"""Match what somebody hands to `load` with the contract: every mistake at once, then one query per table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from m6rec_udf import load_columns
from m6rec_udf.errors import SchemaError
from m6rec_udf.load_columns import CONTRACTS, Contract, family
from m6rec_udf.sources import Source, literal, quote

_WIDE_ALIASES = {"buy": "purchase"}
_NULLS = {"time": "timestamp", "number": "double", "flag": "boolean", "tags": "varchar[]", "json": "json"}


@dataclass(frozen=True)
class EventTypes:
    """Names of the known event types; `graded` are those whose value says how good it was."""

    names: frozenset[str]
    graded: frozenset[str]


@dataclass
class Plan:
    """How one source becomes rows of one contract table.

    Attributes:
        picks: source column by contract column.
        constants: SQL of a contract column the source lacks.
        wide: event type by source column, where one row holds several events.
        extras: source columns that go to ``attributes``.
        parameters: values of the ``$parameters`` of the query.
    """

    source: Source
    contract: Contract
    picks: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    wide: dict[str, str] = field(default_factory=dict)
    extras: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """Name of the contract table."""
        return self.source.table

    @property
    def columns(self) -> list[str]:
        """Contract columns the staged rows have: all of a log, else those given and the key."""
        names = [column.name for column in self.contract.columns]
        if self.contract.is_log:
            return names
        has = set(self.picks) | set(self.constants) | ({"attributes"} if self.extras else set())
        return [name for name in names if name in has]


def make_plans(
    sources: Sequence[Source],
    *,
    columns: Mapping[str, Mapping[str, str]],
    wide: Mapping[str, str] | None,
    default_time: datetime | None,
    known: EventTypes,
) -> list[Plan]:
    """One plan per source.

    Raises:
        SchemaError: names every column that is missing, unknown, named twice or of a wrong type, in every table.
    """
    mistakes: list[str] = []
    hints: list[str] = []
    given = {source.table for source in sources}
    for table in columns:
        if table not in given:
            mistakes.append(f"columns: found {table!r}, expected a table that is loaded: {', '.join(sorted(given))}")
    if wide is not None and "events" not in given:
        mistakes.append("wide: found no events, expected the frame whose columns it names")
    plans = []
    for source in sources:
        plan = Plan(source, CONTRACTS[source.table])
        mistakes += _pick(plan, columns.get(source.table, {}))
        if source.table == "events":
            mistakes += _pick_wide(plan, wide, known)
        if default_time is not None and plan.contract.is_log and "happened_at" not in plan.picks:
            plan.constants["happened_at"] = "cast($default_time as timestamp)"
            plan.parameters["default_time"] = default_time
        _fill_defaults(plan)
        mistakes += _wrong_types(plan)
        missing = [c.name for c in plan.contract.columns if c.is_required and c.name not in plan.picks | plan.constants]
        if missing:
            mistakes.append(
                f"{source.table}: found {', '.join(source.columns) or 'no columns'}, expected {_and(missing)}"
            )
            hints.append(_mapping_hint(plan, missing))
        plans.append(plan)
    if mistakes:
        hint = " ".join(hints) or f"contract columns: {'; '.join(_contract_line(t) for t in sorted(given))}"
        raise SchemaError("\n".join(mistakes), hint)
    return plans


def _pick(plan: Plan, mapping: Mapping[str, str]) -> list[str]:
    """Match source columns with contract columns: by mapping, then by name, then by another usual name."""
    mistakes = []
    table, contract = plan.table, plan.contract
    by_lower = {name.lower(): name for name in plan.source.columns}
    names = [column.name for column in contract.columns]
    for found, target in mapping.items():
        name = found if found in plan.source.columns else by_lower.get(found.lower())
        if name is None:
            mistakes.append(f"{table}: columns maps {found!r}, expected one of {', '.join(plan.source.columns)}")
        elif target not in names:
            mistakes.append(f"{table}: columns maps {found!r} to {target!r}, expected one of {', '.join(names)}")
        elif target in plan.picks:
            mistakes.append(f"{table}: columns maps {plan.picks[target]!r} and {name!r} to {target!r}, expected one")
        else:
            plan.picks[target] = name
    used = set(plan.picks.values())
    for column in contract.columns:
        for name in (by_lower.get(alias) for alias in (column.name, *column.aliases)):
            if name is not None and name not in used and column.name not in plan.picks:
                plan.picks[column.name] = name
                used.add(name)
    if contract.has_extras:
        plan.extras = [name for name in plan.source.columns if name not in used]
    return mistakes


def _pick_wide(plan: Plan, wide: Mapping[str, str] | None, known: EventTypes) -> list[str]:
    """Columns of a wide frame (one row per user and item) and the event type each stands for."""
    columns = plan.source.columns
    if wide is None:
        used = set(plan.picks.values())
        usual = {**{name: name for name in known.names}, **_WIDE_ALIASES}
        found = {name: usual[name.lower()] for name in columns if name.lower() in usual and name not in used}
        if "event_type" in plan.picks or not found:
            return []
        wide = found
    mistakes = []
    by_lower = {name.lower(): name for name in columns}
    for name, event_type in wide.items():
        column = name if name in columns else by_lower.get(name.lower())
        if column is None:
            mistakes.append(f"events: wide names {name!r}, expected one of {', '.join(columns)}")
        elif family(columns[column]) not in load_columns.ACCEPTS["number"]:
            mistakes.append(
                f"events: found {column} of type {columns[column]}, expected a number or true/false per cell"
            )
        else:
            plan.wide[column] = event_type
    clash = [plan.picks[name] for name in ("event_type", "value") if name in plan.picks]
    if clash:
        mistakes.append(
            f"events: found {', '.join(clash)} beside the columns {', '.join(wide)}, expected either one row per event "
            "(event_type, value) or one column per event type: map event_type, or leave out the other columns"
        )
    return mistakes


def _fill_defaults(plan: Plan) -> None:
    """Constants for columns that the source lacks and the contract has a default for."""
    absent = [column for column in plan.contract.columns if column.name not in plan.picks | plan.constants]
    for column in absent:
        if column.name == "event_type" and plan.table == "events" and not plan.wide:
            plan.constants["event_type"] = "'rating'" if "value" in plan.picks else "'view'"
        elif column.default is not None and column.name in plan.contract.key:
            plan.constants[column.name] = column.default
        elif (
            plan.contract.is_log
            and not column.is_required
            and not (plan.wide and column.name in {"event_type", "value"})
        ):
            plan.constants[column.name] = f"cast(null as {_NULLS.get(column.kind, 'varchar')})"


def _wrong_types(plan: Plan) -> list[str]:
    """Mistakes: columns whose type cannot be brought to the contract's."""
    mistakes = []
    for name, found in plan.picks.items():
        column = plan.contract.column(name)
        type_name = plan.source.columns[found]
        if family(type_name) not in load_columns.ACCEPTS[column.kind]:
            expected = load_columns.KIND_WORDS[column.kind]
            mistakes.append(f"{plan.table}: found {found} of type {type_name}, expected {expected} for {name}")
    return mistakes


def _mapping_hint(plan: Plan, missing: list[str]) -> str:
    """An example of `columns=` with the nearest names."""
    used = set(plan.picks.values())
    free = [name for name in plan.source.columns if name not in used]
    pairs = {}
    for name in missing:
        near = difflib.get_close_matches(name, free, n=1, cutoff=0.4) or free[:1] or ["your_column"]
        free = [other for other in free if other != near[0]]
        pairs[near[0]] = name
    text = ", ".join(f'"{found}": "{name}"' for found, name in pairs.items())
    hint = f'map the columns, for example columns={{"{plan.table}": {{{text}}}}}'
    return hint + ("; or pass default_time=..." if "happened_at" in missing else "") + "."


def _and(names: list[str]) -> str:
    """Names as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _contract_line(table: str) -> str:
    """Columns of one contract table."""
    return f"{table} has {', '.join(column.name for column in CONTRACTS[table].columns)}"


def stage_query(plan: Plan, known: EventTypes) -> tuple[str, dict[str, Any]]:
    """The SELECT that reads the source once: contract columns, the reason a row is refused, and then the row.

    Returns:
        The SQL and its parameters. Columns: those of ``plan.columns``, reason, content (the row as JSON text).
    """
    columns = plan.source.columns
    carried = dict.fromkeys([*plan.picks.values(), *plan.wide, *plan.extras])
    slots = {name: f"source_{position}" for position, name in enumerate(carried)}
    given = ", ".join(f"{quote(name)} as {slot}" for name, slot in slots.items())
    raws = [
        load_columns.raw_expression(slots[found], plan.contract.column(name).kind, family(columns[found]))
        + f" as raw_{name}"
        for name, found in plan.picks.items()
    ]
    typed = [f"{_typed(plan, name, slots)} as {name}" for name in plan.columns]
    content = load_columns.row_as_json(
        {name: load_columns.as_json(slot, family(columns[name])) for name, slot in slots.items()}
    )
    wide_cells = f", unnest([{', '.join(_cells(plan, slots, known))}]) as cell" if plan.wide else ""
    query = f"""
with
given as (select {given} from {plan.source.relation}),
cells as (select *{wide_cells} from given),
raw_rows as (select {", ".join(["*", *raws])} from cells{" where cell.is_kept" if plan.wide else ""}),
typed_rows as (select *, {", ".join(typed)} from raw_rows),
checked as (select *, {_reason(plan, known)} as reason from typed_rows)
select {", ".join(plan.columns)}, reason, case when reason is not null then cast({content} as varchar) end as content
from checked
"""
    return query, {**plan.source.parameters, **plan.parameters}


def _typed(plan: Plan, name: str, slots: dict[str, str]) -> str:
    """SQL of one contract column."""
    column = plan.contract.column(name)
    if plan.wide and name in {"event_type", "value"}:
        return f"cell.{name}"
    found = plan.picks.get(name)
    text = plan.constants.get(name, "null")
    if found is not None:
        text = load_columns.expression(column, family(plan.source.columns[found]))
    if plan.wide and name == "event_id" and found is not None:
        return f"{text} || ':' || cell.event_type"
    if name == "attributes" and plan.extras:
        extras = load_columns.row_as_json(
            {extra: _extra(slots[extra], family(plan.source.columns[extra])) for extra in plan.extras}
        )
        return f"json_merge_patch(coalesce({text}, cast('{{}}' as json)), {extras})"
    return text


def _extra(slot: str, of_family: str) -> str:
    """An attribute as JSON; NaN and infinity are left out."""
    return f"to_json(case when isfinite({slot}) then {slot} end)" if of_family == "float" else f"to_json({slot})"


def _cells(plan: Plan, slots: dict[str, str], known: EventTypes) -> list[str]:
    """One struct per event a wide row can hold, and one for a row that holds none."""
    cells, kept = [], []
    for name, event_type in plan.wide.items():
        slot, of_family = slots[name], family(plan.source.columns[name])
        number = f"cast({slot} as double)"
        problem = "cast(null as varchar)"
        if of_family in {"text", "json"}:
            text = f"trim({slot} ->> '$')" if of_family == "json" else f"trim({slot})"
            number = f"coalesce(try_cast({text} as double), cast(try_cast({text} as boolean) as double))"
            problem = f"case when {text} <> '' and {number} is null then {literal(f'{name} is not a number')} end"
        is_kept = f"coalesce({number} <> 0, false) or {problem} is not null"
        value = number
        if event_type not in known.graded:
            problem = f"coalesce({problem}, case when {number} < 0 then {literal(f'{name} is below 0')} end)"
            value = f"case when {number} <> 1 then {number} end"
        kept.append(f"({is_kept})")
        cells.append(_cell(literal(event_type), value, problem, is_kept))
    nothing = literal("no event in the row: every cell is empty or 0")
    cells.append(_cell("cast(null as varchar)", "cast(null as double)", nothing, f"not ({' or '.join(kept)})"))
    return cells


def _cell(event_type: str, value: str, problem: str, is_kept: str) -> str:
    """SQL of one struct."""
    return f"{{'event_type': {event_type}, 'value': {value}, 'problem': {problem}, 'is_kept': {is_kept}}}"


def _reason(plan: Plan, known: EventTypes) -> str:
    """SQL CASE: why a row is refused, NULL where it fits."""
    branches: list[str] = ["when cell.problem is not null then cell.problem"] if plan.wide else []
    key = () if plan.contract.is_log else plan.contract.key
    rules: list[tuple[str, str]] = []
    for name, found in plan.picks.items():
        of_family = family(plan.source.columns[found])
        rules += load_columns.checks(plan.contract.column(name), of_family, is_key=name in key)
    if plan.wide:
        rules.append(("not isfinite(value)", "value is NaN or infinite"))
    if plan.contract.is_log:
        names = ", ".join(sorted(known.names))
        rules.append(("event_type is null", "event_type is empty"))
        rules.append(
            (
                "event_type not in (select known.event_type from m6.event_types as known)",
                f"unknown event_type, expected one of {names}",
            )
        )
    rules += [rule for rule in plan.contract.rules if plan.table == "feedback" or _has(plan, rule[0])]
    branches += [f"when {condition} then {literal(reason)}" for condition, reason in rules]
    return f"case {' '.join(branches)} end" if branches else "cast(null as varchar)"


def _has(plan: Plan, condition: str) -> bool:
    """Whether the staged rows have the columns a rule speaks of."""
    absent = {column.name for column in plan.contract.columns} - set(plan.columns)
    return not absent & set(condition.replace("=", " ").split())
