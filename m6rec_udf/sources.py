"""Open whatever holds rows (frames, Arrow, relations, files) as one FROM clause with column types.

Frames reach DuckDB under a view name of their own and leave it again, so nothing depends on replacement
scans. CSV and JSON are read as text: every cast is made by the loader, row by row, with a reason where it fails.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf.errors import ParameterError, SchemaError

_READERS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
# only the delimiter is guessed: a guessed quote ' or comment # joins or drops rows that merely hold one
_CSV = (
    "read_csv($paths, all_varchar = true, header = true, union_by_name = true, "
    "quote = '\"', escape = '\"', comment = '', skip = 0)"
)
_ACCEPTED = (
    "a Polars DataFrame or LazyFrame, a pyarrow Table or RecordBatchReader, a pandas DataFrame, a DuckDB relation, "
    "or a path or glob (or a list of them) of Parquet, CSV or JSON files"
)


@dataclass(frozen=True)
class Source:
    """Rows somebody hands over, ready to be named in a FROM clause.

    Attributes:
        table: contract table they are meant for.
        relation: what follows FROM.
        columns: DuckDB type by column name, in order.
        parameters: values of the ``$parameters`` in ``relation``.
    """

    table: str
    relation: str
    columns: dict[str, str]
    parameters: dict[str, Any] = field(default_factory=dict)


def quote(name: str) -> str:
    """A SQL identifier in double quotes.

    Raises:
        SchemaError: the name is empty or holds a NUL character.
    """
    if not name or "\0" in name:
        raise SchemaError(f"{name!r} is no column name, expected some text", "rename the column")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def open_source(con: duckdb.DuckDBPyConnection, table: str, data: Any) -> Iterator[Source]:
    """Make ``data`` readable by ``con`` while the context lasts.

    Raises:
        ParameterError: ``data`` is of a kind that cannot be loaded, or no file matches the path.
        SchemaError: the rows cannot be read.
    """
    if isinstance(data, str | Path) or (isinstance(data, list | tuple) and data):
        yield _open_files(con, table, data)
        return
    name = f"m6_source_{uuid.uuid4().hex}"
    _register(con, name, table, data)
    try:
        relation = quote(name)
        yield Source(table, relation, _describe(con, table, relation, {}))
    finally:
        con.unregister(name)


def _register(con: duckdb.DuckDBPyConnection, name: str, table: str, data: Any) -> None:
    """Register a frame, Arrow object or relation as a view."""
    module = type(data).__module__.split(".")[0]
    if module == "polars" and hasattr(data, "collect"):
        data = data.collect(engine="streaming")
    is_frame = module in {"polars", "pandas"} and hasattr(data, "columns")
    is_relation = isinstance(data, duckdb.DuckDBPyRelation)
    if not (is_frame or is_relation or hasattr(data, "__arrow_c_stream__")):
        raise ParameterError(f"{table}: found {type(data).__name__}, expected {_ACCEPTED}")
    data = _sound(table, data)
    try:
        con.register(name, data)
    except (duckdb.Error, TypeError) as error:
        if not is_relation:
            raise SchemaError(
                f"{table}: the rows cannot be read ({_first_line(error)}), expected {_ACCEPTED}"
            ) from error
        con.register(name, data.to_arrow_table())  # a relation of another connection


def _sound(table: str, data: Any) -> Any:
    """The rows, with text that is UTF-8: DuckDB trusts Arrow, and a broken string ends its whole instance.

    Raises SchemaError: a column holds what its type does not allow.
    """
    import pyarrow as pa

    module = type(data).__module__.split(".")[0]
    is_frame = hasattr(data, "columns")
    if module == "duckdb":
        return data
    try:
        if module == "polars" and is_frame:
            import polars as pl

            frame = data.select(~pl.selectors.object())
            frame.to_arrow(compat_level=pl.CompatLevel.newest()).validate(full=True)
        elif module == "pandas" and is_frame:
            for column in data.dtypes.index[[hasattr(dtype, "pyarrow_dtype") for dtype in data.dtypes]]:
                pa.array(data[column]).validate(full=True)
        elif isinstance(data, pa.Table | pa.RecordBatch):
            data.validate(full=True)
        else:
            return _sound_batches(table, pa.RecordBatchReader.from_stream(data))
    except pa.ArrowInvalid as error:
        raise _broken(table, error) from error
    return data


def _sound_batches(table: str, reader: Any) -> Any:
    """The batches of a reader, each looked at before it is handed on."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        for batch in reader:
            try:
                batch.validate(full=True)
            except pa.ArrowInvalid as error:
                raise _broken(table, error) from error
            yield batch

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _broken(table: str, error: BaseException) -> SchemaError:
    return SchemaError(
        f"{table}: the Arrow data is broken ({_first_line(error)}), expected text in UTF-8",
        "decode it where it is read: bytes.decode('utf-8', 'replace')",
    )


def _describe(con: duckdb.DuckDBPyConnection, table: str, relation: str, parameters: dict[str, Any]) -> dict[str, str]:
    """Type by column name."""
    try:
        rows = con.execute(f"describe select * from {relation}", parameters).fetchall()
    except duckdb.Error as error:
        raise SchemaError(
            f"{table}: the rows cannot be read ({_first_line(error)})",
            "check the path and the file, or read it yourself and pass the frame",
        ) from error
    return {str(row[0]): str(row[1]) for row in rows}


def _open_files(con: duckdb.DuckDBPyConnection, table: str, data: Any) -> Source:
    """A reader over files; CSV and JSON columns come as text."""
    paths = [str(path) for path in (data if isinstance(data, list | tuple) else [data])]
    kinds = {_file_kind(table, path) for path in paths}
    if con.execute("select current_setting('enable_external_access')").fetchall() == [(False,)]:
        raise ParameterError(
            f"{table}: found a path on a connection without external access, expected rows",
            "read the file yourself and pass the frame, or load it on a connection with external_access=True",
        )
    if len(kinds) > 1:
        raise ParameterError(f"{table}: found {', '.join(sorted(kinds))} files, expected one kind", "load them in turn")
    kind = kinds.pop()
    missing = [path for path in paths if not con.execute("select 1 from glob(?) limit 1", [path]).fetchall()]
    if missing and not any("://" in path for path in missing):
        raise ParameterError(
            f"{table}: no file matches {', '.join(missing)}, expected at least one", f"folder in use: {Path.cwd()}"
        )
    parameters = {"paths": paths}
    if kind == "parquet":
        relation = "read_parquet($paths, union_by_name = true)" if _is_many(paths) else "read_parquet($paths)"
    elif kind == "csv":
        relation = _CSV
    else:
        found = "read_json($paths, union_by_name = true, sample_size = -1, maximum_depth = 1)"
        names = _describe(con, table, found, parameters)
        as_text = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
        relation = f"read_json($paths, columns = {{{as_text}}})"
    return Source(table, relation, _describe(con, table, relation, parameters), parameters)


def _is_many(paths: list[str]) -> bool:
    """Whether more than one file may be read, whose columns may then differ in order."""
    return len(paths) > 1 or any(sign in paths[0] for sign in "*?[")


def _file_kind(table: str, path: str) -> str:
    """parquet, csv or json, by the ending of the path."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in {".gz", ".zst"}:
        suffixes.pop()
    kind = _READERS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise ParameterError(
            f"{table}: found the path {path!r}, expected an ending out of {', '.join(sorted(_READERS))}",
            "a table or view of the database is loaded as con.table(name)",
        )
    return kind


def _first_line(error: BaseException) -> str:
    """First line of a database message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
