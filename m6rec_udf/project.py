"""A project folder: the user's own SQL models, settings and data beside the database."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from m6rec_udf import resources
from m6rec_udf.errors import M6Error, ParameterError

SETTINGS_FILE = "m6rec.toml"
FOLDERS = ("sql/strategies", "sql/features", "sql/satisfaction", "data", "warehouse")
_SETTINGS = {"database": str, "encoder": str}


def templates_root() -> Path:
    """Folder of the files that ``init`` copies."""
    return Path(__file__).resolve().parent / "templates"


def init(directory: str | Path = ".") -> list[Path]:
    """Make a project folder: ``m6rec.toml``, a README with examples, ``.gitignore``, folders for SQL and data.

    Nothing that exists is changed.

    Returns:
        The files and folders made, in order; empty when all were there.

    Raises:
        ParameterError: ``directory`` is a file.
    """
    root = Path(directory)
    if root.exists() and not root.is_dir():
        raise ParameterError(f"{root} is a file, expected a folder", "choose another name")
    made = []
    for folder in (root, *(root / name for name in FOLDERS)):
        if not folder.is_dir():
            folder.mkdir(parents=True)
            made.append(folder)
    for source in sorted(templates_root().glob("*.txt")):
        target = root / _target_name(source)
        if not target.exists():
            target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
            made.append(target)
    return made


def _target_name(source: Path) -> str:
    """``gitignore.txt`` is written as ``.gitignore``, every other template without its ``.txt``."""
    return ".gitignore" if source.stem == "gitignore" else source.stem


def settings(directory: str | Path) -> dict[str, Any]:
    """The settings in ``m6rec.toml`` of a project: ``database`` (made relative to the folder) and ``encoder``.

    A folder without the file has no settings.

    Raises:
        M6Error: the file is not TOML, or holds a setting that does not exist.
    """
    path = Path(directory) / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        found = tomllib.loads(resources.text_of(path))
    except tomllib.TOMLDecodeError as error:
        raise M6Error(f"{path} is not valid TOML: {error}", 'write lines such as: database = "shop.duckdb"') from error
    wrong = [name for name, value in found.items() if not isinstance(value, _SETTINGS.get(name, ()))]
    if wrong:
        raise M6Error(
            f"{path} has {', '.join(wrong)}, expected the texts {' and '.join(_SETTINGS)}", "correct or remove the line"
        )
    if "database" in found:
        found["database"] = str(Path(directory) / found["database"])
    return found


def own_models(directory: str | Path) -> list[Path]:
    """The SQL files of a project, by folder and name."""
    return sorted((Path(directory) / "sql").glob("*/*.sql"))


def is_override(path: Path) -> bool:
    """Whether a project's SQL file replaces a shipped model: the same folder and name."""
    return (resources.sql_root() / path.parent.name / path.name).is_file()
