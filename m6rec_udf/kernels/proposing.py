"""What the strategies propose to each user, and what they say of it."""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    REORDERED,
    UINT8,
    UINT64,
    compiled,
    given,
    made,
    types,
)

DIGITS = 100_000  # scores are compared after rounding to so many parts of the user's best one
MARGIN = 1e-5  # of the largest score: wider than the rounding of a product
BINS = 1024
FIRST = 2048  # item vectors looked at first, the longest ones
WIDTH = 128  # more than any bit
SHUT, SEEN, TOUCHED = 1, 2, 4  # marks of an item: not to be proposed, in the user's history, said something about
NOBODY = 127  # in place of a strategy's bit
COVISITATION, ITEM_ITEM, FACTORS, SEMANTIC, POPULAR, TRENDING, FRESH, SEGMENT, BUY_AGAIN = range(9)
TINY = np.float32(np.finfo(np.float32).tiny)


@compiled(fastmath=REORDERED)
def _dot(left, i, right, j):
    """Product of row i of one matrix and row j of another, in float32."""
    out = np.float32(0)
    for at in range(left.shape[1]):
        out += left[i, at] * right[j, at]
    return out


@compiled(fastmath=REORDERED)
def _dot_of_first(left, i, right, j):
    """The same of the first dimensions, as many as the second matrix has."""
    out = np.float32(0)
    for at in range(right.shape[1]):
        out += left[i, at] * right[j, at]
    return out


@compiled()
def _best(value, item, count, k, bins, out):
    """The k best of ``count`` positive scores into ``out``, best first, ties by item; returns how many."""
    largest = 0.0
    for at in range(count):
        largest = max(largest, np.float64(value[at]))
    key = np.empty(count, np.int64)
    bins[:] = 0
    for at in range(count):
        behind = DIGITS - np.int64(np.rint(np.float64(value[at]) / largest * DIGITS))
        key[at] = behind
        bins[behind * BINS // (DIGITS + 1)] += 1
    last, inside = 0, bins[0]
    while inside < k and last < BINS:
        last += 1
        inside += bins[last]
    front = np.empty(inside, np.int64)
    found = 0
    for at in range(count):
        if key[at] * BINS // (DIGITS + 1) <= last:
            front[found] = key[at] << 32 | item[at]
            found += 1
    front[:found].sort()
    found = min(found, k)
    for at in range(found):
        out[at] = front[at] & 0xFFFFFFFF
    return found


@compiled()
def _bound(value, count, k, bins):
    """Not above the k-th largest of ``count`` positive scores, less the rounding of a product; 0 where fewer."""
    if count <= k:
        return np.float32(0)
    largest = np.float32(0)
    for at in range(count):
        largest = max(largest, value[at])
    scale = np.float32(BINS * (1 - 1e-6)) / largest
    bins[:] = 0
    for at in range(count):
        bins[np.int64(value[at] * scale)] += 1
    lowest, above = BINS, 0
    while above < k:
        lowest -= 1
        above += bins[lowest]
    return np.float32((lowest / np.float64(scale)) * (1 - MARGIN) - MARGIN * largest)


@compiled()
def _add_up(first, last, pair_item, weight, indptr, indices, data, total, marks, touched):
    """Sum the rows of the history's items, each times its weight; returns the number of items said something about."""
    count = 0
    for pair in range(first, last):
        own = np.float32(weight[pair])
        if own > 0:
            row = pair_item[pair]
            for at in range(indptr[row], indptr[row + 1]):
                item = indices[at]
                if not marks[item] & TOUCHED:
                    marks[item] |= TOUCHED
                    touched[count] = item
                    count += 1
                total[item] += own * data[at]
    return count


@compiled()
def _by_length(left, user, order, vectors, length, head, tail, mask, marks, reasons, k, value, item, bins, out):
    """The k items whose vectors, times their trend, have the largest products with the user's.

    The longest vectors come first: no product is larger than that of the lengths, so the search ends where that
    cannot reach the k best any more; nor is what the dimensions behind the first ones add. Exact (Li, Chan, Yiu and
    Mamoulis 2017, "FEXIPRO").
    """
    reach = np.float32(np.sqrt(_dot(left, user, left, user)) * (1 + MARGIN))
    rest = np.float32(0)
    for at in range(head.shape[1], left.shape[1]):
        rest += left[user, at] * left[user, at]
    rest = np.float32(np.sqrt(rest) * (1 + MARGIN))
    count, start, largest = 0, 0, np.float32(0)
    bound = np.float32(0)
    while reach > 0 and start < len(order):
        stop = min(2 * start + FIRST, len(order))
        for at in range(start, stop):
            if bound > 0 and _dot_of_first(left, user, head, at) + rest * tail[at] < bound:
                continue
            score = _dot(left, user, vectors, at)
            if score >= TINY and score >= bound:
                own = order[at]
                if mask[own] and not marks[own] & reasons:
                    value[count], item[count] = score, own
                    largest = max(largest, score)
                    count += 1
        start = stop
        if count > k:
            bound = max(bound, _bound(value, count, k, bins) - np.float32(MARGIN) * largest)
            kept = 0
            for at in range(count):
                if value[at] >= bound:
                    value[kept], item[kept] = value[at], item[at]
                    kept += 1
            count = kept
            if start < len(order) and reach * length[start] < bound:
                break
    return _best(value, item, count, k, bins, out)


@compiled()
def _first_open(order, begin, end, mask, marks, reasons, k, out):
    count, at = 0, begin
    while at < end and count < k:
        if mask[order[at]] and not marks[order[at]] & reasons:
            out[count] = order[at]
            count += 1
        at += 1
    return count


@compiled()
def _added(proposals, count, items, found, bit):
    for at in range(found):
        proposals[count + at] = items[at] * WIDTH + bit
    return count + found


@compiled()
def _distinct(proposals, count):
    """Sort what was proposed; returns the number of items."""
    proposals[:count].sort()
    out = 0
    for at in range(count):
        if at == 0 or proposals[at] // WIDTH != proposals[at - 1] // WIDTH:
            out += 1
    return out


_WORK = (made(UINT8), made(FLOAT32), made(FLOAT32), made(INT32), made(INT32), made(FLOAT32), made(INT32))


def workspace(n: int) -> tuple[np.ndarray, ...]:
    """Arrays of one entry per item for ``proposed`` and ``nearest_of`` to work on."""
    zeros = np.zeros(n, np.uint8), np.zeros(n, np.float32), np.zeros(n, np.float32)
    return (*zeros, np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.int32))


