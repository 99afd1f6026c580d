"""Dress a DuckDB connection: settings, migrations, functions, macros, in that order.

The connection stays the caller's; m6rec adds the schema ``m6`` and the ``m6_*`` functions to it.
"""

from __future__ import annotations

import contextlib
import graphlib
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf import encrypted, files, histories, models, registry, resources
from m6rec_udf.errors import BACKUP, LockedError, M6Error, ModelSqlError, NotInstalledError, damage
from m6rec_udf.query import cursor as second
from m6rec_udf.query import one
from m6rec_udf.sources import literal

if TYPE_CHECKING:
    from m6rec_udf.embed import EncoderLike

DEFAULT_PATH = "warehouse/m6rec.duckdb"
_NO_ACCESS = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def connect(
    path: str | Path = DEFAULT_PATH,
    *,
    encoder: EncoderLike | None = None,
    read_only: bool = False,
    project: str | Path | None = None,
    config: dict[str, Any] | None = None,
    external_access: bool = True,
    encryption_key: str | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open (or create) a DuckDB file and dress the connection.

    Args:
        path: the file; ``":memory:"`` for none.
        encoder: a sentence-transformers name or path, or an object with ``encode`` and ``dimension``;
            None is all-MiniLM-L6-v2.
        read_only: many processes may read one file, only one may write it.
        project: folder with the user's own SQL models (see ``m6rec init``).
        config: DuckDB settings.
        external_access: False: SQL on this connection reads and writes no other file, attaches nothing, loads no
            extension, sees no Python variable, and none of this can be switched on again, nor any setting changed.
            Lists, loading frames, building and feedback work as ever.
        encryption_key: opens, or makes, a file that DuckDB encrypts (AES-256-GCM). Writing one needs DuckDB's httpfs
            extension, whose OpenSSL it uses; reading does not.

    Raises:
        LockedError: another process has the file open.
        CorruptError: blocks of the file do not match their checksums.
        NotInstalledError: read only, and the file was made by another version of m6rec.
        ParameterError: the key is wrong or missing, or there is nothing to encrypt with.
        M6Error: the path is not a DuckDB file, or its folder does not exist.
    """
    target = str(path)
    settings = {} if external_access else _NO_ACCESS
    is_new = target != ":memory:" and not Path(target).exists()
    if is_new and not read_only:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    con = _open(
        target,
        {**(config or {}), **(settings if encryption_key is None else {})},
        read_only=read_only,
        encryption_key=encryption_key,
        is_private=is_new and not read_only,
    )
    try:
        install(con, encoder=encoder, project=project)
        if not external_access:
            for name, value in {**settings, "TimeZone": "UTC"}.items():
                if encryption_key is not None or name == "TimeZone":  # a file that is attached must be let in first
                    con.execute(f"set global {name} = {literal(value)}")
            con.execute("set lock_configuration = true")
    except BaseException as error:
        con.close()
        if isinstance(error, duckdb.Error | ModelSqlError) and (found := damage(error)) is not None:
            raise found from error
        raise
    return con


def _open(
    target: str, config: dict[str, Any], *, read_only: bool, encryption_key: str | None, is_private: bool
) -> duckdb.DuckDBPyConnection:
    """The connection, not dressed yet; raises what ``connect`` says."""
    try:
        with files.private() if is_private else contextlib.nullcontext():
            if encryption_key is not None:
                return encrypted.open_file(target, encryption_key, read_only=read_only, config=config)
            return duckdb.connect(target, read_only=read_only, config=config)
    except (duckdb.InvalidInputException, duckdb.CatalogException) as error:
        encrypted.explain(target, error)
        if (found := damage(error)) is not None:
            raise found from error
        raise
    except duckdb.Error as error:
        text = str(error)
        if "could not set lock" in text.lower():
            raise LockedError(
                f"{target} is open in another process, expected to be its only writer ({text.splitlines()[0]})",
                "DuckDB lets one process write a file, or many read it. Either that process does it all, with a cursor "
                "per thread; or it makes copies, m6rec_udf.snapshot(con, 'copy.duckdb'), and others serve from them, "
                "m6rec_udf.Serving('copy.duckdb')",
            ) from error
        if (found := damage(error)) is not None:
            raise found from error
        raise M6Error(
            f"{target} cannot be opened as a DuckDB file ({text.splitlines()[0]})",
            f"check the path; if the file was cut off, {BACKUP}",
        ) from error


def install(
    con: duckdb.DuckDBPyConnection,
    *,
    encoder: EncoderLike | None = None,
    project: str | Path | None = None,
) -> duckdb.DuckDBPyConnection:
    """Dress a connection the caller owns; idempotent. Returns the same connection."""
    from m6rec_udf.embed import as_encoder

    context = registry.register(con, as_encoder(encoder), Path(project) if project else None)
    con.execute("set TimeZone = 'UTC'")
    if context.read_only:
        _require_current(con)
    else:
        migrate(con)
        _define(con)
    return con


def _require_current(con: duckdb.DuckDBPyConnection) -> None:
    """Raise NotInstalledError where a file that cannot be written lacks migrations, or holds other macros."""
    tables = one(
        con,
        "select list(table_name) from duckdb_tables() where database_name = current_database() and schema_name = 'm6' "
        "and table_name in ('migrations', 'definitions')",
    )[0]
    if not tables:
        return  # a publication, or nothing of m6rec's
    done = {row[0] for row in con.execute("select name from m6.migrations").fetchall()}
    pending = [path.stem for path in sorted(resources.migrations_root().glob("*.sql")) if path.stem not in done]
    is_same = "definitions" in tables and one(con, "select content_hash from m6.definitions")[0] == _digest()
    if pending or not is_same:
        what = f"the migrations {', '.join(pending)}" if pending else "the views and macros of this version"
        raise NotInstalledError(
            f"the file was made by another version of m6rec: it lacks {what}, and is open for reading only",
            "open it once for writing, m6rec_udf.connect(path), which brings it up to date; or make the copy again",
        )


def uninstall(con: duckdb.DuckDBPyConnection) -> None:
    """Remove the schema ``m6`` with all it holds; the rest of the database stays as it was."""
    con.execute("drop schema if exists m6 cascade")


def migrate(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Apply the migrations not yet recorded in the database, one transaction each; returns their names."""
    con.execute("create schema if not exists m6")
    con.execute(
        "create table if not exists m6.migrations (name varchar primary key, content_hash varchar not null, "
        "applied_at timestamp not null default cast(now() at time zone 'UTC' as timestamp))"
    )
    comment = "select comment from duckdb_tables() where schema_name = 'm6' and table_name = 'migrations'"
    if one(con, comment)[0] is None:
        _comment_migrations(con)
    done = {row[0] for row in con.execute("select name from m6.migrations").fetchall()}
    applied = []
    for path in sorted(resources.migrations_root().glob("*.sql")):
        if path.stem in done:
            continue
        text = path.read_text(encoding="utf-8")
        con.execute("begin")
        try:
            con.execute(text)
            con.execute(
                "insert into m6.migrations (name, content_hash) values (?, ?)",
                [path.stem, hashlib.sha256(text.encode()).hexdigest()],
            )
            con.execute("commit")
        except duckdb.Error as error:
            con.execute("rollback")
            raise ModelSqlError(f"migration {path.stem} failed: {error}") from error
        applied.append(path.stem)
    return applied


def _definitions() -> list[tuple[str, str]]:
    """(name, statement) of every shipped view and macro."""
    root = resources.sql_root()
    views = [
        (path.stem, f"create or replace view m6.{path.stem} as\n{path.read_text(encoding='utf-8')}")
        for path in sorted((root / "views").glob("*.sql"))
    ]
    shipped = models.with_satisfaction(models.collect(), "graded")
    views.append(("behaviour", f"create or replace view m6.behaviour as\n{models.live(shipped)}"))
    macros = [(path.stem, path.read_text(encoding="utf-8")) for path in sorted((root / "macros").glob("*.sql"))]
    return views + macros


def _digest() -> str:
    """SHA-256 of the statements of every shipped view and macro."""
    return hashlib.sha256("\n".join(text for _, text in _definitions()).encode()).hexdigest()


def _comment_migrations(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("comment on table m6.migrations is 'one row per migration applied to this file'")
    con.execute("comment on column m6.migrations.name is 'file stem'")
    con.execute("comment on column m6.migrations.content_hash is 'SHA-256 of the file when it was applied'")
    con.execute("comment on column m6.migrations.applied_at is 'UTC'")


def _define(con: duckdb.DuckDBPyConnection) -> None:
    """Create the views and macros in the order of their references; skipped when nothing changed."""
    todo = _definitions()
    digest = _digest()
    con.execute("create table if not exists m6.definitions (content_hash varchar)")
    con.execute("comment on table m6.definitions is 'one row: which views and macros this file holds'")
    con.execute("comment on column m6.definitions.content_hash is 'SHA-256 of their statements'")
    if one(con, "select 1 from m6.definitions where content_hash = ?", [digest])[0] is not None:
        return
    _create_build_tables(con)
    con.execute("begin")
    try:
        for name, text in _ordered(todo):
            try:
                con.execute(text)
            except duckdb.Error as error:
                raise ModelSqlError(f"sql definition {name} failed: {error}") from error
            if name == "behaviour":
                histories.reset_unless_made_with(con, models.with_satisfaction(models.collect(), "graded"))
        con.execute("delete from m6.definitions")
        con.execute("insert into m6.definitions values (?)", [digest])
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise


def _create_build_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Empty tables for what a build writes, so that the macros can be created before the first build."""
    from datetime import datetime

    cursor = second(con)
    try:
        cursor.execute("set search_path = 'm6'")
        bound = {"as_of": datetime(1, 1, 1), "span_days": 1.0, "positive_at": 0.75}
        shipped = models.with_satisfaction(models.collect(), "graded")
        for model in models.ordered({n: m for n, m in shipped.items() if m.layer in ("staging", "features")}):
            is_there = (
                "select 1 from (select schema_name, table_name from duckdb_tables() "
                "union all select schema_name, view_name from duckdb_views()) "
                "where schema_name = 'm6' and table_name = ? limit 1"
            )
            if one(cursor, is_there, [model.name])[0] is None:
                models.run(cursor, model, bound, temporary=model.name in models.LIVE)
    finally:
        cursor.close()


def _ordered(definitions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Definitions after what they mention: a macro cannot be created before what it names."""
    texts = dict(definitions)
    code = {name: re.sub(r"--[^\n]*|'(?:[^']|'')*'", " ", text) for name, text in definitions}
    alias = dict.fromkeys(histories.MADE, "behaviour")  # made with it
    mentioned = {
        name: {alias.get(m, m) for m in re.findall(r"\bm6\.([a-z_0-9]+)", text)} & texts.keys() - {name}
        for name, text in code.items()
    }
    return [(name, texts[name]) for name in graphlib.TopologicalSorter(mentioned).static_order()]
