"""Quotas: how the slots of one list are dealt out to several domains.

A list with quotas is the lists of its domains dealt out by their shares (smooth weighted round-robin, as strategies are
mixed for ``recommend``). Which domain a slot belongs to is settled before a strategy is drawn for it, so that the
propensity of an item stays what it is in the list of its domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m6rec_udf.errors import ParameterError

MOST = 50  # domains of one list: each costs as much as a list


def given(pairs: Sequence[tuple[str, Any]] | None, domain: str | None) -> dict[str, float] | None:
    """Shares by domain of a SQL map, in the order of the domains; None for no map.

    Raises ParameterError: the list is also asked to stay in one domain.
    """
    if pairs is None:
        return None
    if domain is not None:
        raise ParameterError(
            f"both in_domain := {domain!r} and quotas are given, expected one of them",
            "quotas := map {'movies': 0.7, 'books': 0.3} alone",
        )
    return dict(sorted((name, math.nan if share is None else share) for name, share in pairs))


def require_shares(shares: Mapping[str, float]) -> None:
    """Raise ParameterError unless there are some domains and every share is a number above 0."""
    if not 0 < len(shares) <= MOST:
        raise ParameterError(
            f"quotas names {len(shares)} domains, expected 1 to {MOST}", "quotas := map {'movies': 0.7, 'books': 0.3}"
        )
    for domain, share in shares.items():
        if not 0 < share < math.inf:
            raise ParameterError(
                f"quotas gives {domain!r} the share {share}, expected a number above 0",
                "leave the domain out where it should get no slot",
            )


def plan(length: np.ndarray, unseen: np.ndarray, shares: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Which domain each slot belongs to, and which line of that domain's list it is.

    Where a domain runs dry the others take its slots; lines seen already come when no domain has others left. After n
    slots a domain that has lines left has had its share of them, give or take less than one per other domain.

    Args:
        length, unseen: int ``[users, domains]`` lines of each list, and of those the first ones, not seen yet.
        shares: float64 ``[domains]``, above 0.
        k: slots.

    Returns:
        (domain, place), both int ``[users, k]``; -1 where no line is left.
    """
    rows = np.arange(len(length))
    taken, credit = np.zeros_like(length), np.zeros(length.shape)
    chosen, place = np.full((2, len(length), k), -1)
    for slot in range(k):
        is_left = taken < unseen
        dry = ~is_left.any(axis=1)
        is_left[dry] = (taken < length)[dry]
        some = is_left.any(axis=1)
        live = shares * is_left
        credit += live
        best = np.where(is_left, np.round(credit, 9), -np.inf).argmax(axis=1)
        credit[rows, best] -= live.sum(axis=1)
        chosen[some, slot], place[some, slot] = best[some], taken[rows, best][some]
        taken[rows, best] += some
    return chosen, place
