"""Files on disk: made private, and searched byte by byte."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = threading.Lock()


@contextmanager
def private() -> Iterator[None]:
    """Files made meanwhile belong to their owner alone (mode 600), from their first byte on.

    DuckDB makes files with the process's umask and takes no mode; the umask is the process's, so what other threads
    make meanwhile is private too.
    """
    with _LOCK:
        before = os.umask(0o077)
        try:
            yield
        finally:
            os.umask(before)


def occurrences(path: str | Path, text: str) -> int:
    """How often the UTF-8 bytes of a text stand in a file and its write-ahead log; 0 where there is no file."""
    needle, found = text.encode("utf-8"), 0
    for own in (Path(path), Path(f"{path}.wal")):
        if not needle or not own.exists() or not own.stat().st_size:
            continue
        with own.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(needle)
            while at >= 0:
                found += 1
                at = content.find(needle, at + 1)
    return found
