"""Vector columns of items beside their text: pictures, sound, speech, anything that has vectors.

A build joins them to one content vector per item: the vectors of all columns, each scaled by the root of its weight,
one behind the other, the whole of unit length. So a cosine of content vectors is the weighted mean of the columns'
cosines, and all that reads the items' vectors (the semantic strategy, weights of new items, similar items) reads every
column without knowing of it. Where an item lacks a column, its part is zero.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m6rec_udf.embed import content_hash, embed_hashed, embed_queries, unit
from m6rec_udf.errors import EncoderError, ParameterError, SchemaError, UnknownNameError
from m6rec_udf.publish import quote_name
from m6rec_udf.query import one
from m6rec_udf.registry import context_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    from numpy.typing import NDArray

    from m6rec_udf.registry import Context

    Floats = NDArray[np.float32]

TEXT = "text"
Blocks = list[tuple[str, int, float]]  # (column, dimensions, weight), in the order of the content vector
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class ColumnEncoder(Protocol):
    """What m6rec needs of an encoder of a column.

    ``encode_text(list[str])`` as well where questions in words can be compared with what it encodes (CLIP does).
    A row of zeros says that an entry could not be read.
    """

    name: str

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, entries: list[str]) -> Floats:
        """Vectors of the entries of the source column, paths for instance, float32 ``[len(entries), dimension]``."""
        ...


@dataclass(frozen=True)
class Column:
    """A row of ``m6.vector_columns``."""

    name: str
    source: str
    encoder: str | None
    weight: float


def add_vectors(
    con: duckdb.DuckDBPyConnection,
    name: str,
    *,
    source: str = "image_path",
    encoder: str | Path | ColumnEncoder | None = None,
    weight: float = 1.0,
) -> None:
    """Declare a vector column; the next build embeds what is new of it and joins it to the items' vectors.

    Args:
        con: a dressed connection.
        name: picture, audio, ...
        source: what the encoder reads: a column of ``m6.items``, or ``attributes.<key>``. Entries that are files are
            known by their content, others by what they say. Without an encoder: a table or view with the columns
            item_id and vector, made elsewhere.
        encoder: a sentence-transformers model of the CLIP type, by name or path, which reads pictures and questions in
            words; or an object with ``encode``, ``dimension`` and ``name``, to be given again in every process that
            embeds something new.
        weight: of its cosine beside that of the text, which weighs 1.

    Raises:
        ParameterError: a name that is none, a weight of zero or less, or an object without ``encode``.
        UnknownNameError: neither a column of ``m6.items`` nor a table of that name.
    """
    if not _NAME.fullmatch(name) or name == TEXT:
        raise ParameterError(f"got the name {name!r}, expected lower-case letters, digits and _, and not 'text'")
    if not (np.isfinite(weight) and weight > 0):
        raise ParameterError(f"got a weight of {weight}, expected one above 0")
    if encoder is None:
        _check_table(con, source)
    else:
        _expression(con, source)
    known = as_column_encoder(encoder)
    context = context_of(con)
    if known is not None:
        context.column_encoders[name] = known
    con.execute(
        "insert or replace into m6.vector_columns values (?, ?, ?, ?)",
        [name, source, known.name if known is not None else None, float(weight)],
    )


def drop_vectors(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Take a vector column back; the build in force keeps it, the next one does without.

    Raises UnknownNameError: there is none of that name.
    """
    if one(con, "select 1 from m6.vector_columns where name = ?", [name])[0] is None:
        names = [column.name for column in declared(con)]
        raise UnknownNameError(f"there is no vector column {name!r}, expected one of {names}")
    con.execute("delete from m6.vector_columns where name = ?", [name])


def as_column_encoder(encoder: str | Path | ColumnEncoder | None) -> ColumnEncoder | None:
    """An encoder of a column from a model name or path, or an object.

    Raises ParameterError: an object without ``encode``, ``dimension`` or ``name``.
    """
    if encoder is None or not isinstance(encoder, str | Path):
        missing = [part for part in ("encode", "dimension", "name") if not hasattr(encoder, part)]
        if encoder is not None and missing:
            raise ParameterError(
                f"the encoder {type(encoder).__name__} has no {' and no '.join(missing)}, expected all three",
                "pass the name of a CLIP model of sentence-transformers to embed pictures",
            )
        return encoder
    from m6rec_udf.pictures import PictureEncoder

    return PictureEncoder(str(encoder))


