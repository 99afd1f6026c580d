"""Lines of the report, seconds, peaks of memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[str], Any]


def say(name: str, figure: str, note: str = "") -> None:
    """One line of the report."""
    print(f"{name:<52}{figure:>18}   {note}", flush=True)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, result)."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def reset_peak() -> None:
    """Start a new peak of resident memory (Linux)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_gb() -> float:
    """Peak of resident memory since ``reset_peak``, GB; 0 where the system does not say."""
    path = Path("/proc/self/status")
    found = [line for line in path.read_text().splitlines() if line.startswith("VmHWM")] if path.exists() else []
    return int(found[0].split()[1]) / 1e6 if found else 0.0


def in_turn(first: Call, second: Call, keys: list[str], *, warm: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of two calls for each key, one after the other, after a warm-up."""
    for key in keys[:warm]:
        first(key)
        second(key)
    pairs = [
        (seconds_of(lambda key=key: first(key))[0], seconds_of(lambda key=key: second(key))[0]) for key in keys[warm:]
    ]
    return tuple(np.asarray(pairs).T)  # type: ignore[return-value]
