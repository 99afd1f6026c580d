"""The loops of a build over its log: how much, how lately, what comes after what (``activity``, ``event_log``).

The log is sorted by user, time and what it was. What is made is as large as the answer: memory that is touched for the
first time costs a build more than the arithmetic.
"""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import BOOL, FLOAT32, FLOAT64, INT32, INT64, compiled, given, made, types

DAY = 86400.0
EVENTS, SUCCESSES, SATISFACTION, FIRST, IDLE, TREND = 0, 1, 2, 3, 4, 5  # columns of what is counted for an item
PRIME = 2_147_483_647
ITEM, INTEREST, SATISFACTION_WORD, LOW, HIGH = 0, 1, 2, 3, 4  # words of a stored record, see ``histories.RECORD``
FINE = 48  # bits of a number that its bin leaves out: 16 bins between a power of two and the next
LOWEST = 1022 << (52 - FINE)  # the bin of 0.5
BINS = 64 << (52 - FINE)  # up to 2 to the power 63


@compiled()
def _least(key, count, k, bins, front):
    """The k-th largest of more than k whole numbers from 0 on: bins by size, then the numbers of the best bins."""
    bins[:] = 0
    bits = key[:count].view(np.int64)
    for at in range(count):
        bins[min(max((bits[at] >> FINE) - LOWEST, 0), BINS - 1)] += 1
    lowest, above = BINS, 0
    while above < k:
        lowest -= 1
        above += bins[lowest]
    found = 0
    for at in range(count):
        front[found] = key[at]
        found += min(max((bits[at] >> FINE) - LOWEST, 0), BINS - 1) >= lowest
    return np.partition(front[:found], found - k)[found - k]


@compiled()
def _kept(weight, column, count, k, digits, key, bins, front, out):
    """The k largest of ``count`` weights after rounding, equal ones by the lower column; columns in ``out``, sorted."""
    if count <= k:
        out[:count] = column[:count]
        out[:count].sort()
        return count
    for at in range(count):
        key[at] = np.rint(weight[column[at]] * digits)
    least = _least(key, count, k, bins, front)
    found, ties = 0, 0
    for at in range(count):
        if key[at] > least:
            out[found] = column[at]
            found += 1
        elif key[at] == least:
            ties += 1
    tied = np.empty(ties, np.int32)
    ties = 0
    for at in range(count):
        if key[at] == least:
            tied[ties] = column[at]
            ties += 1
    tied.sort()
    out[found:k] = tied[: k - found]
    out[:k].sort()
    return k


@compiled()
def _starts(group, groups):
    """Where each group starts among its members one group behind the other, and the end; int64 ``[groups + 1]``."""
    start = np.zeros(groups + 1, np.int64)
    for at in range(len(group)):
        start[group[at] + 1] += 1
    for number in range(groups):
        start[number + 1] += start[number]
    return start


@compiled(
    types.Array(INT64, 1, "C")(
        *(given(INT32), given(INT32), given(FLOAT64), given(FLOAT64), given(FLOAT64), INT64, FLOAT64, INT64, FLOAT64),
        *(made(INT32), made(FLOAT64)),
    )
)
def steps(user, item, recency, own, following, distances, backwards, k, digits, indices, data):
    """Rows of the k best next items of each item: the indptr of CSR ``[n, n]``.

    Args:
        user, item: int32 ``[p]``, user by user, the latest first; no user has an item twice.
        recency: float64 ``[p]`` above 0, what a step to that place weighs.
        own, following: float64 ``[n]`` above 0, factors of the item and of the next one.
        distances: how many places a step spans at most; its weight is divided by the places.
        backwards: share that a step counts in the other direction.
        digits: weights are told apart after rounding to 1 / digits.
        indices, data: where the rows are put; n k of each are enough, or twice the distances for each place.
    """
    n = len(own)
    first = _starts(item, n)
    place, filled = np.empty(len(item), np.int32), first[:-1].copy()
    for at in range(len(item)):
        place[filled[item[at]]] = at
        filled[item[at]] += 1
    shares = 1.0 / np.arange(1, distances + 1)
    total, touched, best = np.zeros(n, np.float64), np.empty(n + 1, np.int32), np.empty(n, np.int32)
    key, front, bins = np.empty(n, np.float64), np.empty(n + 1, np.float64), np.empty(BINS, np.int64)
    indptr = np.zeros(n + 1, np.int64)
    stored = 0
    for row in range(n):
        count = 0
        for line in range(first[row], first[row + 1]):
            at = place[line]
            for distance in range(1, distances + 1):
                earlier = at + distance
                if earlier >= len(item) or user[earlier] != user[at]:
                    break
                touched[count] = item[earlier]
                count += total[item[earlier]] == 0  # whatever is added is above 0
                total[item[earlier]] += backwards * recency[at] * shares[distance - 1]
            for distance in range(1, distances + 1):
                later = at - distance
                if later < 0 or user[later] != user[at]:
                    break
                touched[count] = item[later]
                count += total[item[later]] == 0
                total[item[later]] += recency[later] * shares[distance - 1]
        for at in range(count):
            total[touched[at]] *= own[row] * following[touched[at]]
        kept = _kept(total, touched, count, k, digits, key, bins, front, best)
        for at in range(kept):
            indices[stored] = best[at]
            data[stored] = total[best[at]]
            stored += 1
        indptr[row + 1] = stored
        for at in range(count):
            total[touched[at]] = 0
    return indptr