def declared(con: duckdb.DuckDBPyConnection) -> list[Column]:
    """The vector columns by name."""
    rows = con.execute("select name, source, encoder, weight from m6.vector_columns order by name").fetchall()
    return [Column(*row) for row in rows]


def joined(
    con: duckdb.DuckDBPyConnection, context: Context, items: dict[str, Any], text: Floats
) -> tuple[Floats, Blocks, list[tuple[str, str, str]]]:
    """Content vectors of the items, their blocks, and what there is of each column as (name, value, reason).

    ``items`` has ``item_ids``, ``texts`` and ``hashes``; the hashes become those of all content. Without a declared
    column nothing changes, and there are no blocks.
    """
    columns = declared(con)
    if not columns:
        return text, [], []
    is_said = np.asarray([bool(words and words.strip()) for words in items["texts"]], bool)
    parts, blocks = [text * is_said[:, None]], [(TEXT, text.shape[1], 1.0)]
    found = []
    for column in columns:
        vectors, hashes = _vectors(con, context, column, items["item_ids"])
        n_there = int(vectors.any(axis=1).sum())
        why = f"{n_there} of {len(vectors)} items have one, weight {column.weight:g}; from {column.source}"
        found.append((f"vectors_{column.name}", str(column.encoder or "given"), why))
        items["hashes"] = [
            content_hash(f"{before} {column.name} {column.weight:g} {own}")
            for before, own in zip(items["hashes"], hashes, strict=True)
        ]
        parts.append(np.float32(np.sqrt(column.weight)) * vectors)
        blocks.append((column.name, vectors.shape[1], column.weight))
    return unit(np.concatenate(parts, axis=1)), blocks, found


def question(con: duckdb.DuckDBPyConnection, context: Context, blocks: Blocks, text: str, by: str | None) -> Floats:
    """A question in words as a content vector, float32 ``[d]``: a part for every column that reads words.

    Args:
        blocks: of the build that is asked; none where it has text only.
        by: a column to ask alone; None asks all.

    Raises:
        UnknownNameError: the build has no column ``by``.
        EncoderError: the encoder of the column ``by`` does not read words, or is not given in this process.
    """
    names = [name for name, _, _ in blocks] or [TEXT]
    if by is not None and by not in names:
        raise UnknownNameError(f"the build in force has no vector column {by!r}, expected one of {names}")
    said = embed_queries(con, context.encoder, [text]) if by in {None, TEXT} else np.zeros((1, 1), np.float32)
    if not blocks:
        return np.asarray(said[0])
    parts = []
    for name, dimension, weight in blocks:
        part = np.zeros(dimension, np.float32)
        if by in {None, name}:
            if name == TEXT:
                part = np.asarray(said[0])
            else:
                part = _asked(con, context, name, text, dimension, is_needed=by is not None)
        parts.append(np.float32(np.sqrt(weight)) * part)
    return np.asarray(unit(np.concatenate(parts)[None])[0])


def _asked(
    con: duckdb.DuckDBPyConnection, context: Context, name: str, text: str, dimension: int, *, is_needed: bool
) -> Floats:
    encoder = _encoder(con, context, name)
    if hasattr(encoder, "encode_text"):
        return np.asarray(unit(np.asarray(encoder.encode_text([text]), np.float32))[0])
    if is_needed:
        raise EncoderError(
            f"the vector column {name!r} cannot be asked in words here, expected an encoder with encode_text",
            "a CLIP model reads words; give an encoder object again with m6rec_udf.add_vectors(con, ...)",
        )
    return np.zeros(dimension, np.float32)


