"""How kernels are compiled: one signature each, kept on disk where that can be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from m6rec_udf.doctor import OK, WARN, _compiled
from m6rec_udf.kernels import compiled as how
from m6rec_udf.kernels import counting, describing, listing, proposing, trees

MODULES = (counting, describing, listing, proposing, trees)


def kernels(module):
    own = (value for value in vars(module).values() if isinstance(value, numba.core.dispatcher.Dispatcher))
    return [value for value in own if value.py_func.__module__ == module.__name__]


@pytest.mark.parametrize("module", MODULES)
def test_a_kernel_has_one_signature_and_refuses_other_types(module):
    public = [kernel for kernel in kernels(module) if not kernel.py_func.__name__.startswith("_")]
    assert public
    for kernel in public:
        assert len(kernel.signatures) == 1, kernel.py_func.__name__
        assert kernel.targetoptions["nogil"]
        with pytest.raises(TypeError, match="No matching definition"):
            kernel(*(np.zeros(1, np.float16) for _ in kernel.signatures[0]))


@pytest.mark.parametrize("module", MODULES)
def test_a_kernel_calls_only_kernels_of_its_own_file(module):
    """The machine code on disk is found by the time stamp of one file: what another file says could be stale in it."""
    text = Path(module.__file__).read_text()
    taken = {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("m6rec_udf")
        for alias in node.names
    }
    assert taken <= set(how.__all__)


def test_without_a_place_for_machine_code_a_kernel_is_compiled_all_the_same(monkeypatch):
    njit, asked = numba.njit, []

    def without_a_place(*arguments, cache, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available for file 'x'")
        return njit(*arguments, **options)

    monkeypatch.setattr(numba, "njit", without_a_place)
    double = how.compiled(how.FLOAT64(how.FLOAT64))(lambda x: 2 * x)
    assert double(3.0) == 6.0
    assert asked == [True, False]


def test_another_failure_is_not_hidden(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(numba, "njit", broken)
    with pytest.raises(RuntimeError, match="no such thing"):
        how.compiled(how.FLOAT64(how.FLOAT64))(lambda x: x)


def test_the_second_process_reads_the_machine_code(tmp_path):
    """A cache folder that is empty is filled by the first import, the second compiles nothing."""
    code = (
        f"import os; os.environ['NUMBA_CACHE_DIR'] = {str(tmp_path)!r}\n"
        "from m6rec_udf.kernels import trees\n"
        "print(sum(trees.added_up.stats.cache_hits.values()), sum(trees.added_up.stats.cache_misses.values()))"
    )
    seen = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["0", "1"], ["1", "0"]]


def test_the_doctor_says_where_machine_code_is_kept_and_where_it_is_not(monkeypatch):
    assert _compiled().status == OK
    assert _compiled().found == f"kept in {how.place()}"
    assert Path(how.place()).is_dir()

    def nowhere(_):
        raise RuntimeError("cannot cache function 'given': no locator available for file 'x'")

    monkeypatch.setattr(numba.core.caching, "CompileResultCacheImpl", nowhere)
    assert _compiled().status == WARN
    assert "NUMBA_CACHE_DIR" in _compiled().remedy
