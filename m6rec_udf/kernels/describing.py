"""The features of candidates: what the satisfaction model sees of each (user, item)."""

from __future__ import annotations

import numpy as np

from m6rec_udf.kernels.compiled import (
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    PAIRS,
    UINT64,
    compiled,
    given,
    made,
    row_of,
    types,
)

FEATURES: tuple[str, ...] = (
    "item_log_events",
    "item_log_users",
    "item_log_trend_very_short",
    "item_log_trend_short",
    "item_log_trend_medium",
    "item_log_trend_long",
    "item_log_successes",
    "item_log_success_short",
    "item_log_success_medium",
    "item_log_success_long",
    "item_trend_ratio_short",
    "item_trend_ratio_medium",
    "item_satisfaction",
    "item_age_share",
    "item_idle_share",
    "item_repurchase_rate",
    "item_log_price",
    "user_log_events",
    "user_repeat_share",
    "user_satisfaction",
    "user_idle_share",
    "user_tenure_share",
    "user_session",
    "user_log_events_short",
    "user_log_events_long",
    "user_mean_log_popularity",
    "pair_popularity_gap",
    "pair_price_gap",
    "pair_category_share",
    "pair_brand_share",
    "pair_log_events",
    "pair_last_share",
    "pair_repurchase_phase",
    "score_covisitation",
    "score_item_item",
    "score_matrix_factorization",
    "score_semantic",
    "score_buy_again",
    "share_covisitation",
    "share_item_item",
    "share_matrix_factorization",
    "share_semantic",
    "rank_covisitation",
    "rank_item_item",
    "rank_matrix_factorization",
    "rank_semantic",
    "rank_trending",
    "rank_success",
    "supporters",
    "pair_new_domain",
)

PLACE = {name: at for at, name in enumerate(FEATURES)}
STRATEGIES = 4  # scored ones
_USER = PLACE["user_log_events"]
_USER_END = PLACE["pair_popularity_gap"]
_MEAN_LOG_POPULARITY = PLACE["user_mean_log_popularity"]
_ITEM_LOG_EVENTS, _ITEM_LOG_PRICE = PLACE["item_log_events"], PLACE["item_log_price"]
_TREND_SHORT, _TREND_MEDIUM = PLACE["item_log_trend_short"], PLACE["item_log_trend_medium"]
_SUCCESS_LONG = PLACE["item_log_success_long"]
_POPULARITY_GAP, _PRICE_GAP = PLACE["pair_popularity_gap"], PLACE["pair_price_gap"]
_CATEGORY, _BRAND = PLACE["pair_category_share"], PLACE["pair_brand_share"]
_LOG_EVENTS, _LAST, _PHASE = PLACE["pair_log_events"], PLACE["pair_last_share"], PLACE["pair_repurchase_phase"]
_SCORE, _AGAIN, _SHARE = PLACE["score_covisitation"], PLACE["score_buy_again"], PLACE["share_covisitation"]
_RANK, _RANK_TRENDING, _RANK_SUCCESS = PLACE["rank_covisitation"], PLACE["rank_trending"], PLACE["rank_success"]
_SUPPORTERS, _NEW_DOMAIN = PLACE["supporters"], PLACE["pair_new_domain"]


@compiled()
def _ranked(value, position, count, x, column):
    """Ranks from 0, largest first, ties share the first one's; of ``count`` values at these rows of x."""
    order = np.argsort(-value[:count])
    rank = 0
    for at in range(count):
        if at > 0 and value[order[at]] != value[order[at - 1]]:
            rank = at
        x[position[order[at]], column] = rank


@compiled()
def _shares(first, last, pair_item, weight, begin, end, item, code, total, x, column):
    """Share of the user's positive interest that went to each candidate's label; NaN where either has none."""
    whole = 0.0
    for pair in range(first, last):
        if weight[pair] > 0:
            whole += weight[pair]
            total[code[pair_item[pair]] + 1] += weight[pair]
    for at in range(begin, end):
        label = code[item[at]]
        x[at, column] = total[label + 1] / whole if label >= 0 and whole > 0 else np.nan
    for pair in range(first, last):
        total[code[pair_item[pair]] + 1] = 0.0


