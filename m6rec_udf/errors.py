"""Every exception m6rec raises. Each says what was found, what was expected, and a ``Hint:``."""

from __future__ import annotations

BACKUP = "restore the file from the last copy that `m6rec snapshot FILE TO` made"
_DAMAGE = ("corrupt", "checksum", "not enough bytes", "could not read enough bytes")


class M6Error(Exception):
    """Base of all m6rec errors."""

    def __init__(self, found: str, hint: str | None = None) -> None:
        super().__init__(found if hint is None else f"{found}\nHint: {hint}")


class SchemaError(M6Error, ValueError):
    """A frame, file or SQL model does not have the columns or types of the contract."""


class NotBuiltError(M6Error, RuntimeError):
    """The database holds no build yet."""


class NotInstalledError(M6Error, RuntimeError):
    """The connection lacks the m6rec functions, macros or tables."""


class UnknownNameError(M6Error, KeyError):
    """A table, strategy, model or version of that name does not exist."""

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


class ParameterError(M6Error, ValueError):
    """A parameter is out of range or of the wrong type."""


class EncoderError(M6Error, ValueError):
    """The text encoder is missing or gives vectors of another dimension."""


class ModelSqlError(M6Error, RuntimeError):
    """A SQL model failed: carries the model's name, the SQL and the database's message."""


class CheckFailedError(M6Error, RuntimeError):
    """A row check of the build returned rows."""


class LockedError(M6Error, OSError):
    """Another process has the database file open."""


class MissingExtraError(M6Error, ImportError):
    """An optional package is not installed."""


class CorruptError(M6Error, RuntimeError):
    """An artefact or file does not match its hash."""


def damage(error: BaseException) -> CorruptError | None:
    """The error to raise where the database says that its file is damaged; None where it says something else."""
    text = str(error)
    if not any(word in text.lower() for word in _DAMAGE):
        return None
    found = next(line for line in text.splitlines() if any(word in line.lower() for word in _DAMAGE))
    return CorruptError(f"the file is damaged, expected blocks that match their checksums ({found})", BACKUP)
