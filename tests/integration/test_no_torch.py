"""Serving an existing file loads no language model: only a text that must be embedded does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import shop_world

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "sentence_transformers", "transformers")
QUESTIONS = (
    "from m6.recommend('u00')",
    "from m6.recommend('nobody')",
    "from m6.recommend_many('audience', k := 5)",
    "from m6.serve('u00', seed := 5)",
    "from m6.similar_items('i04')",
    "from m6.explain('u00', 'i04')",
)
# Prints which heavy modules are there after opening the file, and after the questions; rows must come back.
PROGRAM = """
import json, sys
import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
path, encoder, read_only, extra, heavy, *questions = sys.argv[1:]
loaded = lambda: sorted(set(json.loads(heavy)) & set(sys.modules))
with m6.connect(path, encoder=HashEncoder(32) if encoder == "hash" else None, read_only=read_only == "yes") as con:
    opened = loaded()
    empty = [sql for sql in questions if not con.execute(sql).fetchall()]
    exec(extra)
print(json.dumps({"opened": opened, "asked": loaded(), "empty": empty}))
"""


def ask(path: Path, *, encoder: str, read_only: str = "no", extra: str = "") -> dict[str, list[str]]:
    """What a fresh interpreter had loaded."""
    arguments = [str(path), encoder, read_only, extra, json.dumps(HEAVY), *QUESTIONS]
    done = subprocess.run(
        [sys.executable, "-c", shop_world.QUIET + PROGRAM, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("encoder", "read_only"), [("hash", "no"), ("hash", "yes"), ("default", "no")])
def test_a_served_query_loads_no_language_model(shop_file: Path, encoder: str, read_only: str) -> None:
    """The default encoder too: it is loaded at the first text it has to embed, not when the file is opened."""
    assert ask(shop_file, encoder=encoder, read_only=read_only) == {"opened": [], "asked": [], "empty": []}


def test_the_probe_sees_a_loaded_model(shop_file: Path) -> None:
    stand_in = "import types; sys.modules['torch'] = types.ModuleType('torch')"
    assert ask(shop_file, encoder="hash", extra=stand_in)["asked"] == ["torch"]
