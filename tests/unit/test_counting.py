"""Loops of a build over behaviour, held against plain numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from m6rec_udf.kernels.counting import latest_of, ranks_of, steps

USERS, ITEMS, DISTANCES, BACKWARDS = 60, 40, 3, 0.6


def sequences(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users with up to 12 different items each, some with one or none."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS, dtype=np.int32), rng.integers(0, 12, USERS))
    item = [rng.permutation(ITEMS)[:count] for count in np.bincount(user, minlength=USERS)]
    return user, np.concatenate(item).astype(np.int32)


def dense(user, item, recency, own, following) -> np.ndarray:
    found = np.zeros((ITEMS, ITEMS))
    for at in range(len(user)):
        for distance in range(1, DISTANCES + 1):
            if at + distance < len(user) and user[at] == user[at + distance]:
                found[item[at + distance], item[at]] += recency[at] / distance
                found[item[at], item[at + distance]] += BACKWARDS * recency[at] / distance
    return found * own[:, None] * following


@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("is_tied", [False, True], ids=["all apart", "many equal"])
def test_steps_are_the_best_of_each_row_and_of_equal_ones_the_lower_items(k, is_tied):
    user, item = sequences(k)
    rng = np.random.default_rng(7)
    recency = np.ones(len(user)) if is_tied else rng.uniform(0.1, 1, len(user))
    own, following = (np.ones(ITEMS),) * 2 if is_tied else rng.uniform(0.2, 30, (2, ITEMS))
    expected = dense(user, item, recency, own, following)
    indices, data = np.empty(ITEMS * k, np.int32), np.empty(ITEMS * k)
    indptr = steps(user, item, recency, own, following, DISTANCES, BACKWARDS, k, 1e9, indices, data)
    assert len(indptr) == ITEMS + 1
    left_out = 0
    for row in range(ITEMS):
        some = np.flatnonzero(expected[row])
        best = np.sort(some[np.lexsort((some, -np.round(expected[row, some], 9)))][:k])
        left_out += len(some) - len(best)
        np.testing.assert_array_equal(indices[indptr[row] : indptr[row + 1]], best)
        np.testing.assert_allclose(data[indptr[row] : indptr[row + 1]], expected[row, best], rtol=1e-12)
    assert left_out or k == 100


def test_no_behaviour_has_no_steps():
    nothing = np.zeros(0, np.int32)
    indptr = steps(nothing, nothing, *np.ones((3, 3)), 8, 0.6, 100, 1e9, nothing.copy(), np.zeros(0))
    assert indptr.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("greatest", [1.0, 1e12], ids=["packed", "too large to pack"])
def test_ranks_of_a_row(greatest):
    rng = np.random.default_rng(2)
    indptr = np.cumsum([0, 5, 0, 1, 300, 40])
    data = np.round(rng.uniform(0, 1, indptr[-1]), 1) * greatest
    rank = ranks_of(indptr, data, 1e9)
    for first, end in pairwise(indptr):
        order = np.lexsort((np.arange(end - first), -data[first:end]))
        np.testing.assert_array_equal(rank[first:end][order], np.arange(1, end - first + 1))


@pytest.mark.parametrize("longest", [1, 2, 5, 100])
def test_the_latest_pairs_of_a_user_items_of_one_moment_by_chance(longest):
    rng = np.random.default_rng(longest)
    rows = np.unique(rng.integers(0, [12, 6, 40], (500, 3)), axis=0)  # user, moment, item: sorted as the log is
    user, moment, item = (np.ascontiguousarray(column, np.int32) for column in rows.T)
    last = {(u, i): at for at, (u, i) in enumerate(zip(user.tolist(), item.tolist(), strict=True))}
    is_last = np.zeros(len(rows), bool)
    is_last[list(last.values())] = True
    place = np.empty(len(rows), np.int32)
    count = latest_of(is_last, user, item, moment.astype(np.float64), longest, place)

    def chance(at: int) -> tuple[int, int, int]:
        mixed = (int(user[at]) * 7919 + int(item[at]) * 104_729) % 2_147_483_647
        return -int(moment[at]), mixed * mixed % 2_147_483_647, int(item[at])

    expected = []
    for own in range(11, -1, -1):
        expected += sorted((at for (u, _), at in last.items() if u == own), key=chance)[:longest]
    assert place[:count].tolist() == expected