_PAIRS = (given(INT64), given(INT64))  # where each user's start, the item of each
_CSR = (given(INT64), given(INT32), given(FLOAT32))


@compiled(types.Array(FLOAT32, 2, "C")(*_PAIRS, given(FLOAT64), given(FLOAT32, 2)), fastmath=REORDERED)
def folded(first, pair_item, weight, vectors):
    """Sum of the vectors of each user's items, times their positive weights, float32 ``[users, d]``."""
    out = np.zeros((len(first) - 1, vectors.shape[1]), np.float32)
    for user in range(len(out)):
        for pair in range(first[user], first[user + 1]):
            own = np.float32(weight[pair])
            if own > 0:
                item = pair_item[pair]
                for at in range(vectors.shape[1]):
                    out[user, at] += own * vectors[item, at]
    return out


@compiled(types.Array(FLOAT32, 2, "C")(given(FLOAT32, 2)), fastmath=REORDERED)
def of_length_one(vectors):
    """Each row over its length; zeros stay."""
    out = np.empty_like(vectors)
    for row in range(len(vectors)):
        length = max(np.sqrt(_dot(vectors, row, vectors, row)), np.float32(1e-12))
        for at in range(vectors.shape[1]):
            out[row, at] = vectors[row, at] / length
    return out


@compiled(types.Array(FLOAT64, 2, "C")(given(FLOAT32, 2), given(FLOAT32, 2)))
def products(left, right):
    """Products of all rows with all rows after rounding to 6 digits, the same bits whatever stands beside them."""
    out = np.empty((len(left), len(right)), np.float64)
    for i in range(len(left)):
        for j in range(len(right)):
            out[i, j] = np.rint(np.float64(_dot(left, i, right, j)) * 1e6) / 1e6
    return out


