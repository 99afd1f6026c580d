"""What the strategies propose to each user, and what they say of it."""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    MATRIX,
    PAIRS,
    REORDERED,
    UINT8,
    UINT64,
    compiled,
    given,
    made,
    row_of,
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
def _add_up(user, users, weight, matrix, total, marks, touched):
    """Sum the rows of the history's items, each times its weight; returns the number of items said something about."""
    first, pair_item = users
    begin, column, value = matrix
    count = 0
    for pair in range(first[user], first[user + 1]):
        own = np.float32(weight[pair])
        if own > 0:
            row = pair_item[pair]
            for at in range(begin[row], begin[row + 1]):
                item = column[at]
                if not marks[item] & TOUCHED:
                    marks[item] |= TOUCHED
                    touched[count] = item
                    count += 1
                total[item] += own * value[at]
    for at in range(count):
        marks[touched[at]] &= ~TOUCHED
    return count


@compiled()
def _open(total, touched, count, mask, marks, reasons, value, item):
    """The scores of what may be proposed and has one; returns how many."""
    found = 0
    for at in range(count):
        one = touched[at]
        if mask[one] and not marks[one] & reasons and total[one] >= TINY:
            value[found], item[found] = total[one], one
            found += 1
    return found


@compiled()
def _mark(user, users, marks, mark):
    first, item = users
    for at in range(first[user], first[user + 1]):
        marks[item[at]] |= mark


@compiled()
def _clear(user, users, marks):
    first, item = users
    for at in range(first[user], first[user + 1]):
        marks[item[at]] = 0


@compiled()
def _by_length(left, user, by_length, mask, marks, reasons, k, value, item, bins, out):
    """The k items whose vectors, times their trend, have the largest products with the user's.

    The longest vectors come first: no product is larger than that of the lengths, so the search ends where that
    cannot reach the k best any more; nor is what the dimensions behind the first ones add. Exact (Li, Chan, Yiu and
    Mamoulis 2017, "FEXIPRO").
    """
    order, vectors, length, head, tail = by_length
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


@compiled()
def _due_again(user, users, again, mask, marks, k, out):
    """The items of the history that are most due, into ``out``, ties by item; returns how many."""
    first, pair_item = users
    a, b = first[user], first[user + 1]
    score, items = np.empty(b - a, np.float64), np.empty(b - a, np.int64)
    found = 0
    for pair in range(a, b):
        one = pair_item[pair]
        if again[pair] > 0 and mask[one] and not marks[one] & SHUT:
            score[found], items[found] = -np.rint(again[pair] * 1e9) / 1e9, one
            found += 1
    best = np.argsort(score[:found], kind="mergesort")[:k]  # pairs stand by item, so ties do too
    for at in range(len(best)):
        out[at] = items[best[at]]
    return len(best)


@compiled()
def _add_history(user, users, mask, marks, proposals, count):
    """Add the items of the history that are not among the sorted proposals and mark them; returns the new count."""
    first, pair_item = users
    known = count
    for pair in range(first[user], first[user + 1]):
        one = pair_item[pair]
        if mask[one] and not marks[one] & SHUT:
            at = np.searchsorted(proposals[:known], one * WIDTH)
            if at == known or proposals[at] // WIDTH != one:
                proposals[count] = one * WIDTH + NOBODY
                marks[one] |= TOUCHED
                count += 1
    proposals[:count].sort()
    return count


_WORK = row_of(made(UINT8), made(FLOAT32), made(FLOAT32), made(INT32), made(INT32), made(FLOAT32), made(INT32))


def workspace(n: int) -> tuple[np.ndarray, ...]:
    """Arrays of one entry per item for kernels to work on: marks, visits, links, visited, linked, value, item.

    The first three are zero, and are left so.
    """
    zeros = np.zeros(n, np.uint8), np.zeros(n, np.float32), np.zeros(n, np.float32)
    return (*zeros, np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.int32))


