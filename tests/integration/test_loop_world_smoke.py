"""Three periods of the closed-loop benchmark on its real path: serve, impressions, feedback, reweight."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "loop"
MODULES = ("world", "real", "baselines", "run")


@pytest.fixture
def loop(monkeypatch):
    """The benchmark's modules, with fewer users."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = {}
    for name in MODULES:
        found[name] = importlib.import_module(name)
        if hasattr(found[name], "USERS"):
            monkeypatch.setattr(found[name], "USERS", 320)
    yield found
    for name in MODULES:
        sys.modules.pop(name, None)


def test_three_periods_learn_and_the_fast_path_gives_the_products_lists(loop, tmp_path):
    world = loop["world"].World(3, loop["world"].Kind(requests=240))
    con = loop["real"].build(world, tmp_path)
    lists = loop["real"].read_lists(con)
    assert loop["run"].check_lists(con, world, lists) == 200
    con.execute("delete from m6.impressions")
    results = []
    values = loop["real"].play(con, world, periods=3, watch=lambda period, result: results.append(result["status"]))
    counts = con.execute(
        "select count(distinct request_id), count(*), min(propensity) > 0 from m6.impressions"
    ).fetchall()[0]
    feedback, late = con.execute(
        "select count(*), count(*) filter (where ingested_at > happened_at) from m6.feedback"
    ).fetchall()[0]
    con.close()
    assert results[0] == "active"
    assert set(results) <= {"active", "candidate"}
    assert counts == (720, 5760, True)
    assert feedback > 100
    assert late > 0
    assert len(values) == 3
    weights = loop["world"].oracle_weights(world, lists.heads, 0)
    best = loop["run"].fixed(world, lists.heads, lambda period: weights)
    assert np.all(np.array(values) < np.array(best[:3]))
