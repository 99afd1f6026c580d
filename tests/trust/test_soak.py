"""A short run of the soak (tests/trust/soak.py): make soak is the long one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
soak = pytest.importorskip("soak")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident size is read from /proc")
def test_readers_beside_a_writer_see_one_version_and_the_right_answers(monkeypatch):
    monkeypatch.setattr(soak, "RARELY", 5)
    found = soak.run(20, readers=3)
    assert found.failures == []
    assert len(found.versions) >= 2
    assert found.compared > 2 * len(soak.ASKED)
    assert set(found.asked) == {"same", *soak.LISTS}
    assert found.written["build"] >= 1


def test_the_soak_sees_two_answers_and_mixed_versions(tmp_path):
    own = soak.Soak(tmp_path / "none.duckdb", 1, 1, 0)
    own._compare("u00", [("i01", 0.5, 1, 1)])
    own._compare("u00", [("i02", 0.5, 1, 1)])
    own._compare("u00", [("i01", 0.5, 1, 1), ("i02", 0.4, 2, 1)])
    assert len(own.wrong) == 2
