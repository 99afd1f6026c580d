"""`import m6rec_udf` loads nothing heavy: a served query must not wait for a language model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "sentence_transformers", "transformers", "lightgbm", "polars", "pandas", "sklearn")
HEAVY += ("pyspark", "py4j", "sqlglot", "numba")


def modules_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``code``."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["m6rec_udf", "m6rec_udf.cli", "m6rec_udf.builder", "m6rec_udf.spark"])
def test_import_loads_nothing_heavy(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert "m6rec_udf" in loaded
    assert loaded.isdisjoint(HEAVY), f"import {module} loaded {sorted(loaded & set(HEAVY))}"


def test_a_connection_waits_for_no_trees_and_no_compiler() -> None:
    loaded = modules_after("import m6rec_udf\nm6rec_udf.connect(':memory:')")
    assert loaded.isdisjoint(("lightgbm", "numba", "torch", "pandas"))


def test_the_probe_sees_a_heavy_import() -> None:
    assert "polars" in modules_after("import m6rec_udf\nimport polars")
