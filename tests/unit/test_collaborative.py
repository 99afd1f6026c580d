"""Closed-form item-item weights and SVD factors against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from m6rec_udf.collaborative import (
    closed_form_item_item,
    folded_in,
    sampled,
    svd_factors,
    top_per_row,
    top_per_row_sparse,
)


@pytest.fixture
def x() -> sp.csr_matrix:
    """200 users, 30 items in two tastes."""
    rng = np.random.default_rng(0)
    taste = np.arange(200)[:, None] % 2 == np.arange(30)[None, :] % 2
    return sp.csr_matrix((rng.random((200, 30)) < np.where(taste, 0.4, 0.05)).astype(np.float32))


def ease(x: np.ndarray, regularisation: float) -> np.ndarray:
    """B = I - P diag(1 / P), P = (X'X + lambda I)^-1, zero diagonal (Steck 2019)."""
    p = np.linalg.inv(x.T @ x + regularisation * np.eye(x.shape[1]))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    return b


def test_closed_form_equals_its_formula(x):
    got = closed_form_item_item(x, regularisation=10.0, neighbours=100, most_items=1000).toarray()
    expected = ease(x.toarray().astype(np.float64), 10.0)
    np.testing.assert_allclose(got, np.where(expected > 1e-6, expected, 0), atol=1e-5)
    assert (np.diag(got) == 0).all()


def test_the_weights_are_the_least_squares_answer_with_a_zero_diagonal(x):
    dense, regularisation = x.toarray().astype(np.float64), 10.0
    b = ease(dense, regularisation)

    def loss(weights):
        return ((dense - dense @ weights) ** 2).sum() + regularisation * (weights**2).sum()

    rng = np.random.default_rng(1)
    for _ in range(20):
        step = rng.normal(size=b.shape) * 1e-3
        np.fill_diagonal(step, 0)
        assert loss(b + step) > loss(b)


def test_row_is_the_item_of_the_history_and_column_the_item_proposed(x):
    """Scores are x @ B: people of a taste are proposed items of their taste."""
    b = closed_form_item_item(x, regularisation=10.0, neighbours=100, most_items=1000)
    score = (sp.csr_matrix(np.eye(30, dtype=np.float32)[[0]]) @ b).toarray()[0]
    assert score[2::2].mean() > 5 * abs(score[1::2].mean())


def test_items_beyond_the_closed_form_get_shrunk_cosines(x):
    weights = closed_form_item_item(x, regularisation=10.0, neighbours=100, most_items=10).toarray()
    popularity = np.asarray(x.sum(0)).ravel()
    head = np.sort(np.lexsort((np.arange(30), -popularity))[:10])
    tail = np.setdiff1d(np.arange(30), head)
    dense = x.toarray()
    cosine = dense.T @ dense / np.sqrt(np.outer(popularity + 10, popularity + 10))
    np.fill_diagonal(cosine, 0)
    expected = ease(dense[:, head].astype(np.float64), 10.0)
    np.testing.assert_allclose(weights[np.ix_(head, head)], np.where(expected > 1e-6, expected, 0), atol=1e-5)
    touched = weights[tail]
    np.testing.assert_allclose(touched[touched > 0], (0.3 * cosine[tail])[touched > 0], rtol=1e-5)
    assert (weights[np.ix_(head, tail)] > 0).any()
    assert (np.diag(weights) == 0).all()


def test_nothing_learned_from_nothing():
    empty = sp.csr_matrix((3, 4), dtype=np.float32)
    assert closed_form_item_item(empty, regularisation=1.0, neighbours=100, most_items=10).nnz == 0
    factors, fold_in, _ = svd_factors(empty, factors=8, seed=0)
    assert not factors.any()
    assert not fold_in.any()
    assert len(factors) == 4


def test_the_best_per_row_with_ties_to_the_lower_column():
    dense = np.array([[0.1, 0.5, 0.5, 0.5], [0.0, 0.0, 0.2, -1.0]], np.float32)
    assert top_per_row(dense, 10).toarray().tolist() == np.where(dense > 0, dense, 0).tolist()
    kept = top_per_row_sparse(sp.csr_matrix(dense), 2)
    assert kept[0].indices.tolist() == [1, 2]
    assert top_per_row(dense, 1).nnz == 2
    either = top_per_row(dense, 1, either_sign=True).toarray()
    assert either[0].tolist() in ([0, 0.5, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 0.5])
    assert either[1].tolist() == [0, 0, 0, -1]
    assert top_per_row(dense, 4, either_sign=True).toarray().tolist() == dense.tolist()


@pytest.mark.parametrize("k", [1, 3, 7, 40])
def test_the_best_per_row_against_sorting(k):
    """Rows of every length, many ties, columns in any order."""
    rng = np.random.default_rng(k)
    dense = np.round(rng.random((60, 90)) * (rng.random((60, 90)) < rng.random((60, 1))), 1)
    made = sp.csr_matrix(dense)
    for row in range(60):  # as the product of two sparse matrices leaves them
        a, b = made.indptr[row : row + 2]
        order = a + rng.permutation(b - a)
        made.indices[a:b], made.data[a:b] = made.indices[order].copy(), made.data[order].copy()
    made.has_sorted_indices = False
    kept = top_per_row_sparse(made, k)
    for row in range(60):
        some = np.flatnonzero(dense[row])
        best = some[np.lexsort((some, -dense[row, some]))][:k]
        assert kept[row].indices.tolist() == sorted(best.tolist())
        np.testing.assert_array_equal(kept[row].data, dense[row, np.sort(best)])


def test_ties_after_rounding_go_to_the_lower_column():
    made = sp.csr_matrix(np.array([[0.5, 0.5000000001, 0.2]]))
    assert top_per_row_sparse(made, 1).indices.tolist() == [1]
    assert top_per_row_sparse(made, 1, decimals=9).indices.tolist() == [0]


def test_long_histories_are_sampled_to_one_length(x):
    length = np.diff(x.indptr)
    assert (sampled(x, int((length.astype(int) ** 2).sum())) != x).nnz == 0
    some = sampled(x, 2000)
    kept = np.diff(some.indptr)
    assert kept.max() < length.max()
    np.testing.assert_array_equal(kept, np.minimum(length, kept.max()))
    assert (kept.astype(int) ** 2).sum() <= 2000 < (np.minimum(length, kept.max() + 1).astype(int) ** 2).sum()
    assert (some.data == 1).all()
    assert some.multiply(x).nnz == some.nnz, "a part of what was there"
    shares = np.asarray(some.sum(0) / x.sum(0)).ravel()
    assert shares.min() > 0, "no item is favoured by its number"


def test_svd_spans_the_best_subspace(x):
    popularity = np.asarray(x.sum(0)).ravel()
    scaled = x.toarray() * popularity**-0.4
    _, _, vt = np.linalg.svd(scaled, full_matrices=False)
    factors, fold_in, _ = svd_factors(x, factors=2, seed=0)
    np.testing.assert_allclose(factors.T @ factors, np.eye(2), atol=1e-4)
    np.testing.assert_allclose(np.abs(np.linalg.svd(vt[:2] @ factors)[1]), np.ones(2), atol=1e-2)
    np.testing.assert_allclose(fold_in, factors * (popularity**-0.4)[:, None], rtol=1e-5)


def test_fold_in_scores_rebuild_a_users_taste(x):
    factors, fold_in, _ = svd_factors(x, factors=4, seed=0)
    history = np.zeros((1, 30), np.float32)
    history[0, [0, 2, 4]] = 1
    score = (history @ fold_in @ factors.T)[0]
    assert score[6::2].mean() > 3 * abs(score[1::2].mean())


def test_the_seed_fixes_the_factors_and_the_sign_is_settled(x):
    first, second = (svd_factors(x, factors=5, seed=4)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = svd_factors(x, factors=2, seed=99)[0]
    np.testing.assert_allclose(other, first[:, :2], atol=1e-2)


def test_more_factors_than_items_with_behaviour():
    x = sp.csr_matrix(np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], np.float32))
    factors, fold_in, _ = svd_factors(x, factors=64, seed=0)
    assert factors.shape == fold_in.shape == (4, 2)
    assert np.isfinite(factors).all()
    assert not fold_in[2:].any()