@compiled(
    types.Tuple((types.Array(INT64, 2, "C"), types.Array(INT64, 1, "C"), types.Array(INT64, 1, "C")))(
        given(FLOAT32, 2),
        given(INT64, 2),
        given(INT32),
        given(INT32),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(BOOL),
        *_PAIRS,
        *_PAIRS,
        INT64,
        INT64,
        *_WORK,
    )
)
def nearest_of(
    line,
    cells,
    cell_start,
    cell_order,
    left,
    text,
    mask,
    first,
    pair_item,
    barred_first,
    barred_item,
    k,
    wide,
    marks,
    _visits,
    _links,
    _visited,
    _linked,
    value,
    item,
):
    """The k open items of some cells that are nearest to each user's vector.

    Args:
        line: float32 ``[users, w]`` products of the user's vector and the items of ``cells`` (int64 ``[users, c]``),
            one cell behind the other; they select a front, whose scores are computed pair by pair. Without columns all
            scores are.

    Returns (items ``[users, k]``, how many there are, how many open items were looked at).
    """
    users = len(line)
    out, found, looked = np.empty((users, k), np.int64), np.zeros(users, np.int64), np.zeros(users, np.int64)
    bins = np.empty(BINS + 1, np.int64)
    is_exact = line.shape[1] == 0
    for user in range(users):
        for pair in range(first[user], first[user + 1]):
            marks[pair_item[pair]] = SEEN
        for pair in range(barred_first[user], barred_first[user + 1]):
            marks[barred_item[pair]] = SHUT
        count, column = 0, 0
        for probe in range(cells.shape[1]):
            cell = cells[user, probe]
            for at in range(cell_start[cell], cell_start[cell + 1]):
                own = cell_order[at]
                if mask[own] and not marks[own]:
                    score = _dot(left, user, text, own) if is_exact else line[user, column]
                    if score >= TINY:
                        value[count], item[count] = score, own
                        count += 1
                column += 1
        kept = count
        if not is_exact:
            bound, kept = _bound(value, count, wide, bins), 0
            for at in range(count):
                if value[at] >= bound:
                    score = _dot(left, user, text, item[at])
                    if score > 0:
                        value[kept], item[kept] = score, item[at]
                        kept += 1
        looked[user] = count
        found[user] = _best(value, item, kept, k, bins, out[user])
        for pair in range(first[user], first[user + 1]):
            marks[pair_item[pair]] = 0
        for pair in range(barred_first[user], barred_first[user + 1]):
            marks[barred_item[pair]] = 0
    return out, found, looked


