"""Shared fixtures: the small synthetic shop of shop_world.py, built once per session."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
import shop_world


@pytest.fixture(scope="session")
def shop_frames() -> dict[str, pl.DataFrame]:
    """items, users, events and feedback of the shop; do not change them in place."""
    return shop_world.frames()


@pytest.fixture(scope="session")
def built_file(tmp_path_factory: pytest.TempPathFactory, shop_frames: dict[str, pl.DataFrame]) -> Path:
    """A closed file with the shop loaded and built; copy it before writing (see ``shop``)."""
    path = tmp_path_factory.mktemp("built") / "shop.duckdb"
    shop_world.fill(path, shop_frames).close()
    return path


@pytest.fixture
def shop_file(built_file: Path, tmp_path: Path) -> Path:
    """A closed copy of the built file, for one test."""
    return Path(shutil.copy(built_file, tmp_path / "shop.duckdb"))


@pytest.fixture
def shop(shop_file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A dressed connection to a copy of the built file, for one test: write to it at will."""
    con = shop_world.connect(shop_file)
    yield con
    con.close()


@pytest.fixture(scope="session")
def reader(built_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A dressed connection shared by the tests that only read."""
    path = shutil.copy(built_file, tmp_path_factory.mktemp("reader") / "shop.duckdb")
    con = shop_world.connect(path)
    yield con
    con.close()
