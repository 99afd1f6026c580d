"""A short run of the crash test (tests/trust/crash.py): make crash is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
crash = pytest.importorskip("crash")
KILLS = 16

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")


def test_killed_at_random_moments_the_file_is_whole(tmp_path):
    harness = crash.run(KILLS, seed=11, folder=tmp_path)
    assert harness.failures == []
    assert harness.wrong == 0
    for operation in crash.OPERATIONS:
        assert harness.tallies[operation].kills == KILLS // len(crash.OPERATIONS)
    rows = sum(tally.acknowledged for tally in harness.tallies.values())
    assert rows == sum(tally.found for tally in harness.tallies.values()) > 0


def test_the_crash_test_sees_a_lost_row_a_half_transaction_and_a_wrong_answer(tmp_path):
    harness = crash.Harness(tmp_path, seed=1)
    harness.prepare()
    harness.acknowledged["events"].add("never-there")
    harness.in_flight = {"feedback": {"f1", "f-other"}}
    harness.expected = {pair: ([], []) for pair in harness.expected}
    harness._check("load", harness.path, harness.path)
    words = " ".join(harness.failures)
    for part in ("acknowledged rows of events are gone", "1 of 2 rows of one transaction", "wrong answers"):
        assert part in words
    assert harness.wrong == 1
