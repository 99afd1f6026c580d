"""Item models learned from behaviour: closed-form item-item weights and truncated-SVD factors.

Both are linear in the user's history, so a user is served from the history as it is now: a new event
changes the answer without training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

TAIL_NEIGHBOURS = 30  # of items outside the closed form: few users speak for them
TAIL_PAIRS = 100_000_000  # squares of history lengths, together, that cosines count: what their time goes by
LARGE = 2_000_000  # interactions, from which samples are taken and two rounds of power iteration do as well as four
CELLS_AT_ONCE = 4_000_000  # of sparse rows laid out side by side


def head_items(x: sp.csr_matrix, most_items: int) -> NDArray[np.int64]:
    """The most popular items, ascending item_idx; ties to the lower one, none without behaviour."""
    popularity = np.asarray(x.sum(0)).ravel()
    order = np.lexsort((np.arange(x.shape[1]), -popularity))
    return np.sort(order[: min(most_items, int((popularity > 0).sum()))])


def closed_form_item_item(
    x: sp.csr_matrix,
    *,
    regularisation: float,
    neighbours: int,
    most_items: int,
    tail_weight: float = 0.3,
    either_sign: bool = False,
) -> sp.csr_matrix:
    """Item-item weights ``[n_items, n_items]``: row = item in the history, column = item proposed.

    The most popular ``most_items`` get the closed form of EASE (Steck 2019, "Embarrassingly shallow
    autoencoders for sparse data": B = I - P diag(1/P), P = (X'X + lambda I)^-1); the rest gets cosine
    co-occurrence. Of each proposed item the ``neighbours`` largest positive weights are kept: so it is not the
    many weak links of a popular item that decide. ``either_sign``: the largest of either sign, what speaks against an
    item too. ``tail_weight`` brings the cosines, which are larger, to the scale of the closed form.
    """
    closed, tail = item_item_parts(
        x, regularisation=regularisation, neighbours=neighbours, most_items=most_items, either_sign=either_sign
    )
    return joined(closed, tail, tail_weight)


def item_item_parts(
    x: sp.csr_matrix, *, regularisation: float, neighbours: int, most_items: int, either_sign: bool = False
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """The closed form of the most popular items and the cosines of the others, each ``[n_items, n_items]``."""
    n = x.shape[1]
    head = head_items(x, most_items)
    nothing = sp.csr_matrix((n, n), dtype=np.float32)
    if not len(head):
        return nothing, nothing
    coo = top_per_row(ease(x[:, head], regularisation).T, neighbours, either_sign=either_sign).T.tocoo()
    closed = sp.csr_matrix((coo.data, (head[coo.row], head[coo.col])), shape=(n, n), dtype=np.float32)
    closed.sort_indices()
    popularity = np.asarray(x.sum(0)).ravel()
    if len(head) == int((popularity > 0).sum()):
        return closed, nothing
    is_head = np.zeros(n, bool)
    is_head[head] = True
    return closed, cosines(x, ~is_head)


def joined(closed: sp.csr_matrix, tail: sp.csr_matrix, tail_weight: float) -> sp.csr_matrix:
    """Both parts of ``item_item_parts`` as one matrix of weights, indices sorted."""
    weights = (closed + tail * np.float32(tail_weight)).tocsr()
    weights.sort_indices()
    return weights


def ease(x: sp.csr_matrix, regularisation: float) -> Floats:
    """Dense closed-form weights of all columns of ``x``, ``[n, n]`` with a zero diagonal (Steck 2019)."""
    from scipy.linalg import lapack

    gram = (x.T @ x).toarray().astype(np.float32 if x.shape[1] > 1000 else np.float64)
    gram[np.diag_indices_from(gram)] += regularisation
    potrf, potri = (lapack.spotrf, lapack.spotri) if gram.dtype == np.float32 else (lapack.dpotrf, lapack.dpotri)
    factor, _ = potrf(gram, lower=1, overwrite_a=1)
    inverse, _ = potri(factor, lower=1, overwrite_c=1)  # the lower half; zero above
    scale = -np.diag(inverse)
    weights = inverse + inverse.T
    weights /= scale
    weights[np.diag_indices_from(weights)] = 0
    return np.asarray(weights, np.float32)


def cosines(x: sp.csr_matrix, of: NDArray[np.bool_]) -> sp.csr_matrix:
    """Cosine weights of every pair with at least one item of the mask ``of``, shrunk by 10 users.

    Where there are many interactions, a sample of long histories counts (``sampled``).
    """
    popularity = np.asarray(x.sum(0)).ravel()
    counted = x if x.nnz < LARGE else sampled(x, TAIL_PAIRS)
    scaled = (counted @ sp.diags((1 / np.sqrt(popularity + 10)).astype(np.float32))).tocsr()
    transposed = scaled.T.tocsr()
    tail = np.flatnonzero(of & (popularity > 1))
    blocks = []
    for start in range(0, len(tail), 4096):
        ids = tail[start : start + 4096]
        block = (transposed[ids] @ scaled).tocsr()
        block.data[block.indices == np.repeat(ids, np.diff(block.indptr))] = 0
        coo = top_per_row_sparse(block, TAIL_NEIGHBOURS).tocoo()
        blocks.append((ids[coo.row], coo.col, coo.data))
    if not blocks:
        return sp.csr_matrix((x.shape[1],) * 2, dtype=np.float32)
    row, col, data = (np.concatenate(part) for part in zip(*blocks, strict=True))
    one_way = sp.csr_matrix((data, (row, col)), shape=(x.shape[1],) * 2, dtype=np.float32)
    one_way.sort_indices()
    both = one_way.maximum(top_per_row_sparse(one_way.T.tocsr(), TAIL_NEIGHBOURS)).tocsr()
    both.eliminate_zeros()
    return both


def sampled(x: sp.csr_matrix, most: int) -> sp.csr_matrix:
    """The interactions with histories cut to one length where the squares of their lengths sum to more than ``most``.

    Which items stay is a matter of a hash of user and item: neither the order of the rows nor what is popular.
    """
    length = np.diff(x.indptr).astype(np.int64)
    if int((length * length).sum()) <= most:
        return x
    low, high = 1, int(length.max())  # the longest that keeps to the limit
    while high - low > 1:
        middle = (low + high) // 2
        within = int((np.minimum(length, middle) ** 2).sum()) <= most
        low, high = (middle, high) if within else (low, middle)
    user = np.repeat(np.arange(x.shape[0], dtype=np.uint64), length)
    mixed = (user * np.uint64(0x9E3779B97F4A7C15)) ^ (x.indices.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    chance = (mixed >> np.uint64(40)).astype(np.float32) + 1
    kept = top_per_row_sparse(sp.csr_matrix((chance, x.indices, x.indptr), shape=x.shape), low)
    kept.data = np.ones(kept.nnz, np.float32)
    return kept


def top_per_row(weights: Floats, k: int, *, either_sign: bool = False) -> sp.csr_matrix:
    """The k largest positive weights of each row of a dense matrix, or the k largest of either sign."""
    n = weights.shape[1]
    k, size = min(k, n), np.abs(weights) if either_sign else weights
    best = np.argpartition(-size, k - 1, axis=1)[:, :k] if k < n else np.tile(np.arange(n), (len(weights), 1))
    values = np.take_along_axis(weights, best, 1)
    keep = np.take_along_axis(size, best, 1) > 1e-6
    rows = np.repeat(np.arange(len(weights)), keep.sum(1))
    out = sp.csr_matrix((values[keep], (rows, best[keep])), shape=weights.shape, dtype=np.float32)
    out.sort_indices()
    return out


def top_per_row_sparse(weights: sp.csr_matrix, k: int, *, decimals: int | None = None) -> sp.csr_matrix:
    """The k largest weights of each row of a sparse matrix; ties, after rounding, go to the lower column."""
    weights = weights.tocsr()
    values = weights.data
    length = np.diff(weights.indptr)
    keep = np.ones(weights.nnz, bool)
    long = np.flatnonzero(length > k)
    width = 2 ** np.ceil(np.log2(np.maximum(length[long], 1))).astype(np.int64)  # rows of a like length together
    for wide in np.unique(width):
        rows, at_once = long[width == wide], max(1, CELLS_AT_ONCE // int(wide))
        for start in range(0, len(rows), at_once):
            block = rows[start : start + at_once]
            place = np.arange(wide)
            is_there = place < length[block, None]
            at = np.where(is_there, weights.indptr[block, None] + place, 0)
            lines = values[at] if decimals is None else np.round(values[at], decimals)
            best = _best_of_lines(np.where(is_there, lines, -np.inf), weights.indices[at], k)
            keep[at[is_there]] = best[is_there]
    indptr = np.concatenate([[0], np.cumsum(keep)])[weights.indptr]
    out = sp.csr_matrix((weights.data[keep], weights.indices[keep], indptr), shape=weights.shape)
    out.sort_indices()
    return out


def _best_of_lines(lines: NDArray[Any], columns: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Mask of the k largest of each line, more than k long; equal ones by the lower column."""
    least = np.partition(lines, lines.shape[1] - k, axis=1)[:, lines.shape[1] - k, None]
    best = lines >= least
    surplus = np.flatnonzero(best.sum(1) > k)
    if len(surplus):
        above = lines[surplus] > least[surplus]
        tied = best[surplus] & ~above
        column = np.where(tied, columns[surplus], np.iinfo(columns.dtype).max)
        missing = k - above.sum(1)
        last = np.take_along_axis(np.sort(column, axis=1), missing[:, None] - 1, 1)
        best[surplus] = above | (tied & (column <= last))
    return best


def svd_factors(x: sp.csr_matrix, *, factors: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Item factors and fold-in factors, both ``[n_items, factors]``: score = (x F) V'; and squared singular values.

    Randomised truncated SVD (Halko, Martinsson, Tropp 2011) of the user-item matrix with columns scaled by
    popularity to the power -0.4; PureSVD (Cremonesi, Koren, Turrin 2010) with the scaling of Nikolakopoulos 2019.
    """
    n = x.shape[1]
    popularity = np.asarray(x.sum(0)).ravel()
    scale = _scale(popularity)
    scaled = (x @ sp.diags(scale)).tocsr().astype(np.float32)
    if not x.nnz:
        return np.zeros((n, 1), np.float32), np.zeros((n, 1), np.float32), np.zeros(1, np.float32)
    factors = max(1, min(factors, *x.shape, int((popularity > 0).sum())))
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((n, min(n, factors + 10))).astype(np.float32)
    transposed = scaled.T.tocsr()
    for _ in range(4 if x.nnz < LARGE else 2):
        q, _ = np.linalg.qr(transposed @ (scaled @ q))
    small = scaled @ q
    _, strength, vt = np.linalg.svd(small.T @ small)
    v = q @ vt[:factors].T
    v = v * np.where(v[np.abs(v).argmax(0), np.arange(factors)] < 0, -1.0, 1.0)
    squared = np.asarray(strength[:factors], np.float32)
    return np.asarray(v, np.float32), np.asarray(v * scale[:, None], np.float32), squared


def _scale(popularity: NDArray[Any]) -> Floats:
    """What the columns of the user-item matrix are scaled by."""
    return np.where(popularity > 0, np.maximum(popularity, 1.0) ** -0.4, 0.0).astype(np.float32)


def folded_in(
    x: sp.csr_matrix, factors: Floats, fold_in: Floats, strength: Floats, items: NDArray[Any]
) -> tuple[Floats, Floats]:
    """The factors of ``svd_factors`` with those of ``items`` from their users, the others as they are.

    A column c of the scaled matrix is c = U S v', so v = c' U S^-1, and U S = X F for users who are known by other
    items: v = c' X F / S^2 (folding-in: Berry, Dumais and O'Brien 1995, "Using linear algebra for intelligent
    information retrieval").
    """
    factors, fold_in = factors.copy(), fold_in.copy()
    factors[items], fold_in[items] = 0, 0
    columns = x.tocsc()[:, items] if len(items) else x[:, :0]
    users = np.unique(columns.indices)
    popularity = np.asarray(columns.sum(0)).ravel()
    taste = x[users] @ fold_in
    scale = _scale(popularity)
    found = scale[:, None] * (columns.tocsr()[users].T @ taste) / np.maximum(strength, 1e-6)
    factors[items], fold_in[items] = found, found * scale[:, None]
    return factors, fold_in