@compiled(types.Array(INT64, 1, "C")(given(INT64), given(FLOAT64), FLOAT64))
def ranks_of(indptr, data, digits):
    """Rank of each weight in its row from 1 on, the largest first; equal ones after rounding in the order they have."""
    rank, key, order = np.empty(len(data), np.int64), np.empty(0, np.float64), np.empty(0, np.int64)
    for row in range(len(indptr) - 1):
        first, size = indptr[row], indptr[row + 1] - indptr[row]
        if size > len(key):
            key, order = np.empty(2 * size, np.float64), np.empty(2 * size, np.int64)
        highest = 0.0
        for at in range(size):
            key[at] = np.rint(data[first + at] * digits)
            highest = max(highest, key[at])
        if highest * size < 2.0**62:  # number and place fit one word
            for at in range(size):
                order[at] = (np.int64(highest) - np.int64(key[at])) * size + at
            order[:size].sort()
            for at in range(size):
                rank[first + order[at] % size] = at + 1
            continue
        for at in range(size):
            rank[first + at] = 1
            for other in range(size):
                rank[first + at] += key[other] > key[at] or (key[other] == key[at] and other < at)
    return rank


@compiled(types.Array(INT32, 1, "C")(given(INT32), given(INT32)))
def pair_order(user, item):
    """Order by (user, item), the order there was inside; int32 ``[e]``. ``user`` is ascending."""
    order, key = np.empty(len(user), np.int32), np.empty(1024, np.int64)
    first = 0
    while first < len(user):
        end = first
        while end < len(user) and user[end] == user[first]:
            end += 1
        if end - first > len(key):
            key = np.empty(2 * (end - first), np.int64)
        for at in range(first, end):
            key[at - first] = np.int64(item[at]) << 32 | at
        key[: end - first].sort()
        for at in range(first, end):
            order[at] = key[at - first] & 0xFFFFFFFF
        first = end
    return order


@compiled(types.UniTuple(INT64, 2)(given(INT32), given(INT32), given(INT32), given(FLOAT64), given(BOOL)))
def successes_of(order, user, item, happened_at, is_positive):
    """How many (user, item) pairs have a success, and at how many moments, pair by pair."""
    pairs, moments, before = 0, 0, -1
    for at in order:
        if is_positive[at]:
            is_new = before < 0 or user[before] != user[at] or item[before] != item[at]
            pairs += is_new
            moments += is_new or happened_at[before] != happened_at[at]
            before = at
    return pairs, moments


@compiled(
    INT64(
        *(
            given(INT32),
            given(INT32),
            given(INT32),
            given(FLOAT32),
            given(FLOAT64),
            FLOAT64,
            made(INT32),
            made(FLOAT32),
        ),
    )
)
def pairs_of(order, user, item, interest, happened_at, as_of, place, most):
    """The (user, item) pairs of positive interest as of a moment; how many.

    ``place``: gets where the last behaviour of each stands in the log, by user and item. ``most``: gets the largest
    interest of each.
    """
    count, last, largest = 0, -1, np.float32(0.0)
    for line in range(len(order)):
        at = order[line]
        if happened_at[at] <= as_of:
            last = at
            largest = max(largest, interest[at])
        is_end = line + 1 == len(order)
        if is_end or user[order[line + 1]] != user[at] or item[order[line + 1]] != item[at]:
            if largest > 0:
                place[count], most[count] = last, largest
                count += 1
            last, largest = -1, np.float32(0.0)
    return count