@compiled(
    types.Tuple(
        (
            types.Array(INT64, 1, "C"),
            types.Array(INT64, 1, "C"),
            types.Array(UINT64, 1, "C"),
            types.Array(BOOL, 1, "C"),
            types.Array(FLOAT32, 2, "C"),
        )
    )(
        *_PAIRS,
        given(FLOAT64),
        given(FLOAT64),
        given(FLOAT64),
        given(INT64),
        *_PAIRS,
        *_PAIRS,
        given(INT64),
        given(BOOL),
        *_CSR,
        *_CSR,
        given(FLOAT32),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(INT64),
        given(FLOAT32, 2),
        given(FLOAT32),
        given(FLOAT32, 2),
        given(FLOAT32),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(INT64, 2),
        given(INT64),
        given(INT64),
        given(INT64),
        given(INT64),
        *_PAIRS,
        given(INT64),
        BOOL,
        INT64,
        INT64,
        *_WORK,
    )
)
def proposed(
    first,
    pair_item,
    long_weight,
    short_weight,
    again,
    segment,
    barred_first,
    barred_item,
    extra_first,
    extra_item,
    extra_bit,
    mask,
    transition_start,
    transition_item,
    transition_data,
    item_item_start,
    item_item_item,
    item_item_data,
    trend,
    factor_of_user,
    factors,
    by_length,
    longest,
    length,
    head,
    tail,
    text_of_user,
    text,
    near,
    near_found,
    popular,
    trending,
    fresh,
    segment_start,
    segment_item,
    bits,
    exclude_seen,
    at_least,
    k,
    marks,
    visits,
    links,
    visited,
    linked,
    value,
    item,
):
    """The candidates of a block of users: row, item, supporters, is_seen, and what the scored strategies say.

    The arguments are those of ``candidates.propose`` as arrays; pairs, barred and extra items stand user by user and
    begin at ``*_first``. ``bits`` is the bit of each strategy of this module, -1 where it is not asked. The last seven
    are those of ``workspace``: marks, visits and links are zero and are left so.
    """
    users, n = len(first) - 1, len(mask)
    wanted = max(k, at_least)
    least = 8 * k + min(wanted, n) + min(at_least, n)
    room = users * least + len(pair_item) + len(extra_item) + len(pair_item)
    rows, items = np.empty(room, np.int64), np.empty(room, np.int64)
    supporters, is_seen = np.zeros(room, np.uint64), np.zeros(room, np.bool_)
    scores = np.empty((4, room), np.float32)
    bins = np.empty(BINS + 1, np.int64)
    own = np.empty(max(k, min(wanted, n), 1), np.int64)
    out = 0
    for user in range(users):
        a, b = first[user], first[user + 1]
        for pair in range(a, b):
            marks[pair_item[pair]] |= SEEN
        for pair in range(barred_first[user], barred_first[user + 1]):
            marks[barred_item[pair]] |= SHUT
        reasons = SHUT | SEEN if exclude_seen else SHUT
        proposals = np.empty(least + (b - a) + extra_first[user + 1] - extra_first[user], np.int64)
        count = 0

        visited_count = _add_up(
            a, b, pair_item, short_weight, transition_start, transition_item, transition_data, visits, marks, visited
        )
        found = 0
        for at in range(visited_count):
            one = visited[at]
            marks[one] &= ~TOUCHED
            if mask[one] and not marks[one] & reasons and visits[one] >= TINY:
                value[found], item[found] = visits[one], one
                found += 1
        if bits[COVISITATION] >= 0:
            count = _added(proposals, count, own, _best(value, item, found, k, bins, own), bits[COVISITATION])

        linked_count = _add_up(
            a, b, pair_item, long_weight, item_item_start, item_item_item, item_item_data, links, marks, linked
        )
        found = 0
        for at in range(linked_count):
            one = linked[at]
            marks[one] &= ~TOUCHED
            links[one] *= trend[one]
            if mask[one] and not marks[one] & reasons and links[one] >= TINY:
                value[found], item[found] = links[one], one
                found += 1
        if bits[ITEM_ITEM] >= 0:
            count = _added(proposals, count, own, _best(value, item, found, k, bins, own), bits[ITEM_ITEM])

        if bits[FACTORS] >= 0:
            found = _by_length(
                factor_of_user,
                user,
                by_length,
                longest,
                length,
                head,
                tail,
                mask,
                marks,
                reasons,
                k,
                value,
                item,
                bins,
                own,
            )
            count = _added(proposals, count, own, found, bits[FACTORS])
        if bits[SEMANTIC] >= 0:
            count = _added(proposals, count, near[user], near_found[user], bits[SEMANTIC])
        if bits[POPULAR] >= 0:
            found = _first_open(popular, 0, len(popular), mask, marks, reasons, wanted, own)
            count = _added(proposals, count, own, found, bits[POPULAR])
        if bits[TRENDING] >= 0:
            found = _first_open(trending, 0, len(trending), mask, marks, reasons, k, own)
            count = _added(proposals, count, own, found, bits[TRENDING])
        if bits[FRESH] >= 0:
            found = _first_open(fresh, 0, len(fresh), mask, marks, reasons, k, own)
            count = _added(proposals, count, own, found, bits[FRESH])
        if bits[SEGMENT] >= 0 and segment[user] >= 0:
            begin, end = segment_start[segment[user]], segment_start[segment[user] + 1]
            found = _first_open(segment_item, begin, end, mask, marks, reasons, k, own)
            count = _added(proposals, count, own, found, bits[SEGMENT])
        if bits[BUY_AGAIN] >= 0 and not exclude_seen:
            score, pairs = np.empty(b - a, np.float64), np.empty(b - a, np.int64)
            found = 0
            for pair in range(a, b):
                one = pair_item[pair]
                if again[pair] > 0 and mask[one] and not marks[one] & SHUT:
                    score[found] = -np.rint(again[pair] * 1e9) / 1e9
                    pairs[found] = one
                    found += 1
            best = np.argsort(score[:found], kind="mergesort")[:k]  # pairs stand by item, so ties do too
            for at in best:
                proposals[count] = pairs[at] * WIDTH + bits[BUY_AGAIN]
                count += 1
        for at in range(extra_first[user], extra_first[user + 1]):
            one = extra_item[at]
            if mask[one] and not marks[one] & reasons:
                proposals[count] = one * WIDTH + extra_bit[at]
                count += 1

        distinct = _distinct(proposals, count)
        if bits[POPULAR] < 0 and distinct < at_least:
            found = _first_open(popular, 0, len(popular), mask, marks, reasons, min(at_least, n), own)
            count = _added(proposals, count, own, found, NOBODY)
            distinct = _distinct(proposals, count)
        if distinct < at_least:
            known = count
            for pair in range(a, b):
                one = pair_item[pair]
                if mask[one] and not marks[one] & SHUT:
                    at = np.searchsorted(proposals[:known], one * WIDTH)
                    if at == known or proposals[at] // WIDTH != one:
                        proposals[count] = one * WIDTH + NOBODY
                        marks[one] |= TOUCHED
                        count += 1
            proposals[:count].sort()

        for at in range(count):
            one, bit = proposals[at] // WIDTH, proposals[at] % WIDTH
            if at == 0 or proposals[at - 1] // WIDTH != one:
                rows[out], items[out] = user, one
                is_seen[out] = marks[one] & TOUCHED > 0
                marks[one] &= ~TOUCHED
                scores[0, out] = visits[one]
                scores[1, out] = links[one]
                product = max(_dot(factor_of_user, user, factors, one), np.float32(0))
                scores[2, out] = product * trend[one]
                scores[3, out] = _dot(text_of_user, user, text, one)
                out += 1
            if bit != NOBODY:
                supporters[out - 1] |= np.uint64(1) << np.uint64(bit)

        for at in range(visited_count):
            visits[visited[at]] = 0
        for at in range(linked_count):
            links[linked[at]] = 0
        for pair in range(a, b):
            marks[pair_item[pair]] = 0
        for pair in range(barred_first[user], barred_first[user + 1]):
            marks[barred_item[pair]] = 0
    return rows[:out].copy(), items[:out].copy(), supporters[:out].copy(), is_seen[:out].copy(), scores[:, :out].copy()