def shared_cosines(content: Floats, norms: Floats, centre: Floats, blocks: Blocks, vector: Floats) -> Floats:
    """Likeness of items to a vector over the columns that the vector has, float32 ``[n]``.

    The weighted mean of the columns' cosines. A column that an item lacks counts as the mean cosine of the items that
    have it: nothing is known for or against. (Leaving it out, Gower's coefficient, puts items with less to compare
    first: texts that are alike alone beat texts and pictures that are nearly alike.) -1 where an item has none of the
    columns. A vector as long as the text's asks the text alone.

    Args:
        content: ``[n, d]``; norms: ``[n, blocks]`` lengths of each item's parts.
        centre: ``[d]``, mean of the parts of unit length of the items that have them (``block_centre``).
    """
    whole = np.zeros(content.shape[1], np.float32)
    whole[: len(vector)] = vector
    total, weights = np.zeros(len(content), np.float32), np.float32(0)
    has_any = np.zeros(len(content), bool)
    start = 0
    for at, (_, dimension, weight) in enumerate(blocks):
        part = slice(start, start + dimension)
        start += dimension
        asked = unit(whole[None, part])[0]
        if not asked.any():
            continue
        has = norms[:, at] > 0
        cosine = content[:, part] @ asked / np.maximum(norms[:, at], 1e-12)
        total += np.float32(weight) * np.where(has, cosine, centre[part] @ asked)
        weights += np.float32(weight)
        has_any |= has
    return np.where(has_any, total / max(weights, np.float32(1e-12)), -1.0).astype(np.float32)


def block_centre(content: Floats, norms: Floats, blocks: Blocks) -> Floats:
    """Mean of each column's vectors over the items that have one, float32 ``[d]``."""
    ends = np.cumsum([dimension for _, dimension, _ in blocks])
    parts = np.split(content, ends[:-1], axis=1)
    means = [unit(part).sum(0) / max(1, int((norms[:, at] > 0).sum())) for at, part in enumerate(parts)]
    return np.concatenate(means).astype(np.float32)


def block_norms(content: Floats, blocks: Blocks) -> Floats:
    """Length of each column's part of each item, float32 ``[n, blocks]``."""
    ends = np.cumsum([dimension for _, dimension, _ in blocks])
    return np.stack([np.sqrt((part * part).sum(1)) for part in np.split(content, ends[:-1], axis=1)], axis=1)


def _encoder(con: duckdb.DuckDBPyConnection, context: Context, name: str) -> Any:
    """The encoder of a column: the one given in this process, or the model that the file names."""
    if name not in context.column_encoders:
        stored = one(con, "select encoder from m6.vector_columns where name = ?", [name])[0]
        prefix = "pictures:"
        if not (stored or "").startswith(prefix):
            return None
        known = as_column_encoder(stored.removeprefix(prefix))
        assert known is not None
        context.column_encoders[name] = known
    return context.column_encoders[name]


def _vectors(
    con: duckdb.DuckDBPyConnection, context: Context, column: Column, item_ids: Sequence[str]
) -> tuple[Floats, list[str]]:
    """Unit vectors of the items, zero where there is none, and a hash of what they were made from."""
    if column.encoder is None:
        return _given(con, column, item_ids)
    rows = dict(
        con.execute(f"select item_id, cast({_expression(con, column.source)} as varchar) from m6.items").fetchall()
    )
    if not one(con, "select current_setting('enable_external_access')")[0]:
        raise ParameterError(
            f"the vector column {column.name!r} reads files that {column.source} names, and this connection was "
            "opened with external_access=False",
            "build with a connection that may read files; what it built is served by this one",
        )
    entries = [(rows.get(item) or "").strip() for item in item_ids]
    digests = {entry: _digest(entry) for entry in dict.fromkeys(entries)}
    entry_of = {digest: entry for entry, digest in digests.items() if digest}
    if not entry_of:
        return np.zeros((len(item_ids), 1), np.float32), [""] * len(item_ids)

    def encode(wanted: list[str]) -> Floats:
        encoder = _encoder(con, context, column.name)
        if encoder is None:
            raise EncoderError(
                f"{len(wanted)} entries of the vector column {column.name!r} are new, and its encoder "
                f"{column.encoder!r} is not given in this process",
                f"m6rec_udf.add_vectors(con, {column.name!r}, source={column.source!r}, encoder=...)",
            )
        vectors = np.asarray(encoder.encode([entry_of[digest] for digest in wanted]), np.float32)
        if vectors.shape != (len(wanted), int(encoder.dimension)) or not np.isfinite(vectors).all():
            raise EncoderError(
                f"the encoder {encoder.name!r} returned an array of shape {vectors.shape}, expected finite numbers of "
                f"shape {(len(wanted), int(encoder.dimension))}",
                "a row of zeros says that an entry could not be read",
            )
        return unit(vectors)

    known = embed_hashed(con, column.encoder, sorted(entry_of), encode)
    place = {digest: at for at, digest in enumerate(sorted(entry_of))}
    out = np.zeros((len(item_ids), known.shape[1]), np.float32)
    hashes = [digests[entry] for entry in entries]
    for row, digest in enumerate(hashes):
        if digest:
            out[row] = known[place[digest]]
    return out, hashes