@compiled(INT64(given(BOOL), given(INT32), given(INT32), given(FLOAT64), INT64, made(INT32)))
def latest_of(is_last, user, item, happened_at, longest, place):
    """The latest pairs of each user, at most ``longest``, user by user; how many.

    ``is_last``: where a pair's last behaviour stands in the log. ``place``: gets theirs. Items of the same moment come
    in an order of chance.
    """
    count, end = 0, len(user)
    tied = np.empty(1024, np.int32)
    while end > 0:
        owner, left, at = user[end - 1], longest, end - 1
        while at >= 0 and user[at] == owner and left > 0:
            if not is_last[at]:
                at -= 1
                continue
            moment, ties = happened_at[at], 0
            while at >= 0 and user[at] == owner and happened_at[at] == moment:
                if is_last[at]:
                    if ties == len(tied):
                        tied = np.concatenate((tied, np.empty(ties, np.int32)))
                    tied[ties] = at
                    ties += 1
                at -= 1
            if ties > 1:
                chance, sorted_ = np.empty(ties, np.int64), np.empty(ties, np.int32)
                for own in range(ties):  # the lowest item first: the log has items of a moment in their order
                    at_item = tied[ties - 1 - own]
                    mixed = (np.int64(owner) * 7919 + np.int64(item[at_item]) * 104_729) % PRIME
                    chance[own] = (mixed * mixed % PRIME) << 32 | own
                chance.sort()
                for own in range(ties):
                    sorted_[own] = tied[ties - 1 - (chance[own] & 0xFFFFFFFF)]
                tied[:ties] = sorted_
            taken = min(ties, left)
            place[count : count + taken] = tied[:taken]
            count += taken
            left -= taken
        while at >= 0 and user[at] == owner:
            at -= 1
        end = at + 1
    return count


@compiled(
    types.void(
        *(given(INT32), given(FLOAT32), given(FLOAT32), given(FLOAT64), given(BOOL), FLOAT64, given(FLOAT64)),
        made(FLOAT64, 2),
    )
)
def count(item, interest, satisfaction, happened_at, is_positive, as_of, half_lives, found):
    """Sums of behaviour of positive interest as of a moment, into ``found``, ``[n, 5 + 2 half-lives]``.

    Events, successes, satisfaction, age in days of the first and of the last; events that decay by each half-life, in
    days, and successes that do.
    """
    lives = len(half_lives)
    for at in range(len(item)):
        if happened_at[at] <= as_of and interest[at] > 0:
            own = found[item[at]]
            days = (np.floor(as_of) - np.floor(happened_at[at])) / DAY
            own[EVENTS] += 1
            own[SUCCESSES] += is_positive[at]
            own[SATISFACTION] += satisfaction[at]
            own[FIRST] = max(own[FIRST], days)
            own[IDLE] = min(own[IDLE], days)
            for life in range(lives):
                decay = np.exp2(-days / half_lives[life])
                own[TREND + life] += decay
                own[TREND + lives + life] += decay * is_positive[at]


@compiled(
    types.void(
        *(given(INT32), given(INT32), given(FLOAT32), given(FLOAT64), FLOAT64, given(INT64), FLOAT64),
        made(FLOAT64, 2),
    )
)
def count_by_group(user, item, interest, happened_at, as_of, group, half_life, found):
    """Behaviour of positive interest of users in a group, decayed, into ``found``, ``[groups, n]``; -1 is in none."""
    for at in range(len(item)):
        own = group[user[at]]
        if own >= 0 and happened_at[at] <= as_of and interest[at] > 0:
            days = (np.floor(as_of) - np.floor(happened_at[at])) / DAY
            found[own, item[at]] += np.exp2(-days / half_life)


