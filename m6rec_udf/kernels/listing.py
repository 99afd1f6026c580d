"""From scored candidates to lists: their order, the slots the strategies take, the evidence for each line."""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT64,
    MATRIX,
    PAIRS,
    REORDERED,
    UINT64,
    compiled,
    given,
    made,
    row_of,
    types,
)

BLENDED_BIT = 0  # the bit of the strategy that takes any candidate
LEAST_COSINE = 0.3  # of a text that speaks for another


@compiled(types.Array(INT64, 1, "C")(given(INT64), INT64, given(INT64)))
def front_of(first, depth, order):
    """The first ``depth`` candidate positions of each user's part of ``order``."""
    out, count = np.empty(len(order), np.int64), 0
    for user in range(len(first) - 1):
        for at in range(first[user], min(first[user] + depth, first[user + 1])):
            out[count] = order[at]
            count += 1
    return out[:count].copy()


@compiled(types.void(given(INT64), given(FLOAT64), INT64, made(INT64)))
def sort_front(first, score, depth, order):
    """Sort the first ``depth`` places of each user's part of ``order`` (candidate positions) by score, best first.

    Ties after rounding to 9 digits go by position.
    """
    for user in range(len(first) - 1):
        front = order[first[user] : min(first[user] + depth, first[user + 1])]
        front.sort()
        key = np.empty(len(front), np.float64)
        for at in range(len(front)):
            key[at] = -np.rint(score[front[at]] * 1e9) / 1e9
        front[:] = front[np.argsort(key, kind="mergesort")]


@compiled(
    types.Tuple(
        (
            types.Array(INT64, 1, "C"),
            types.Array(INT64, 1, "C"),
            types.Array(INT64, 1, "C"),
            types.Array(UINT64, 1, "C"),
            types.Array(UINT64, 1, "C"),
            types.Array(FLOAT64, 1, "C"),
        )
    )(given(INT64), given(INT64), given(UINT64), given(BOOL), given(FLOAT64, 2), INT64, given(FLOAT64, 2), BOOL)
)
def take_slots(order, first, supporters, is_seen, weights, k, uniform, is_drawn):
    """The slots of each user: row, candidate, bit, supporters, eligible, propensity; see ``slate.mix_many``."""
    users, bits = weights.shape
    room = 0
    for user in range(users):
        room += min(k, first[user + 1] - first[user])
    row, candidate, bit = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    backing, eligible = np.zeros(room, np.uint64), np.zeros(room, np.uint64)
    propensity = np.full(room, np.nan)
    weight, credit, place = np.empty(bits, np.float64), np.empty(bits, np.float64), np.empty(bits, np.int64)
    out = 0
    for user in range(users):
        line = order[first[user] : first[user + 1]]
        shown = np.zeros(len(line), np.bool_)
        weight[:] = weights[user]
        if not (weight > 0).any():  # without weights the list is blended
            weight[BLENDED_BIT] = 1.0
        credit[:] = 0.0
        place[:] = 0
        slot = 0
        while slot < min(k, len(line)):
            total, best, most, last = 0.0, -1, -np.inf, -1
            for own in range(bits):
                if not weight[own] > 0:
                    continue
                at = place[own]
                while at < len(line):
                    one = line[at]
                    is_own = own == BLENDED_BIT or (supporters[one] >> np.uint64(own)) & np.uint64(1)
                    if is_own and not is_seen[one] and not shown[at]:
                        break
                    at += 1
                place[own] = at
                if at == len(line):
                    continue
                last = own
                total += weight[own]
                credit[own] += weight[own]
                rounded = np.rint(credit[own] * 1e9) / 1e9
                if rounded > most:
                    best, most = own, rounded
            if last < 0:
                break
            if is_drawn:
                best, reached = last, 0.0
                for own in range(bits):
                    if weight[own] > 0 and place[own] < len(line):
                        reached += weight[own]
                        if uniform[user, slot] * total < reached:
                            best = own
                            break
            credit[best] -= total
            choice, backed = place[best], 0.0
            for own in range(bits):
                if weight[own] > 0 and place[own] < len(line):
                    eligible[out] |= np.uint64(1) << np.uint64(own)
                    if place[own] == choice:
                        backing[out] |= np.uint64(1) << np.uint64(own)
                        backed += weight[own]
            if is_drawn:
                propensity[out] = backed / total
            shown[choice] = True
            row[out], candidate[out], bit[out] = user, line[choice], best
            out += 1
            slot += 1
        for seen in (False, True):  # what no weighted strategy proposed, then what the user has had
            at = 0
            while slot < min(k, len(line)) and at < len(line):
                if not shown[at] and is_seen[line[at]] == seen:
                    shown[at] = True
                    row[out], candidate[out], bit[out] = user, line[at], -1 if seen else BLENDED_BIT
                    if is_drawn:
                        propensity[out] = 1.0
                    out += 1
                    slot += 1
                at += 1
    return row, candidate, bit, backing, eligible, propensity


