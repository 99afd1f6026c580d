"""What is looked at first never changes what is found: fronts of vectors, of cells, of candidates, blocks of users."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from m6rec_udf import candidates, listing
from m6rec_udf.candidates import SHUT, Scores, Shut, best_of_rows, fronts
from m6rec_udf.cells import Cells
from m6rec_udf.ranking import FEATURES, Features, features
from m6rec_udf.slate import mix_many, weights_of


def shut_of(snapshot, profile, scores, mask):
    scores.marks.reshape(profile.users, -1)[:] = (~mask).view(np.uint8)
    scores.marks[profile.pair_key] |= candidates.SEEN
    return Shut(mask, profile.row, profile.item, scores.marks, SHUT | candidates.SEEN)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_factors_by_length_find_what_the_whole_product_finds(world, monkeypatch, chunk):
    monkeypatch.setattr(candidates, "WIDE", 9)
    monkeypatch.setattr(candidates, "CHUNK", chunk)
    profile = world.profile(list(world.users.values()))
    snapshot, scores = world.snapshot, Scores(world.snapshot, profile)
    mask = snapshot.is_known & (np.arange(snapshot.n) % 5 > 0)
    shut = shut_of(snapshot, profile, scores, mask)
    front = candidates._front_by_length(snapshot, scores.left["matrix_factorization"], shut)
    got = best_of_rows(*front, scores.of_pairs("matrix_factorization", *front), profile.users, 5)
    row, item = (part.ravel() for part in np.indices((profile.users, snapshot.n)))
    every = scores.of_pairs("matrix_factorization", row, item)
    every[~shut.is_open(row * snapshot.n + item)] = 0
    want = best_of_rows(row, item, every, profile.users, 5)
    assert len(want[0]) > 3 * profile.users
    assert list(zip(*got, strict=True)) == list(zip(*want, strict=True))


def test_a_short_search_ends_where_nothing_longer_can_follow(world, monkeypatch):
    """One item as long as all others together: its like is all that is looked at."""
    profile = world.profile([world.users[user] for user in world.some_users(2, 4)])
    snapshot = replace(world.snapshot, factors=world.snapshot.factors.copy())
    left = Scores(snapshot, profile).left["matrix_factorization"]
    liked = int(np.argmax((left @ snapshot.factors.T).min(axis=0) * snapshot.is_known))
    assert (left @ snapshot.factors[liked] > 0).all()
    snapshot.factors[liked] *= 1e6
    monkeypatch.setattr(candidates, "WIDE", 1)
    monkeypatch.setattr(candidates, "CHUNK", 2)
    scores = Scores(snapshot, profile)
    nothing = profile.row[:0]
    shut = Shut(snapshot.is_known, nothing, nothing, scores.marks, 0)
    row, item = candidates._front_by_length(snapshot, left, shut)
    assert len(row) <= 2 * profile.users
    assert {(user, liked) for user in range(profile.users)} <= set(zip(row.tolist(), item.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_search_by_length_is_exact_and_short(seed, monkeypatch):
    generator = np.random.default_rng(seed)
    n, users = 3000, 20
    vectors = generator.normal(size=(n, 4)) * (1 + np.arange(n))[:, None] ** -0.4
    length = np.linalg.norm(vectors, axis=1)
    order = np.argsort(-length, kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    by_length = order, vectors[order].astype(np.float32), length[order].astype(np.float32)
    snapshot = SimpleNamespace(n=n, factors_by_length=by_length, place_by_length=place)
    left = generator.normal(size=(users, 4)).astype(np.float32)
    row, item = np.repeat(np.arange(users), 30), generator.integers(0, 200, 30 * users)
    mask = generator.random(n) < 0.8
    monkeypatch.setattr(candidates, "CHUNK", 60)
    monkeypatch.setattr(candidates, "WIDE", 40)
    looked_at: list[int] = []

    def counted(scores, wide):
        looked_at.append(scores.size)
        return fronts(scores, wide)

    monkeypatch.setattr(candidates, "fronts", counted)
    found = candidates._front_by_length(snapshot, left, Shut(mask, row, item, np.zeros(0, np.uint8), 0))
    scores = left @ vectors.T.astype(np.float32)
    scores[:, ~mask] = -np.inf
    scores[row, item] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :40]
    assert {(user, i) for user in range(users) for i in best[user].tolist()} <= set(
        zip(*(part.tolist() for part in found), strict=True)
    )
    assert sum(looked_at) < users * n / 2


def test_cells_give_the_scores_of_their_items_and_leave_out_what_is_shut():
    generator = np.random.default_rng(0)
    text = generator.normal(size=(300, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    cells = Cells(text[:12], *_grouped(np.argmax(text @ text[:12].T, axis=1)))
    left = generator.normal(size=(5, 8)).astype(np.float32)
    nearest = np.argsort(-left @ cells.centres.T, axis=1)[:, :4]
    mask = generator.random(300) < 0.7
    lines = cells.scan(left, nearest, text[cells.order], mask)
    place = np.empty(300, np.int64)
    place[cells.order] = np.arange(300)
    lines.close(np.array([0, 3]), place[[17, 17]])
    for row in range(5):
        inside = np.concatenate([cells.order[cells.start[c] : cells.start[c + 1]] for c in nearest[row]])
        column = np.arange(len(inside))
        assert lines.item(np.full(len(inside), row), column).tolist() == inside.tolist()
        is_open = mask[inside] & ~((inside == 17) & (row in (0, 3)))
        np.testing.assert_allclose(lines.score[row, column][is_open], (text[inside] @ left[row])[is_open], atol=1e-5)
        assert not np.isfinite(lines.score[row, column][~is_open]).any()
        assert not np.isfinite(lines.score[row, len(inside) :]).any()


def _grouped(cell):
    order = np.argsort(cell, kind="stable").astype(np.int32)
    return order, np.searchsorted(cell[order], np.arange(13)).astype(np.int32)


ALONE = (  # only trees read them: there is no column of all candidates
    "pair_popularity_gap",
    "pair_price_gap",
    "pair_brand_share",
    "pair_last_share",
    "pair_repurchase_phase",
)


def test_columns_of_features_are_those_of_the_matrix(world):
    profile, found = world.in_memory(world.some_users(6, 12))
    x = features(world.snapshot, profile, found)
    names = tuple(name for name in FEATURES if name not in ALONE)
    columns = Features(world.snapshot, profile, found).columns(names)
    np.testing.assert_array_equal(columns, x[:, [FEATURES.index(name) for name in names]].T)
    at = np.random.default_rng(0).permutation(len(x))[:50]
    np.testing.assert_array_equal(Features(world.snapshot, profile, found).matrix(at), x[at])


def test_satisfaction_is_what_the_trees_add_to_where_they_start(world):
    profile, found = world.in_memory(world.some_users(7, 12))
    model, own = world.snapshot.model, Features(world.snapshot, profile, found)
    whole = model.log_odds(own.matrix())
    np.testing.assert_allclose(model.log_odds(own), whole, atol=1e-9)
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
    own, model = Features(world.snapshot, profile, found), world.snapshot.model
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
