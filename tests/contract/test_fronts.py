"""What is looked at first never changes what is found: fronts of vectors, of cells, of candidates, blocks of users."""

from __future__ import annotations

import itertools
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from m6rec_udf import candidates, listing
from m6rec_udf.arrays import Snapshot
from m6rec_udf.candidates import Scores
from m6rec_udf.cells import Cells
from m6rec_udf.fronts import best_of_rows
from m6rec_udf.kernels import proposing
from m6rec_udf.ranking import features
from m6rec_udf.satisfaction import Columns
from m6rec_udf.slate import mix_many, weights_of


def nothing_barred(users):
    return np.zeros(users + 1, np.int64), np.zeros(0, np.int64)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_search_by_length_finds_what_the_whole_product_finds(world, exclude_seen):
    """Of each strategy with vectors, the best items of all products."""
    profile = world.profile(list(world.users.values()))
    snapshot, scores = world.snapshot, Scores(world.snapshot, profile)
    mask = np.arange(snapshot.n) % 5 > 0
    found = candidates.propose(snapshot, profile, allowed=mask, exclude_seen=exclude_seen, at_least=0)
    row, item = (part.ravel() for part in np.indices((profile.users, snapshot.n)))
    every = scores.of_pairs(row, item)
    every[:, ~(mask & snapshot.is_known)[item]] = 0
    seen = np.isin(row * snapshot.n + item, profile.pair_key)
    for name, score in zip(candidates.SCORED, every, strict=True):
        score[seen & (exclude_seen or name == "semantic")] = 0
        want = best_of_rows(row, item, score, profile.users, candidates.PER_STRATEGY)
        bit = np.uint64(snapshot.settings["strategies"][name])
        mine = (found.supporters >> bit) & np.uint64(1) > 0
        got = set(zip(found.row[mine].tolist(), found.item[mine].tolist(), strict=True))
        assert got == set(zip(*(part.tolist() for part in want), strict=True)), name
        assert len(got) > 3 * profile.users


@pytest.mark.parametrize("dimensions", [4, 40])
@pytest.mark.parametrize("seed", range(5))
def test_the_search_by_length_is_exact(seed, dimensions):
    """What is skipped by its length, or by that of its first dimensions, is not among the best."""
    generator = np.random.default_rng(seed)
    n, users, k = 9000, 7, 40
    factors = generator.normal(size=(n, dimensions)) * (1 + np.arange(n))[:, None] ** -0.4
    factors *= 0.9 ** np.arange(dimensions)
    factors = factors[generator.permutation(n)].astype(np.float32)
    trend = generator.uniform(0.5, 2, n).astype(np.float32)
    known = generator.random(n) < 0.9
    by_length = Snapshot.factors_by_length.func(
        SimpleNamespace(n=n, factors=factors, trend_factor=trend, is_known=known)
    )
    left = generator.normal(size=(users, dimensions)).astype(np.float32)
    mask = known & (generator.random(n) < 0.8)
    seen = np.sort(generator.integers(0, n, (users, 30)))
    found = proposed_by_factors(left, factors, trend, mask, seen, by_length, k)
    score = np.maximum(left.astype(np.float64) @ factors.T, 0) * trend
    score[:, ~mask] = 0
    np.put_along_axis(score, seen, 0, axis=1)
    for user in range(users):
        want = np.argsort(-score[user])[:k]
        got = found.item[found.row == user]
        assert len(got) == k
        assert set(got) == set(want) or np.isclose(score[user, list(set(got) ^ set(want))], score[user, want[-1]]).all()


def proposed_by_factors(left, factors, trend, mask, seen, by_length, k):
    """The kernel's answer where nothing but factors is asked."""
    users, n = len(left), len(factors)
    nothing = np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    nobody = nothing_barred(users)
    one = np.zeros((n, 1), np.float32)
    bits = np.full(9, -1)
    bits[proposing.FACTORS] = 3
    weight = np.zeros(seen.size)
    own = (np.arange(users + 1) * seen.shape[1], seen.ravel()), (weight, weight, weight)
    near = np.zeros((users, 0), np.int64), np.zeros(users, np.int64)
    order = np.arange(n)
    lists = (order, order, order), (np.full(users, -1), np.zeros(1, np.int64), np.zeros(0, np.int64))
    vectors, extra = (left, factors, one[:users], one), (*nobody, nobody[1])
    found = proposing.proposed(
        *own, nobody, extra, mask, (nothing, nothing, trend), vectors, by_length, near, *lists, bits, True, 0, k,
        proposing.workspace(n),
    )  # fmt: skip
    return candidates.Candidates(*found)