@compiled(types.Array(FLOAT32, 2, "C")(PAIRS, given(FLOAT64), given(FLOAT32, 2)), fastmath=REORDERED)
def folded(users, weight, vectors):
    """Sum of the vectors of each user's items, times their positive weights, float32 ``[users, d]``."""
    first, pair_item = users
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
        row_of(given(INT64, 2), given(INT32), given(INT32)),
        given(FLOAT32, 2),
        given(FLOAT32, 2),
        given(BOOL),
        PAIRS,
        PAIRS,
        INT64,
        INT64,
        _WORK,
    )
)
def nearest_of(line, cells, left, text, mask, users, barred, k, wide, work):
    """The k open items of some cells that are nearest to each user's vector.

    Args:
        line: float32 ``[users, w]`` products of the user's vector (``left``) and the items of the user's cells, one
            cell behind the other; they select a front of ``wide``, whose scores are computed pair by pair. Without
            columns all scores are.
        cells: (int64 ``[users, c]`` cells of each user, where each cell begins, items cell by cell).
        work: see ``workspace``.

    Returns (items ``[users, k]``, how many there are, how many open items were looked at).
    """
    nearest, cell_start, cell_order = cells
    marks, _, _, _, _, value, item = work
    rows = len(line)
    out, found, looked = np.empty((rows, k), np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    bins = np.empty(BINS + 1, np.int64)
    is_exact = line.shape[1] == 0
    for user in range(rows):
        _mark(user, users, marks, SEEN)
        _mark(user, barred, marks, SHUT)
        count, column = 0, 0
        for probe in range(nearest.shape[1]):
            cell = nearest[user, probe]
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
        _clear(user, users, marks)
        _clear(user, barred, marks)
    return out, found, looked


_LINKS = row_of(MATRIX, MATRIX, given(FLOAT32))  # co-visitation, item-item, the trend of each item
_VECTORS = row_of(given(FLOAT32, 2), given(FLOAT32, 2), given(FLOAT32, 2), given(FLOAT32, 2))


@compiled()
def _say(out, at, user, one, visits, links, trend, factor_of_user, factors, text_of_user, text):
    """What the scored strategies say of an item, into column ``at``."""
    out[0, at] = visits[one]
    out[1, at] = links[one]
    out[2, at] = max(_dot(factor_of_user, user, factors, one), np.float32(0)) * trend[one]
    out[3, at] = _dot(text_of_user, user, text, one)


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
        PAIRS,
        row_of(given(FLOAT64), given(FLOAT64), given(FLOAT64)),
        PAIRS,
        row_of(given(INT64), given(INT64), given(INT64)),
        given(BOOL),
        _LINKS,
        _VECTORS,
        row_of(given(INT64), given(FLOAT32, 2), given(FLOAT32), given(FLOAT32, 2), given(FLOAT32)),
        row_of(given(INT64, 2), given(INT64)),
        row_of(given(INT64), given(INT64), given(INT64)),
        row_of(given(INT64), given(INT64), given(INT64)),
        given(INT64),
        BOOL,
        INT64,
        INT64,
        _WORK,
    )
)
def proposed(
    users,
    weights,
    barred,
    extra,
    mask,
    links_and_trend,
    vectors,
    by_length,
    nearest,
    orders,
    segments,
    bits,
    exclude_seen,
    at_least,
    k,
    work,
):
    """The candidates of a block of users: row, item, supporters, is_seen, and what the scored strategies say.

    Args:
        users, barred: the items of the histories; those that are not to be shown.
        weights: of the pairs of ``users``: long, short, how much the item is due again.
        extra: (where each user's begin, item, bit) of what was proposed beforehand.
        mask: bool ``[n]`` items that may be proposed.
        links_and_trend: co-visitation, item-item, the trend that multiplies item-item and factors.
        vectors: factors of the users, of the items, text vectors of the users, of the items.
        by_length: (item_idx, factors times trend, their length, their first dimensions, the length of the rest) of the
            items, the longest first.
        nearest: (items nearest in text ``[users, k]``, how many there are).
        orders: items by popularity, trend, age.
        segments: (each user's segment or -1, where each segment's items begin, items).
        bits: the bit of each strategy of this module, -1 where it is not asked.
        work: see ``workspace``.
    """
    first, pair_item = users
    long_weight, short_weight, again = weights
    extra_first, extra_item, extra_bit = extra
    following, linked_items, trend = links_and_trend
    factor_of_user, factors, text_of_user, text = vectors
    near, near_found = nearest
    popular, trending, fresh = orders
    segment, segment_start, segment_item = segments
    marks, visits, links, visited, linked, value, item = work
    rows, n = len(first) - 1, len(mask)
    wanted = max(k, at_least)
    least = 8 * k + min(wanted, n) + min(at_least, n)
    room = rows * least + len(pair_item) + len(extra_item) + len(pair_item)
    row, items = np.empty(room, np.int64), np.empty(room, np.int64)
    supporters, is_seen = np.zeros(room, np.uint64), np.zeros(room, np.bool_)
    scores = np.empty((4, room), np.float32)
    bins = np.empty(BINS + 1, np.int64)
    own = np.empty(max(k, min(wanted, n), 1), np.int64)
    out = 0
    for user in range(rows):
        _mark(user, users, marks, SEEN)
        _mark(user, barred, marks, SHUT)
        reasons = SHUT | SEEN if exclude_seen else SHUT
        length = first[user + 1] - first[user] + extra_first[user + 1] - extra_first[user]
        proposals = np.empty(least + length, np.int64)
        count = 0

        visited_count = _add_up(user, users, short_weight, following, visits, marks, visited)
        if bits[COVISITATION] >= 0:
            found = _open(visits, visited, visited_count, mask, marks, reasons, value, item)
            count = _added(proposals, count, own, _best(value, item, found, k, bins, own), bits[COVISITATION])
        linked_count = _add_up(user, users, long_weight, linked_items, links, marks, linked)
        for at in range(linked_count):
            links[linked[at]] *= trend[linked[at]]
        if bits[ITEM_ITEM] >= 0:
            found = _open(links, linked, linked_count, mask, marks, reasons, value, item)
            count = _added(proposals, count, own, _best(value, item, found, k, bins, own), bits[ITEM_ITEM])
        if bits[FACTORS] >= 0:
            found = _by_length(factor_of_user, user, by_length, mask, marks, reasons, k, value, item, bins, own)
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
            count = _added(proposals, count, own, _due_again(user, users, again, mask, marks, k, own), bits[BUY_AGAIN])
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
            count = _add_history(user, users, mask, marks, proposals, count)

        for at in range(count):
            one, bit = proposals[at] // WIDTH, proposals[at] % WIDTH
            if at == 0 or proposals[at - 1] // WIDTH != one:
                row[out], items[out] = user, one
                is_seen[out] = marks[one] & TOUCHED > 0
                marks[one] &= ~TOUCHED
                _say(scores, out, user, one, visits, links, trend, factor_of_user, factors, text_of_user, text)
                out += 1
            if bit != NOBODY:
                supporters[out - 1] |= np.uint64(1) << np.uint64(bit)

        for at in range(visited_count):
            visits[visited[at]] = 0
        for at in range(linked_count):
            links[linked[at]] = 0
        _clear(user, users, marks)
        _clear(user, barred, marks)
    return row[:out].copy(), items[:out].copy(), supporters[:out].copy(), is_seen[:out].copy(), scores[:, :out].copy()


@compiled(
    types.Array(FLOAT32, 2, "C")(
        PAIRS, row_of(given(FLOAT64), given(FLOAT64)), _LINKS, _VECTORS, row_of(given(INT64), given(INT64))
    )
)
def scores_of(users, weights, links_and_trend, vectors, pairs):
    """What the scored strategies say of any (row, item) pairs, float32 ``[4, pairs]``; rows ascending.

    The other arguments are those of ``proposed``; ``weights``: long, short.
    """
    long_weight, short_weight = weights
    following, linked_items, trend = links_and_trend
    factor_of_user, factors, text_of_user, text = vectors
    row, item = pairs
    out = np.zeros((4, len(row)), np.float32)
    n = len(trend)
    marks, touched = np.zeros(n, np.uint8), np.empty(n, np.int32)
    visits, links = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for at in range(len(row)):
        user = row[at]
        if at == 0 or row[at - 1] != user:
            visits[:] = 0
            links[:] = 0
            _add_up(user, users, short_weight, following, visits, marks, touched)
            for one in touched[: _add_up(user, users, long_weight, linked_items, links, marks, touched)]:
                links[one] *= trend[one]
        _say(out, at, user, item[at], visits, links, trend, factor_of_user, factors, text_of_user, text)
    return out
