"""Print tables, progress and log lines on a terminal, with the standard library alone."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import duckdb

BAR_WIDTH = 24
MAX_CELL = 60


def cell(value: Any, *, width: int = MAX_CELL) -> str:
    """A value as one short line of text: floats with four digits, None as a dash, long text cut."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int = MAX_CELL) -> str:
    """Columns and rows as aligned text; numbers to the right.

    >>> print(format_table(["user", "n"], [("u1", 3), ("u22", 12)]))
    user   n
    ----  --
    u1     3
    u22   12
    """
    lines = [[cell(value, width=width) for value in row] for row in rows]
    widths = [max([len(name), *(len(line[i]) for line in lines)]) for i, name in enumerate(columns)]
    right = [
        any(isinstance(row[i], int | float) for row in rows)
        and all(row[i] is None or isinstance(row[i], int | float) for row in rows)
        for i in range(len(columns))
    ]

    def line_of(values: Sequence[str]) -> str:
        padded = (
            value.rjust(size) if is_number else value.ljust(size)
            for value, size, is_number in zip(values, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line_of(list(columns)), "  ".join("-" * size for size in widths), *map(line_of, lines)])


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None, width: int = MAX_CELL
) -> None:
    """Print a table, or that it has no rows."""
    if title:
        print(title)
    print(format_table(columns, rows, width=width) if rows else "(no rows)")


def print_result(result: Any, *, title: str | None = None) -> None:
    """Print whatever a verb returns: a relation, a mapping, a dataclass, a list of these, or a plain value."""
    if result is None:
        return
    if isinstance(result, duckdb.DuckDBPyRelation):
        print_table(result.columns, result.fetchall(), title=title)
    elif isinstance(result, Mapping) or (dataclasses.is_dataclass(result) and not isinstance(result, type)):
        record = _record(result)
        nested = {name: value for name, value in record.items() if _is_rows(value)}
        print_table(["name", "value"], [row for row in record.items() if row[0] not in nested], title=title)
        for name, rows in nested.items():
            print_result(rows, title=f"\n{name}")
    elif _is_rows(result):
        records = [_record(row) for row in result]
        columns = list(dict.fromkeys(name for record in records for name in record))
        print_table(columns, [[record.get(name) for name in columns] for record in records], title=title)
    else:
        print(f"{title}: {result}" if title else result)


def _is_rows(value: Any) -> bool:
    """Whether a value is a list of records."""
    return isinstance(value, list | tuple) and bool(value) and not isinstance(value[0], str | int | float)


def _record(row: Any) -> dict[str, Any]:
    """One printable record of a mapping, a dataclass or a tuple."""
    if isinstance(row, Mapping):
        return {str(name): value for name, value in row.items()}
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    names = getattr(row, "_fields", None) or [f"column{i}" for i in range(len(row))]
    return dict(zip(names, row, strict=True))


def log(text: str, *, out: TextIO | None = None) -> None:
    """One line with the time (UTC) before it, flushed at once."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    print(f"{now} {text}", file=out or sys.stdout, flush=True)


class Progress:
    """A callback ``progress(step, done, total)``, called whenever a part of a step is done.

    A bar on a terminal; elsewhere one line per finished step, with its seconds.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.is_terminal = self.out.isatty()
        self.step: str | None = None
        self.began = self.last = time.monotonic()

    def __call__(self, step: str, done: float | None = None, total: float | None = None) -> None:
        """Show how far a step is."""
        if step != self.step:
            self.close()
            self.step, self.began = step, self.last
        self.last = time.monotonic()
        if self.is_terminal:
            self.out.write(f"\r\x1b[2K{self._line(done, total)}")
            self.out.flush()

    def _line(self, done: float | None, total: float | None) -> str:
        if not total or done is None:
            return f"{self.step} ..."
        share = min(1.0, max(0.0, done / total))
        filled = round(share * BAR_WIDTH)
        return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%} {self.step}"

    def close(self) -> None:
        """Finish the running step: its name and the seconds it took."""
        if self.step is None:
            return
        start = "\r\x1b[2K" if self.is_terminal else ""
        self.out.write(f"{start}{self.step} {self.last - self.began:.1f} s\n")
        self.out.flush()
        self.step = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_sql(con: duckdb.DuckDBPyConnection, text: str) -> bool:
    """Run statements and show the result of each; an error is printed and ends the text. Returns whether all ran."""
    try:
        for statement in con.extract_statements(text):
            relation = con.sql(_without_end(statement.query))
            if relation is None:
                print("done")
            else:
                relation.show()
    except duckdb.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def prompt(con: duckdb.DuckDBPyConnection) -> bool:
    """Read statements that end with ``;`` until ``.quit`` or the end of the input; errors do not end the prompt.

    Returns whether every statement ran; always True on a terminal.
    """
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # line editing and history, where Python has it
        print("Statements end with ; and .quit leaves. Try: from m6.strategies;")
    pending, is_clean = "", True
    while True:
        try:
            line = input(("m6> " if not pending else "..> ") if is_terminal else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            print()
            pending = ""
            continue
        if not pending and line.strip() in (".quit", ".exit"):
            return is_clean or is_terminal
        pending = f"{pending}{line}\n" if pending or line.strip() else ""
        if is_complete(pending):
            is_clean = run_sql(con, pending) and is_clean
            pending = ""
    if pending.strip():
        is_clean = run_sql(con, pending) and is_clean
    return is_clean or is_terminal


def is_complete(text: str) -> bool:
    """Whether a text ends with a ``;`` outside quotes and comments."""
    return _end(text) is not None


def _without_end(statement: str) -> str:
    """A statement without its ``;`` and what follows: a relation that is shown is wrapped in another query."""
    end = _end(statement)
    return statement if end is None else statement.encode("utf-8")[:end].decode("utf-8")


def _end(text: str) -> int | None:
    """Place in the UTF-8 bytes of the ``;`` that ends a text; None when it does not end."""
    try:
        tokens = duckdb.tokenize(text)
    except duckdb.Error:
        return None
    code = [start for start, kind in tokens if kind != duckdb.token_type.comment]
    return code[-1] if code and text.encode("utf-8")[code[-1] :].startswith(b";") else None
