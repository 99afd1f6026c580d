"""Where the SQL lives: inside the wheel, or the repository folders of an editable install."""

from __future__ import annotations

from pathlib import Path

from m6rec_udf.errors import SchemaError

_PACKAGE = Path(__file__).resolve().parent


def sql_root() -> Path:
    """Folder of the shipped SQL models (`sql/` of the repository)."""
    packed = _PACKAGE / "_sql"
    return packed if packed.is_dir() else _PACKAGE.parent / "sql"


def migrations_root() -> Path:
    """Folder of the numbered migrations (`warehouse/migrations/` of the repository)."""
    packed = _PACKAGE / "_warehouse" / "migrations"
    return packed if packed.is_dir() else _PACKAGE.parent / "warehouse" / "migrations"


def read_sql(folder: str, name: str) -> str:
    """Text of ``sql/<folder>/<name>.sql``."""
    return (sql_root() / folder / f"{name}.sql").read_text(encoding="utf-8")


def text_of(path: Path) -> str:
    """The text of a file that somebody wrote by hand.

    Raises SchemaError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SchemaError(
            f"{path} is not text ({error.reason} at byte {error.start}), expected UTF-8", "save it as UTF-8"
        ) from error
