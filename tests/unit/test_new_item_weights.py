"""Item-item weights of items without behaviour, from what their text says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from m6rec_udf.collaborative import closed_form_item_item
from m6rec_udf.new_items import RIDGE, TEXT_NEIGHBOURS, with_new_items, word_vectors

NEW = slice(36, 40)  # without behaviour


@pytest.fixture
def x() -> sp.csr_matrix:
    """200 users, 40 items in two tastes; nobody touched the last four."""
    rng = np.random.default_rng(0)
    taste = np.arange(200)[:, None] % 2 == np.arange(40)[None, :] % 2
    drawn = (rng.random((200, 40)) < np.where(taste, 0.4, 0.05)).astype(np.float32)
    drawn[:, NEW] = 0
    return sp.csr_matrix(drawn)


@pytest.fixture
def weights(x) -> sp.csr_matrix:
    return closed_form_item_item(x, regularisation=10.0, neighbours=100, most_items=1000)


def popularity(x: sp.csr_matrix) -> np.ndarray:
    return np.asarray(x.sum(0)).ravel()


def of_taste(seed: int) -> np.ndarray:
    """Unit vectors that tell the taste of each item."""
    out = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    out = out + 0.1 * np.random.default_rng(seed).random((40, 2)).astype(np.float32)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def test_a_new_item_gets_the_weights_of_what_its_text_is_like(x, weights):
    text, words = of_taste(2), of_taste(3)
    found = with_new_items(weights, text, words, popularity(x), most_items=1000)
    np.testing.assert_array_equal(found[:, :36].toarray(), weights[:, :36].toarray())
    even, odd = found[:36:2, 36].sum(), found[1:36:2, 36].sum()
    assert even > 3 * odd
    # the formula, by hand
    f = np.hstack([text, words]).astype(np.float64)
    inverse = np.linalg.inv(f[:36].T @ f[:36] + RIDGE * np.eye(4))
    near = f[36] @ inverse @ f[:36].T
    best = np.argsort(-near, kind="stable")[:TEXT_NEIGHBOURS]
    share = np.zeros(40)
    share[best] = near[best] / near[best].sum()
    dense = weights.toarray()
    own = dense.sum() / (dense.sum(0) > 0).sum()
    expected = dense @ share + 0.5 * own * share
    np.testing.assert_allclose(found[:, 36].toarray().ravel(), expected, rtol=1e-3, atol=1e-5)


def test_only_weights_that_speak_for_an_item_are_lent(x):
    text, words = of_taste(2), of_taste(3)
    both = closed_form_item_item(x, regularisation=10.0, neighbours=20, most_items=1000, either_sign=True)
    assert (both.data < 0).any()
    found = with_new_items(both, text, words, popularity(x), most_items=1000)
    np.testing.assert_array_equal(found[:, :36].toarray(), both[:, :36].toarray())
    lent = with_new_items(both.maximum(0).tocsr(), text, words, popularity(x), most_items=1000)[:, NEW].toarray()
    assert lent.sum() > 0
    np.testing.assert_allclose(found[:, NEW].toarray(), lent, rtol=1e-6)


@pytest.mark.parametrize("which", ["text", "words"])
def test_text_vectors_and_words_each_speak_alone(x, weights, which):
    told, nothing = of_taste(2), np.zeros((40, 3), np.float32)
    parts = (told, nothing) if which == "text" else (nothing, told)
    found = with_new_items(weights, *parts, popularity(x), most_items=1000)
    assert found[1:36:2, 37].sum() > 3 * found[:36:2, 37].sum()


def test_only_the_most_popular_items_lend_their_columns(x):
    """Each column of the weights holds its own row alone: the rows of a new item's column are its lenders."""
    told, count = of_taste(2), popularity(x)
    most = np.sort(np.lexsort((np.arange(40), -count))[:4])
    own = sp.diags((count > 0).astype(np.float32)).tocsr()
    found = with_new_items(own, told, told, count, most_items=4)
    assert sorted(found[:, 36].tocoo().row) == list(most)


def test_items_without_text_and_known_items_stay_as_they_are(x, weights):
    told, nothing = of_taste(2), np.zeros((40, 2), np.float32)
    assert with_new_items(weights, told, told, np.ones(40), most_items=1000) is weights
    assert with_new_items(weights, nothing, nothing, popularity(x), most_items=1000) is weights


def test_word_vectors_keep_the_cosines_of_tfidf():
    texts = ["Regency teacup, red", "regency CAKESTAND red", "polkadot teacup", "polkadot bag red", "", "unique"]
    found = word_vectors(texts, seed=0)
    words = ["regency", "red", "teacup", "polkadot"]  # those of at least two texts
    has = np.array([[word in text.lower() for word in words] for text in texts], float)
    tfidf = has * np.log(len(texts) / has.sum(0))
    tfidf /= np.maximum(np.linalg.norm(tfidf, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found @ found.T, tfidf @ tfidf.T, atol=1e-5)
    assert not found[4:].any()
    np.testing.assert_array_equal(found, word_vectors(texts, seed=0))


def test_word_vectors_have_the_asked_dimension_and_never_more():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{at}" for at in rng.integers(0, 300, 8)) for _ in range(400)]
    found = word_vectors(texts, seed=0, dimension=16)
    assert found.shape == (400, 16)
    assert (np.linalg.norm(found, axis=1) <= 1 + 1e-5).all()
    assert word_vectors(["nothing", "shared"], seed=0).shape == (2, 1)
    assert word_vectors([], seed=0).shape == (0, 1)


def test_signs_without_spaces_are_words_of_their_own():
    found = word_vectors(["红茶杯", "蓝茶杯 blue", "blue bag", "bag"], seed=0)
    assert found[0] @ found[1] > 0.5  # 茶 and 杯
    assert abs(found[0] @ found[3]) < 1e-5


def test_items_of_the_same_words_get_the_same_weights(x, weights):
    text, words = of_taste(2), of_taste(3)
    text[39], words[39] = text[37], words[37]
    found = with_new_items(weights, text, words, popularity(x), most_items=1000).toarray()
    np.testing.assert_array_equal(found[:, 39], found[:, 37])
    assert (found[:, 38] != found[:, 36]).any()
