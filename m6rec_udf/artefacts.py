"""The bytes of builds: arrays and trained models in ``m6.artefact_contents``, kept once per content.

``m6.artefact_names`` says which contents a version has. Every content is checked against its hash before use.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf.errors import BACKUP, CorruptError, NotBuiltError, damage
from m6rec_udf.query import cursor, one

if TYPE_CHECKING:
    import duckdb

READERS = 2  # cursors that read at once


class _Parts(dict[str, Any]):
    """The parts of a version by name."""

    def __init__(self, version: int, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        self.version = version

    def __missing__(self, name: str) -> Any:
        raise CorruptError(
            f"model_version {self.version} lacks the artefact {name!r}, expected every part of a build",
            f"{BACKUP}, or run m6rec_udf.build(con) again",
        )


def write(
    con: duckdb.DuckDBPyConnection, version: int, parts: Mapping[str, bytes], kept: Mapping[str, str] | None = None
) -> None:
    """Name the parts of a version; contents that are in the file already are not written again.

    Args:
        parts: bytes by name.
        kept: hash by name of parts that another version has and that were read, hence checked, by this build.
    """
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(parts, pool.map(content_hash, parts.values()), strict=True))
    named = {**made, **(kept or {})}
    con.executemany(
        "insert into m6.artefact_names values (?, ?, ?)", [[version, name, digest] for name, digest in named.items()]
    )
    contents = {digest: parts[name] for name, digest in made.items()}
    for digest, buffer in _contents(con, made.values()).items():
        if memoryview(buffer) == memoryview(contents[digest]):
            contents.pop(digest)
        else:
            con.execute("delete from m6.artefact_contents where content_hash = ?", [digest])
    for digest, content in contents.items():
        con.execute("insert into m6.artefact_contents values (?, ?)", [digest, content])


def read(con: duckdb.DuckDBPyConnection, version: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """The parts of a version as buffers, those of ``names`` or all, each checked against its hash.

    Names that the version does not have are left out; to ask for one of them raises CorruptError.

    Raises:
        NotBuiltError: no such version.
        CorruptError: bytes that are missing or do not match their hash.
    """
    wanted = hashes(con, version)
    if names is not None:
        wanted = {name: wanted[name] for name in names if name in wanted}
    digests = list(dict.fromkeys(wanted.values()))
    cursors = [cursor(con) for _ in range(READERS)]
    with ThreadPoolExecutor(READERS) as pool:  # neither the database nor SHA-256 holds the interpreter's lock
        parts = pool.map(_checked, cursors, [digests[at::READERS] for at in range(READERS)])
        found = {digest: content for part in parts for digest, content in part.items()}
    for own in cursors:
        own.close()
    for name, digest in wanted.items():
        if digest not in found:
            raise CorruptError(
                f"the artefact {name!r} of model_version {version} does not match its hash, expected {digest[:12]}...",
                f"{BACKUP}, or run m6rec_udf.build(con) again",
            )
    return _Parts(version, {name: found[digest] for name, digest in wanted.items()})


def hashes(con: duckdb.DuckDBPyConnection, version: int) -> dict[str, str]:
    """Content hash by name of the parts of a version.

    Raises NotBuiltError: no such version.
    """
    rows = con.execute("select name, content_hash from m6.artefact_names where model_version = ?", [version]).fetchall()
    if not rows:
        raise NotBuiltError(
            f"there is no build with model_version {version} in this file, expected one of m6.models",
            "run m6rec_udf.build(con)",
        )
    return dict(rows)


def _contents(con: duckdb.DuckDBPyConnection, digests: Iterable[str]) -> dict[str, Any]:
    """Buffers by hash, of those that are in the file, each by a query of its own: so every array is aligned."""
    sql = "select content from m6.artefact_contents where content_hash = ?"
    try:
        tables = {digest: con.sql(sql, params=[digest]).to_arrow_table() for digest in dict.fromkeys(digests)}
    except Exception as error:  # duckdb's own, or Arrow's around it
        raise damage(error) or error from error
    return {digest: table["content"][0].as_buffer() for digest, table in tables.items() if len(table)}


def delete_unnamed(con: duckdb.DuckDBPyConnection) -> None:
    """Delete the contents that no version has any more."""
    sql = "from m6.artefact_contents anti join m6.artefact_names using (content_hash)"
    if one(con, f"select 1 {sql} limit 1")[0] is not None:
        con.execute(f"delete from m6.artefact_contents where content_hash in (select content_hash {sql})")


def content_hash(content: Any) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _checked(con: duckdb.DuckDBPyConnection, digests: list[str]) -> dict[str, Any]:
    """The contents that are in the file and match their hash."""
    found = _contents(con, digests)
    return {digest: content for digest, content in found.items() if content_hash(content) == digest}


def npy(array: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def from_npy(content: Any) -> np.ndarray:
    """The array in the bytes of a .npy file, without a copy where its numbers are aligned; read only.

    Raises ValueError: the dtype is not one of plain numbers.
    """
    head = io.BytesIO(memoryview(content)[:1024])
    np.lib.format.read_magic(head)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if dtype.hasobject:
        raise ValueError(f"found an array of {dtype}, expected numbers")
    found = np.frombuffer(content, dtype, int(np.prod(shape)), head.tell())
    found = found.reshape(shape, order="F" if is_fortran else "C")
    return found if found.flags.aligned else found.copy()
