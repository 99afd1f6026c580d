"""Encrypted database files: DuckDB opens them by ATTACH alone, so a connection in memory uses one as its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf.errors import ParameterError
from m6rec_udf.sources import literal, quote


def open_file(target: str, key: str, *, read_only: bool, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """A connection whose current database is the encrypted file.

    Raises:
        ParameterError: the key is empty or wrong, the file is in memory or is not encrypted, or this DuckDB has
            nothing to encrypt with.
    """
    if not key:
        raise ParameterError("the encryption key is empty, expected some text", "encryption_key=os.environ['SHOP_KEY']")
    if target == ":memory:":
        raise ParameterError("found an encryption key for a database in memory, expected a file", "name a path")
    con = duckdb.connect(":memory:", config=config)
    name = quote(Path(target).stem)
    try:
        access = "read_only" if read_only else "read_write"
        con.execute(f"attach {literal(target)} as {name} (encryption_key {literal(key)}, {access})")
        con.execute(f"use {name}")
    except duckdb.Error as error:
        con.close()
        explain(target, error)
        raise
    return con


def explain(target: str, error: duckdb.Error) -> None:
    """Raise what an error about keys and encryption means; return for any other."""
    text = str(error)
    if "crypto module" in text or "httpfs" in text:
        raise ParameterError(
            f"{target} cannot be written encrypted: this DuckDB has only the module that reads, expected the httpfs "
            "extension beside it",
            "INSTALL httpfs in DuckDB once, where there is a network; or open it with read_only=True; or use an "
            "encrypted disk",
        ) from error
    if "Wrong encryption key" in text:
        raise ParameterError(f"the encryption key does not open {target}, expected the one it was made with") from error
    if any(words in text for words in ("is encrypted", "is not encrypted", "encrypted database", "encryption key")):
        raise ParameterError(
            f"{target} and the key do not go together ({text.splitlines()[0]}), expected an encrypted file and its key",
            "pass encryption_key=... for an encrypted file, and none for a plain one",
        ) from error