def _digest(entry: str) -> str:
    """SHA-256 of a file's content, of the entry itself where it is no path; "" for none and for a missing file."""
    path = Path(entry) if 0 < len(entry) < 1024 and "\0" not in entry else None
    try:
        if path is not None and path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
    is_path = path is not None and ("/" in entry or "\\" in entry or bool(path.suffix))
    return "" if not entry or is_path else content_hash(entry)


def _given(con: duckdb.DuckDBPyConnection, column: Column, item_ids: Sequence[str]) -> tuple[Floats, list[str]]:
    """Vectors from a table; raises SchemaError where their lengths differ or one is not finite."""
    _check_table(con, column.source)
    rows = con.execute(
        f"select cast(item_id as varchar), cast(vector as float[]) from {_named(column.source)} "
        "where vector is not null order by item_id"
    ).fetchall()
    found = {item: np.asarray(vector, np.float32) for item, vector in rows if None not in vector}
    lengths = sorted({len(vector) for vector in found.values()})
    if len(lengths) > 1 or len(found) < len(rows) or not all(np.isfinite(v).all() for v in found.values()):
        raise SchemaError(
            f"{column.source} holds vectors of {lengths} dimensions, {len(rows) - len(found)} with NULL inside, "
            "expected finite numbers and one length",
            "fix the table, or m6rec_udf.drop_vectors(con, ...)",
        )
    out = np.zeros((len(item_ids), lengths[0] if lengths else 1), np.float32)
    for row, item in enumerate(item_ids):
        if item in found:
            out[row] = found[item]
    out = unit(out)
    return out, [hashlib.sha256(row.tobytes()).hexdigest() if row.any() else "" for row in out]


def _named(source: str) -> str:
    """A table or view, with its schema or without, as SQL."""
    return ".".join(quote_name(part) for part in source.split("."))


def _check_table(con: duckdb.DuckDBPyConnection, source: str) -> None:
    columns = con.execute(
        "select list(column_name) from duckdb_columns() where database_name = current_database() "
        "and table_name = $name and ($schema is null or schema_name = $schema)",
        {"name": source.rpartition(".")[2], "schema": source.rpartition(".")[0] or None},
    ).fetchall()[0][0]
    if not columns or not {"item_id", "vector"} <= set(columns):
        raise UnknownNameError(
            f"{source!r} has the columns {columns or 'of nothing: there is no such table'}, expected a table or "
            "view with item_id and vector",
            "without an encoder a vector column is read from a table; with one, name what it reads: 'image_path'",
        )


def _expression(con: duckdb.DuckDBPyConnection, source: str) -> str:
    """SQL for the entries of a source; raises UnknownNameError where ``m6.items`` has no such column."""
    if source.startswith("attributes."):
        key = source.removeprefix("attributes.").replace('"', "").replace("'", "''")
        return f"json_extract_string(attributes, '$.\"{key}\"')"
    names = [row[0] for row in con.execute("select column_name from (describe m6.items)").fetchall()]
    if source not in names:
        raise UnknownNameError(f"m6.items has no column {source!r}, expected one of {names} or attributes.<key>")
    return f'"{source}"'