@compiled(
    types.Array(FLOAT32, 2, "C")(
        *_PAIRS,
        given(FLOAT64),
        given(FLOAT64),
        *_CSR,
        *_CSR,
        given(FLOAT32),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(INT64),
        given(INT64),
    )
)
def scores_of(
    first,
    pair_item,
    long_weight,
    short_weight,
    transition_start,
    transition_item,
    transition_data,
    item_item_start,
    item_item_item,
    item_item_data,
    trend,
    factor_of_user,
    factors,
    text_of_user,
    text,
    row,
    item,
):
    """What the scored strategies say of any (row, item) pairs, float32 ``[4, pairs]``; rows ascending."""
    out = np.zeros((4, len(row)), np.float32)
    n = len(trend)
    marks, touched = np.zeros(n, np.uint8), np.empty(n, np.int32)
    visits, links = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for at in range(len(row)):
        user, one = row[at], item[at]
        if at == 0 or row[at - 1] != user:
            visits[:] = 0
            links[:] = 0
            a, b = first[user], first[user + 1]
            marks[:] = 0
            _add_up(
                a,
                b,
                pair_item,
                short_weight,
                transition_start,
                transition_item,
                transition_data,
                visits,
                marks,
                touched,
            )
            marks[:] = 0
            _add_up(
                a, b, pair_item, long_weight, item_item_start, item_item_item, item_item_data, links, marks, touched
            )
        out[0, at], out[1, at] = visits[one], links[one] * trend[one]
        out[2, at] = max(_dot(factor_of_user, user, factors, one), np.float32(0)) * trend[one]
        out[3, at] = _dot(text_of_user, user, text, one)
    return out