def test_an_item_folded_in_lies_where_one_with_the_same_users_lies(x):
    factors, fold_in, strength = svd_factors(x, factors=4, seed=0)
    popularity = np.asarray(x.sum(0)).ravel()
    scaled = x.toarray() * popularity**-0.4
    np.testing.assert_allclose(strength, np.linalg.svd(scaled)[1][:4] ** 2, rtol=0.05)
    twin = int(popularity.argmax())
    wide = sp.hstack([x, x[:, [twin]], sp.csr_matrix((x.shape[0], 1))]).tocsr().astype(np.float32)
    rows = [np.vstack([array, np.ones((2, 4), np.float32)]) for array in (factors, fold_in)]
    found, found_fold_in = folded_in(wide, *rows, strength, np.asarray([30, 31]))
    np.testing.assert_array_equal(found[:30], factors)
    cosine = found[30] @ factors[twin] / np.linalg.norm(found[30]) / np.linalg.norm(factors[twin])
    assert cosine > 0.95
    assert 0.5 < np.linalg.norm(found[30]) / np.linalg.norm(factors[twin]) < 1.5
    np.testing.assert_allclose(found_fold_in[30], found[30] * popularity[twin] ** -0.4, rtol=1e-5)
    assert not found[31].any()
    assert not found_fold_in[31].any()
