"""The short form of ``make fuzz``: a fixed seed, every entrance, nothing unhandled and nothing wrong."""

from __future__ import annotations

import warnings

import campaign
from world import ANSWERED, REFUSED


def test_hostile_calls_end_in_an_answer_or_a_clear_error(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # figures of 1e308 overflow on their way to a bounded one
        counts = campaign.run(700, 20240719, tmp_path, seconds=30)
    assert counts.failures == []
    for end in (ANSWERED, REFUSED):
        assert sum(n for (_, found), n in counts.ends.items() if found == end) > 100
    assert counts.rows["given"] == counts.rows["loaded"] + counts.rows["rejected"] + counts.rows["already_there"]
    assert counts.rows["rejected"] > 50
    assert len(counts.reasons) > 10


def test_rare_entrances_are_tried_too(tmp_path):
    for name in ("artefacts", "build", "10 MB, 100,000 tags"):
        folder = tmp_path / name
        folder.mkdir()
        counts = campaign.run(2, 7, folder, only=name)
        assert counts.failures == [], name
        assert sum(counts.ends.values()) == 2
