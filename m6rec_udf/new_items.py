"""Items without behaviour: item-item weights from what their text says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from m6rec_udf.collaborative import top_per_row, top_per_row_sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

WORD_DIMENSIONS = 128
RIDGE = 30.0
TEXT_NEIGHBOURS = 30
LENT_NEIGHBOURS = 100  # largest weights of a known item's column that it lends
OWN_SHARE = 0.5  # of the neighbour itself, beside what it is bought with
NEW_ITEM_NEIGHBOURS = 200
# A sign of Chinese, Japanese or Korean is a token of its own: there are no spaces to part words.
_TOKEN = re.compile("[\u3040-\u9fff\uac00-\ud7a3]|[^\\W\u3040-\u9fff\uac00-\ud7a3]+")


def word_vectors(texts: Sequence[str], *, seed: int, dimension: int = WORD_DIMENSIONS) -> Floats:
    """What the exact words of each text say, float32 ``[n, <= dimension]``; length at most 1, zero without words.

    TF-IDF over the words that at least two texts have, rows of unit length, projected on the leading right singular
    vectors (latent semantic analysis, Deerwester and others 1990; randomised as in Halko 2011): cosines of words
    survive, at a size that a ridge regression takes.
    """
    words = [sorted(set(_TOKEN.findall(text.lower()))) for text in texts]
    counts = Counter(word for own in words for word in own)
    number = {word: at for at, word in enumerate(sorted(w for w, n in counts.items() if n > 1))}
    kept = [[number[word] for word in own if word in number] for own in words]
    if not number:
        return np.zeros((len(texts), 1), np.float32)
    n_texts = np.asarray([counts[word] for word in number], np.float64)
    column = np.fromiter((at for own in kept for at in own), np.int64)
    row = np.repeat(np.arange(len(texts)), [len(own) for own in kept])
    rarity = np.log(len(texts) / n_texts)[column]
    length = np.sqrt(np.bincount(row, rarity * rarity, len(texts)))
    data = (rarity / np.maximum(length[row], 1e-9)).astype(np.float32)
    tfidf = sp.csr_matrix((data, (row, column)), shape=(len(texts), len(number)))
    return np.asarray(tfidf @ _leading(tfidf, min(dimension, *tfidf.shape), seed), np.float32)


def _leading(x: sp.csr_matrix, dimension: int, seed: int) -> Floats:
    """Leading right singular vectors of ``x``, ``[columns, dimension]``, by a randomised range finder."""
    transposed = x.T.tocsr()
    drawn = np.random.default_rng(seed).standard_normal((x.shape[1], min(dimension + 10, x.shape[1])))
    q = np.asarray(drawn, np.float32)
    for _ in range(3):
        q, _ = np.linalg.qr(transposed @ (x @ q))
    small = x @ q
    _, _, vt = np.linalg.svd(small.T @ small)
    return np.asarray(q @ vt[:dimension].T, np.float32)


def with_new_items(
    weights: sp.csr_matrix, text: Floats, words: Floats, popularity: NDArray[Any], *, most_items: int
) -> sp.csr_matrix:
    """Item-item weights with a column for every item without behaviour, made from its text.

    The column of a new item j is a mean of the columns of known items w (their 100 largest positive weights), each
    with half its own diagonal in front (a history that holds w itself speaks for j): sum_w k_jw (B[:, w] + g e_w / 2),
    g the mean column sum of these. The 200 largest entries of the mean are kept. The k_jw
    are the 30 largest shares of known items in a ridge regression from content to the columns of B,
    f_j' (F'F + 30 I)^-1 f_w, over content f = (text vector, word vector): the trained map from attributes to the
    collaborative space of Gantner and others 2010 ("Learning attribute-to-feature mappings for cold-start
    recommendations"). Unlike a cosine it discounts what all items share.

    Args:
        weights: ``[n, n]``, row = item in the history.
        text: unit vectors ``[n, d]``; zero where there is no text.
        words: ``word_vectors`` of the same items.
        popularity: behaviour per item, ``[n]``.
        most_items: only so many of the most popular items lend their columns.
    """
    n = len(popularity)
    order = np.lexsort((np.arange(n), -popularity))
    known = np.sort(order[: min(most_items, int((popularity > 0).sum()))])
    new = np.flatnonzero((popularity <= 0) & (text.any(axis=1) | words.any(axis=1)))
    if not len(known) or not len(new):
        return weights
    columns = weights.tocsc()
    proposed = sp.csr_matrix((columns.data, columns.indices, columns.indptr), shape=weights.shape)  # the transpose
    speaking = proposed.maximum(0).tocsr()
    own = np.zeros(n, np.float32)
    own[known] = OWN_SHARE * float(speaking.sum()) / max(1, int((np.diff(speaking.indptr) > 0).sum()))
    lending = (top_per_row_sparse(speaking, LENT_NEIGHBOURS) + sp.diags(own, format="csr")).tocsr()
    distinct, which = _distinct(text, words, new)
    share = _shares(np.hstack([text[known], words[known]]), known, text, words, distinct)
    blocks = [
        top_per_row_sparse(share[start : start + 2048] @ lending, NEW_ITEM_NEIGHBOURS)
        for start in range(0, len(distinct), 2048)
    ]
    place = np.arange(n)
    place[new] = n + which
    return sp.vstack([proposed, *blocks], format="csr")[place].T.tocsr().astype(np.float32)


def _distinct(text: Floats, words: Floats, new: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """(the first item of each content, which of them each new item is like): equal contents are computed once."""
    first: dict[bytes, int] = {}
    which = [first.setdefault(text[item].tobytes() + words[item].tobytes(), len(first)) for item in new]
    _, at = np.unique(which, return_index=True)
    return new[at], np.asarray(which, np.int64)


def _shares(content: Floats, known: NDArray[Any], text: Floats, words: Floats, new: NDArray[Any]) -> sp.csr_matrix:
    """k_jw of new items j (in the order of ``new``) and known items w, ``[len(new), n]``; a row sums to 1 or 0."""
    f = content.astype(np.float64)
    solved = np.linalg.solve(f.T @ f + RIDGE * np.eye(f.shape[1]), f.T).astype(np.float32)
    rows, columns, shares = [], [], []
    for start in range(0, len(new), 2048):
        block = new[start : start + 2048]
        regression = np.round(np.hstack([text[block], words[block]]) @ solved, 6)  # equal texts stay equal
        best = top_per_row(regression, TEXT_NEIGHBOURS).tocoo()
        rows.append(start + best.row)
        columns.append(known[best.col])
        shares.append(best.data / np.bincount(best.row, best.data, len(block))[best.row])
    parts = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_matrix(parts, shape=(len(new), len(text)), dtype=np.float32)
