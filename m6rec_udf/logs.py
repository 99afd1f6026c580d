"""What the verbs did, as log lines of the logger ``m6rec``: plain or JSON, never with a person's id in them."""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TextIO, TypeVar

LOGGER = logging.getLogger("m6rec")
LOGGER.addHandler(logging.NullHandler())
P = ParamSpec("P")
R = TypeVar("R")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the fields of the verb."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, default=str, ensure_ascii=False)


def log_to(stream: TextIO | None = None, *, as_json: bool = False, level: str = "INFO") -> logging.Handler:
    """Send m6rec's log lines to a stream (stderr by default); a second call replaces the handler of the first.

    Applications that configure ``logging`` themselves need not call this: the logger is ``m6rec``, and each record
    has its figures as a dict in ``record.fields``.

    Args:
        stream: where to.
        as_json: one JSON object a line.
        level: DEBUG, INFO, WARNING or ERROR.

    Returns:
        The handler, to remove it again.
    """
    for own in [handler for handler in LOGGER.handlers if getattr(handler, "is_m6rec", False)]:
        LOGGER.removeHandler(own)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.is_m6rec = True  # type: ignore[attr-defined]
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    return handler


def logged(
    verb: str, figures: Callable[[Any], dict[str, Any]] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Log a verb when it is done, with its seconds and the figures of its result; a failure by its class alone.

    The text of an error may hold what somebody typed, so it is raised and not logged.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            begin = time.perf_counter()
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                _say(logging.ERROR, verb, begin, {"outcome": "failed", "error": type(error).__name__})
                raise
            _say(logging.INFO, verb, begin, {"outcome": "done", **(figures(result) if figures is not None else {})})
            return result

        return wrapper

    return decorate


def _say(level: int, verb: str, begin: float, figures: dict[str, Any]) -> None:
    if LOGGER.isEnabledFor(level):
        fields = {"verb": verb, "seconds": round(time.perf_counter() - begin, 3), **figures}
        LOGGER.log(level, " ".join(f"{name}={value}" for name, value in fields.items()), extra={"fields": fields})
