"""Committed outputs are of one run; the feedback loop runs here, all notebooks in `make notebooks`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LOOP = ROOT / "notebooks" / "03_feedback_loop.ipynb"
STORY = ("'policy_version': 2, 'before': 1, 'changed': True", "'the_same': 10", "rolled_back", "adopt", "sn_slot_ratio")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")


def text_of(cells):
    """All text outputs of code cells."""
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    return "\n".join(
        "".join(output["text"] if "text" in output else output["data"]["text/plain"]) for output in outputs
    )


def test_there_are_notebooks():
    assert LOOP in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path):
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_outputs_are_of_one_run_without_errors(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output["output_type"] for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]}
    assert kinds <= {"stream", "execute_result", "display_data"}


def test_the_loop_runs_in_a_fresh_kernel(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    book = nbformat.read(LOOP, as_version=4)
    committed = text_of(book.cells)
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for text in (committed, text_of(book.cells)):
        assert [words for words in STORY if words not in text] == []
