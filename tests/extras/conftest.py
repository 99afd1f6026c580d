"""Tests of what the optional packages bring; each is skipped where its package is missing (`make extras-test`)."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Warnings of other people's packages are theirs."""
    warnings.simplefilter("ignore")