@compiled(
    types.void(
        *(given(INT32), given(INT32), given(INT32), given(FLOAT32), given(FLOAT64), FLOAT64),
        *(made(INT64), made(INT64), made(FLOAT64)),
    )
)
def returns_of(order, user, item, interest, happened_at, as_of, users, again, days):
    """Per item: users, users who came back at another moment, and the median of their mean distance in days."""
    n = len(users)
    returned, distance = np.empty(len(order) // 2, np.int32), np.empty(len(order) // 2, np.float64)
    count, times, first, last = 0, 0, 0.0, 0.0
    for line in range(len(order)):
        at = order[line]
        if happened_at[at] <= as_of and interest[at] > 0:
            if not times:
                first = happened_at[at]
            times += times == 0 or happened_at[at] != last
            last = happened_at[at]
        is_end = line + 1 == len(order)
        if is_end or user[order[line + 1]] != user[at] or item[order[line + 1]] != item[at]:
            users[item[at]] += times > 0
            if times > 1:
                again[item[at]] += 1
                returned[count] = item[at]
                distance[count] = (np.floor(last) - np.floor(first)) / DAY / (times - 1)
                count += 1
            times = 0
    start = _starts(returned[:count], n)
    place, sorted_ = start[:-1].copy(), np.empty(count, np.float64)
    for at in range(count):
        sorted_[place[returned[at]]] = distance[at]
        place[returned[at]] += 1
    for own in range(n):
        low, high = start[own], start[own + 1]
        days[own] = np.nan
        if high > low:
            sorted_[low:high].sort()
            days[own] = (sorted_[low + (high - low - 1) // 2] + sorted_[low + (high - low) // 2]) / 2


@compiled(
    types.boolean(
        *(given(INT32, 2), given(INT64), given(INT32), given(INT32), FLOAT32, made(INT64)),
        *(given(INT32), given(INT32), given(FLOAT32), given(FLOAT32), given(FLOAT64), given(BOOL)),
        *(made(INT32), made(INT32), made(FLOAT32), made(FLOAT32), made(FLOAT64), made(BOOL)),
    )
)
def merge(
    words,
    length,
    owner,
    numbers,
    positive_at,
    reached,
    new_user,
    new_item,
    new_interest,
    new_satisfaction,
    new_at,
    new_is_positive,
    user,
    item,
    interest,
    satisfaction,
    happened_at,
    is_positive,
):
    """Stored records and new rows as one log, sorted by user, time and what it was; new ones behind their equals.

    Args:
        words: int32 ``[r, 5]``, stored records; length: of each owner's; owner: its user number, ascending.
        numbers: item number by the one that was stored, -1 for none.
        positive_at: satisfaction from which a record is a success.
        reached: (new rows, rows of the log) that are done, moved on: records come in several parts.
        new_user and so on: the new rows, sorted. user and so on: the log.

    Returns False where a record is of an item that has no number.
    """
    grades, bits = words.view(np.float32), happened_at.view(np.int64)
    new, at, record = reached[0], reached[1], 0
    for own in range(len(owner)):
        for _ in range(length[own]):
            stored = words[record, ITEM]
            if stored < 0 or stored >= len(numbers) or numbers[stored] < 0:
                return False
            moment = np.int64(words[record, HIGH]) << 32 | (np.int64(words[record, LOW]) & 0xFFFFFFFF)
            bits[at] = moment
            what = numbers[stored]
            how_much, how_good = grades[record, INTEREST], grades[record, SATISFACTION_WORD]
            while new < len(new_user):
                is_before = new_user[new] < owner[own]
                if new_user[new] == owner[own]:
                    if new_at[new] != happened_at[at]:
                        is_before = new_at[new] < happened_at[at]
                    elif new_item[new] != what:
                        is_before = new_item[new] < what
                    elif new_interest[new] != how_much:
                        is_before = new_interest[new] < how_much
                    else:
                        is_before = new_satisfaction[new] < how_good
                if not is_before:
                    break
                user[at], item[at], interest[at] = new_user[new], new_item[new], new_interest[new]
                satisfaction[at], happened_at[at] = new_satisfaction[new], new_at[new]
                is_positive[at] = new_is_positive[new]
                new += 1
                at += 1
                bits[at] = moment
            user[at], item[at], interest[at], satisfaction[at] = owner[own], what, how_much, how_good
            is_positive[at] = how_good >= positive_at
            record += 1
            at += 1
    reached[0], reached[1] = new, at
    return True