@compiled()
def _compared(begin, end, known, best, scores, x, value, position):
    """Shares and ranks of a user's candidates among those that are known to the user, or among those that are new.

    Known items are asked about or left out as a request likes: what a new one looks like must not depend on it.
    """
    for each in range(STRATEGIES):
        positive = 0
        for at in range(begin, end):
            if (x[at, _LOG_EVENTS] > 0) != known:
                continue
            own = max(np.float64(scores[each, at]), 0.0)
            x[at, _SHARE + each] = own / best[each] if best[each] > 0 else own
            rounded = np.rint(own * 1e6) / 1e6
            if rounded > 0:
                value[positive], position[positive] = rounded, at
                positive += 1
        for at in range(begin, end):
            if (x[at, _LOG_EVENTS] > 0) == known:
                x[at, _RANK + each] = positive
        _ranked(value, position, positive, x, _RANK + each)
    count = 0
    for at in range(begin, end):
        if (x[at, _LOG_EVENTS] > 0) == known:
            trend = x[at, _TREND_SHORT] + x[at, _TREND_MEDIUM]
            value[count], position[count] = np.rint(np.float64(trend) * 1e6) / 1e6, at
            count += 1
    _ranked(value, position, count, x, _RANK_TRENDING)
    for at in range(count):
        value[at] = np.rint(np.float64(x[position[at], _SUCCESS_LONG]) * 1e6) / 1e6
    _ranked(value, position, count, x, _RANK_SUCCESS)


@compiled(
    types.void(
        PAIRS,
        row_of(given(FLOAT64), given(FLOAT64), given(FLOAT64), given(FLOAT64)),
        row_of(given(FLOAT64, 2), given(FLOAT64)),
        row_of(given(INT64), given(INT64), given(UINT64), given(FLOAT32, 2)),
        row_of(given(FLOAT32, 2), given(INT32), given(INT32), given(INT32), given(FLOAT32)),
        INT64,
        INT64,
        FLOAT64,
        made(FLOAT32, 2),
    )
)
def described(users, behaviour, of_users, candidates, items, labels, domains, span, x):
    """Fill in the features ``x`` (float32 ``[c, len(FEATURES)]``) of candidates sorted by (row, item).

    Args:
        behaviour: of the pairs of ``users``: events, days since the last one, weight, how much the item is due again.
        of_users: (float64 ``[users, features named user_*]``, mean logarithm of the prices paid).
        candidates: row, item, supporters, scores ``[STRATEGIES, c]``.
        items: (float32 ``[n, features named item_*]``, code of the category, of the brand, of the domain, days between
            purchases).
        labels: more than any code of a category or brand.
        domains: more than any code of a domain.
        span: days of the log.
    """
    first, pair_item = users
    events, last_days, long_weight, again = behaviour
    of_user, mean_log_price = of_users
    row, item, supporters, scores = candidates
    of_item, category, brand, domain, repurchase_days = items
    total = np.zeros(labels + 1, np.float64)
    is_met = np.zeros(domains + 1, np.bool_)
    begin, count = 0, len(row)
    while begin < count:
        user, end = row[begin], begin
        while end < count and row[end] == user:
            end += 1
        a, b = first[user], first[user + 1]
        best = np.zeros((2, STRATEGIES), np.float64)
        for at in range(a, b):
            is_met[domain[pair_item[at]] + 1] = True
        pair = a
        for at in range(begin, end):
            one = item[at]
            for column in range(of_item.shape[1]):
                x[at, column] = of_item[one, column]
            for column in range(_USER, _USER_END):
                x[at, column] = of_user[user, column - _USER]
            x[at, _POPULARITY_GAP] = np.float64(x[at, _ITEM_LOG_EVENTS]) - of_user[user, _MEAN_LOG_POPULARITY - _USER]
            x[at, _PRICE_GAP] = np.float64(x[at, _ITEM_LOG_PRICE]) - mean_log_price[user]
            while pair < b and pair_item[pair] < one:
                pair += 1
            if pair < b and pair_item[pair] == one:
                x[at, _LOG_EVENTS] = np.log1p(events[pair])
                x[at, _AGAIN] = again[pair]
                x[at, _LAST] = last_days[pair] / span
                rhythm = np.float64(repurchase_days[one])
                x[at, _PHASE] = np.nan if np.isnan(rhythm) else last_days[pair] / max(rhythm, 0.01)
            else:
                x[at, _LOG_EVENTS] = 0
                x[at, _AGAIN] = 0
                x[at, _LAST] = np.nan
                x[at, _PHASE] = np.nan
            for each in range(STRATEGIES):
                x[at, _SCORE + each] = scores[each, at]
                known = 1 if x[at, _LOG_EVENTS] > 0 else 0
                best[known, each] = max(best[known, each], np.float64(scores[each, at]))
            bits, flags = 0, supporters[at]
            while flags:
                flags &= flags - np.uint64(1)
                bits += 1
            x[at, _SUPPORTERS] = bits
            x[at, _NEW_DOMAIN] = 1 if b > a and not is_met[domain[one] + 1] else 0
        for at in range(a, b):
            is_met[domain[pair_item[at]] + 1] = False
        _shares(a, b, pair_item, long_weight, begin, end, item, category, total, x, _CATEGORY)
        _shares(a, b, pair_item, long_weight, begin, end, item, brand, total, x, _BRAND)
        value, position = np.empty(end - begin, np.float64), np.empty(end - begin, np.int64)
        for known in range(2):
            _compared(begin, end, known == 1, best[known], scores, x, value, position)
        begin = end
