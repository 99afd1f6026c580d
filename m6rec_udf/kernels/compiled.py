"""How a kernel is compiled: once per machine, with one signature, kept on disk.

The machine code is kept beside the source file, or in the user's cache folder where that is not writable
(``NUMBA_CACHE_DIR`` names another); where neither is, each process compiles anew. It is found again by the time stamp
of the kernel's own file: a kernel calls only kernels of its own file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types

__all__ = [
    "BOOL",
    "FLOAT32",
    "FLOAT64",
    "INT32",
    "INT64",
    "MATRIX",
    "PAIRS",
    "REORDERED",
    "UINT8",
    "UINT64",
    "compiled",
    "given",
    "made",
    "place",
    "row_of",
    "types",
]

Kernel = Callable[..., Any]

BOOL, INT32, INT64, UINT8, UINT64 = types.boolean, types.int32, types.int64, types.uint8, types.uint64
FLOAT32, FLOAT64 = types.float32, types.float64
REORDERED = {"reassoc", "contract", "nsz"}  # sums in another order, so that they use vector instructions


def given(kind: Any, dimensions: int = 1) -> Any:
    """Type of an array that a kernel reads: C-contiguous; the caller's may be read-only."""
    return types.Array(kind, dimensions, "C", readonly=True)


def made(kind: Any, dimensions: int = 1) -> Any:
    """Type of an array that a kernel writes."""
    return types.Array(kind, dimensions, "C")


def row_of(*kinds: Any) -> Any:
    """Type of a tuple of things that belong together; a kernel takes it apart by name."""
    return types.Tuple(kinds)


PAIRS = row_of(given(INT64), given(INT64))  # (where each user's items begin, the items user by user)
MATRIX = row_of(given(INT64), given(INT32), given(FLOAT32))  # CSR over items: (where each row begins, columns, values)


def compiled(signature: Any = None, *, fastmath: bool | set[str] = False) -> Callable[[Kernel], Kernel]:
    """Compile without the interpreter's lock; a signature compiles at import and refuses other types.

    Kernels without a signature are parts of others: they are compiled with them.
    """

    def decorate(function: Kernel) -> Kernel:
        def compile_(cache: bool) -> Kernel:
            arguments = () if signature is None else (signature,)
            machine_code: Kernel = numba.njit(*arguments, nogil=True, fastmath=fastmath, cache=cache)(function)
            return machine_code

        if signature is None:
            return compile_(cache=False)
        try:
            return compile_(cache=True)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return compile_(cache=False)

    return decorate


def place() -> str | None:
    """The folder that keeps the machine code; None where there is none, so that each process compiles anew."""
    from numba.core.caching import CompileResultCacheImpl

    try:
        return str(CompileResultCacheImpl(given).locator.get_cache_path())
    except RuntimeError:
        return None