@compiled(fastmath=REORDERED)
def _cosine(text, i, j):
    out = np.float32(0)
    for at in range(text.shape[1]):
        out += text[i, at] * text[j, at]
    return out


@compiled()
def _cell(matrix, i, j):
    """Entry (i, j) of a CSR matrix whose columns are ascending; 0 where nothing is stored."""
    begin, column, value = matrix
    low, high = begin[i], begin[i + 1]
    end = high
    while low < high:
        middle = (low + high) >> 1
        if column[middle] < j:
            low = middle + 1
        else:
            high = middle
    return value[low] if low < end and column[low] == j else np.float32(0)


@compiled()
def _said(a, b, pair_item, weights, one, links, text, out):
    """What each pair a to b of a user says for an item, into ``out``."""
    interest, weight = weights
    linked, following = links
    most = 0.0
    for pair in range(a, b):
        own = pair_item[pair]
        out[pair - a] = 0.0
        if interest[pair] > 0 and own != one:
            out[pair - a] = (_cell(linked, own, one) + _cell(following, own, one)) * weight[pair]
            most = max(most, out[pair - a])
    if most <= 0:
        for pair in range(a, b):
            own = pair_item[pair]
            out[pair - a] = 0.0
            if interest[pair] > 0 and own != one:
                cosine = _cosine(text, own, one)
                if cosine > LEAST_COSINE:
                    out[pair - a] = cosine * max(weight[pair], 1e-9)


_WEIGHTS = row_of(given(FLOAT64), given(FLOAT64))  # of the pairs: interest, weight
_LINKS = row_of(MATRIX, MATRIX)  # item-item, co-visitation


@compiled(types.Array(FLOAT64, 1, "C")(given(INT64), _WEIGHTS, INT64, _LINKS, given(FLOAT32, 2)))
def said(pair_item, weights, item, links, text):
    """What each item of one user's history says for an item, float64 ``[pairs]``, 0 for nothing."""
    out = np.zeros(len(pair_item), np.float64)
    _said(0, len(pair_item), pair_item, weights, item, links, text, out)
    return out


@compiled(types.Array(INT64, 1, "C")(PAIRS, _WEIGHTS, row_of(given(INT64), given(INT64)), _LINKS, given(FLOAT32, 2)))
def strongest(users, weights, lines, links, text):
    """item_idx of the history item that says most for each line, ties after 9 digits by item; -1 for none.

    Args:
        lines: (user, item) of each line; item -1 for none.
    """
    first, pair_item = users
    row, item = lines
    out = np.full(len(item), -1)
    longest = 0
    for user in range(len(first) - 1):
        longest = max(longest, first[user + 1] - first[user])
    own = np.empty(longest, np.float64)
    for at in range(len(item)):
        if item[at] < 0:
            continue
        a, b = first[row[at]], first[row[at] + 1]
        _said(a, b, pair_item, weights, item[at], links, text, own)
        most = -np.inf
        for pair in range(a, b):
            rounded = np.rint(own[pair - a] * 1e9) / 1e9
            if rounded > most and own[pair - a] > 0:
                out[at], most = pair_item[pair], rounded
    return out