def test_cells_give_the_scores_of_their_items():
    generator = np.random.default_rng(0)
    text = generator.normal(size=(300, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    cells = Cells(text[:12], *_grouped(np.argmax(text @ text[:12].T, axis=1)))
    left = generator.normal(size=(5, 8)).astype(np.float32)
    nearest = np.argsort(-left @ cells.centres.T, axis=1)[:, :4]
    lines = cells.scan(left, nearest, text[cells.order])
    for row in range(5):
        inside = np.concatenate([cells.order[cells.start[c] : cells.start[c + 1]] for c in nearest[row]])
        column = np.arange(len(inside))
        assert lines.item(np.full(len(inside), row), column).tolist() == inside.tolist()
        np.testing.assert_allclose(lines.score[row, column], text[inside] @ left[row], atol=1e-5)
        assert not np.isfinite(lines.score[row, len(inside) :]).any()


def _grouped(cell):
    order = np.argsort(cell, kind="stable").astype(np.int32)
    return order, np.searchsorted(cell[order], np.arange(13)).astype(np.int32)


def test_satisfaction_is_what_the_trees_add_to_where_they_start(world):
    profile, found = world.in_memory(world.some_users(7, 12))
    model, own = world.snapshot.model, Columns(features(world.snapshot, profile, found))
    whole = model.log_odds(own.x)
    at = np.random.default_rng(1).permutation(len(whole))[:40]
    np.testing.assert_allclose(model.with_trees(*model.start(own), own, at), whole[at], atol=1e-9)


MIXED = {0: 0.7, 2: 0.1, 4: 0.1, 6: 0.1}


def lists(world, users, request, weights, uniform=None):
    behaviour = world.behaviour([world.users[user] for user in users])
    own = np.repeat(weights_of([weights]), len(users), axis=0)
    return listing.lists_of(world.snapshot, behaviour, request, weights=own[None], uniform=uniform)


def test_the_trees_order_the_front_and_the_rest_follows(world, monkeypatch):
    monkeypatch.setattr(listing, "FRONT", 6)
    users = world.some_users(8, 10)
    got = lists(world, users, listing.Request(k=20, exclude_seen=False), {0: 1.0})
    profile, found = world.in_memory(users, at_least=20)
    own, model = features(world.snapshot, profile, found), world.snapshot.model
    start, satisfaction = np.round(model.start(own)[0], 9), model.predict(own)
    moved = 0
    for row in range(len(users)):
        mine = np.flatnonzero(found.row == row)
        by_start = mine[np.lexsort((found.item[mine], -start[mine]))]
        front = by_start[:6][np.lexsort((found.item[by_start[:6]], -np.round(satisfaction[by_start[:6]], 9)))]
        expected = np.concatenate([front, by_start[6:]])[:20]
        listed = got.row == row
        assert got.item[listed].tolist() == found.item[expected].tolist()
        np.testing.assert_allclose(got.satisfaction[listed], satisfaction[expected], atol=1e-9)
        moved += (front != by_start[:6]).any()
    assert moved > 3, "the trees change the order of the front"


def test_all_is_the_front_of_a_list_that_is_rearranged(world, monkeypatch):
    users = world.some_users(9, 5)
    for request in (listing.Request(diversity=0.3), listing.Request(calibrated=0.5)):
        whole = lists(world, users, request, {0: 1.0})
        monkeypatch.setattr(listing, "FRONT", 3)
        assert lists(world, users, request, {0: 1.0}).item.tolist() == whole.item.tolist()
        monkeypatch.undo()


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_blocks_of_users_do_not_matter(world, monkeypatch, drawn, at_once):
    monkeypatch.setattr(listing, "FRONT", 12)
    users = world.some_users(10, 17)
    uniform = np.random.default_rng(0).random((len(users), 10)) if drawn else None
    boost = 1.0 + (np.arange(world.snapshot.n) % 3) / 4
    request = listing.Request(boost=boost)
    monkeypatch.setattr(listing, "USERS_AT_ONCE", at_once)
    together = lists(world, users, request, MIXED, uniform)
    alone = [
        lists(world, users[at : at + 1], request, MIXED, None if uniform is None else uniform[at : at + 1])
        for at in range(len(users))
    ]
    for name in (field.name for field in fields(listing.Lists)):
        parts = [getattr(own, name) + (at if name == "row" else 0) for at, own in enumerate(alone)]
        np.testing.assert_allclose(getattr(together, name), np.concatenate(parts), atol=1e-9, err_msg=name)


def test_mixing_a_block_is_mixing_each_user():
    generator = np.random.default_rng(3)
    count = np.array([0, 12, 1, 30, 7])
    first = np.concatenate([[0], np.cumsum(count)])
    supporters = generator.integers(0, 16, first[-1]).astype(np.uint64)
    is_seen = generator.random(first[-1]) < 0.2
    order = np.concatenate([a + generator.permutation(b - a) for a, b in itertools.pairwise(first.tolist())])
    weights = weights_of([{0: 0.5, 1: 0.5}, {1: 0.2, 2: 0.8}, {}, {0: 0.9, 3: 0.1}, {3: 1.0}])
    for uniform in (None, generator.random((5, 8))):
        together = mix_many(order, first, supporters, is_seen, weights, 8, uniform)
        for user, (a, b) in enumerate(itertools.pairwise(first.tolist())):
            drawn = None if uniform is None else uniform[user : user + 1]
            alone = mix_many(order[a:b], np.array([0, b - a]), supporters, is_seen, weights[user : user + 1], 8, drawn)
            mine = together.row == user
            for name in ("candidate", "bit", "supporters", "eligible", "propensity"):
                np.testing.assert_array_equal(getattr(together, name)[mine], getattr(alone, name), err_msg=name)
            assert mine.sum() == min(8, b - a)


def test_products_get_their_threads_back_when_the_last_batch_is_done():
    def threads():
        return {own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"}

    before = threads()
    with threadpool_limits(2, "blas"):
        within = threads()
        with listing._one_blas_thread():
            with listing._one_blas_thread():
                assert threads() == {1}
            assert threads() == {1}
        assert threads() == within
    assert threads() == before


@pytest.mark.parametrize("at_once", [1, 5])
def test_users_are_compared_with_all_texts_a_few_at_a_time(world, monkeypatch, at_once):
    profile = world.profile([world.users[user] for user in world.some_users(11, 12)])
    whole = candidates.propose(world.snapshot, profile)
    monkeypatch.setattr(candidates, "SCORES_AT_ONCE", at_once * world.snapshot.n)
    parts = candidates.propose(world.snapshot, profile)
    for name in ("row", "item", "supporters"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
