"""A loop in the foreground: the same work again and again, with one line about each run."""

from __future__ import annotations

import datetime as dt
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import duckdb

from m6rec_udf import console
from m6rec_udf.errors import M6Error


class _Asked(Exception):
    """Somebody asked to stop while nothing was running."""


class _Stop:
    """SIGINT and SIGTERM: at once while waiting, after the run while one is under way; a second one breaks the run."""

    def __init__(self) -> None:
        self.is_asked = self.is_waiting = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_asked and not self.is_waiting:
            raise KeyboardInterrupt
        self.is_asked = True
        if self.is_waiting:
            raise _Asked

    def wait(self, seconds: float) -> None:
        """Sleep, unless somebody has asked to stop."""
        self.is_waiting = True
        try:
            if not self.is_asked:
                time.sleep(seconds)
        finally:
            self.is_waiting = False


def run_every(work: Callable[[], str], seconds: int, *, turns: int | None = None) -> bool:
    """Run ``work`` now and every ``seconds``; returns whether the last run succeeded.

    It goes on until Ctrl-C, SIGTERM or ``turns`` runs. An M6Error, a database error or an OSError ends the run, not
    the loop. Runs keep to their times: one that takes longer than the pause skips what it missed.

    Args:
        work: does one run and says in one line what happened.
        seconds: from the beginning of a run to that of the next.
        turns: stop after that many runs; None: never.
    """
    turn, is_done = 0, True
    with _Stop() as stop:
        try:
            while not stop.is_asked:
                turn += 1
                began = time.monotonic()
                is_done, words = _attempt(work)
                took = time.monotonic() - began
                pause = seconds - took % seconds
                line = f"run {turn}: {words}; {took:.1f} s"
                if turn == turns or stop.is_asked:
                    console.log(f"{line}; the last run")
                    break
                console.log(f"{line}; next run {_after(pause)}")
                stop.wait(pause)
        except _Asked:
            pass
        if stop.is_asked:
            console.log(f"stopped after {turn} runs{'' if is_done else ', the last one failed'}")
    return is_done


def _attempt(work: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, " ".join(work().split())
    except (M6Error, duckdb.Error, OSError) as error:
        return False, f"failed, the next one tries again: {' '.join(str(error).split())}"


def _after(seconds: float) -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
