"""What the satisfaction model sees of a candidate, beside plain code that says the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from m6rec_udf.candidates import propose
from m6rec_udf.explain import speaking
from m6rec_udf.ranking import FEATURES, PLACE, features

USERS = ["c00", "c01", "c07"]
SCORED = ("covisitation", "item_item", "matrix_factorization", "semantic")


@pytest.fixture(scope="module")
def asked(worlds):
    """(candidates, features) with known items among them, and without."""
    grocery = worlds["grocery"]
    profile = grocery.profile(USERS)
    out = []
    for exclude_seen in (False, True):
        found = propose(grocery.snapshot, profile, exclude_seen=exclude_seen, at_least=20)
        out.append((found, features(grocery.snapshot, profile, found)))
    return out


def test_a_new_item_looks_the_same_whether_known_ones_are_asked_about_or_not(asked):
    (both, x), (new, alone) = asked
    is_new = x[:, PLACE["pair_log_events"]] == 0
    assert not alone[:, PLACE["pair_log_events"]].any()
    assert 30 < is_new.sum() < len(is_new)
    np.testing.assert_array_equal(both.row[is_new], new.row)
    np.testing.assert_array_equal(both.item[is_new], new.item)
    for name in FEATURES:
        np.testing.assert_array_equal(x[is_new, PLACE[name]], alone[:, PLACE[name]], err_msg=name)


@pytest.mark.parametrize("strategy", SCORED)
def test_shares_and_ranks_are_among_known_items_or_among_new_ones(asked, strategy):
    found, x = asked[0]
    score, is_known = x[:, PLACE[f"score_{strategy}"]], x[:, PLACE["pair_log_events"]] > 0
    for row in range(len(USERS)):
        for is_seen in (False, True):
            mine = (found.row == row) & (is_known == is_seen)
            own = np.maximum(score[mine].astype(np.float64), 0)
            assert len(own) > 5
            largest = own.max()
            np.testing.assert_allclose(x[mine, PLACE[f"share_{strategy}"]], own / (largest or 1), rtol=1e-5)
            rounded = np.round(own, 6)
            rank = np.where(rounded > 0, (rounded[None] > rounded[:, None]).sum(1), (rounded > 0).sum())
            np.testing.assert_array_equal(x[mine, PLACE[f"rank_{strategy}"]], rank)


def test_ranks_by_trend_are_among_known_items_or_among_new_ones(asked):
    found, x = asked[0]
    is_known = x[:, PLACE["pair_log_events"]] > 0
    trend = np.round(x[:, PLACE["item_log_trend_short"]] + x[:, PLACE["item_log_trend_medium"]], 6)
    for row in range(len(USERS)):
        for is_seen in (False, True):
            mine = (found.row == row) & (is_known == is_seen)
            rank = (trend[mine][None] > trend[mine][:, None]).sum(1)
            np.testing.assert_array_equal(x[mine, PLACE["rank_trending"]], rank)


@pytest.fixture(scope="module")
def against(worlds):
    """The grocery, with every third item-item weight turned against its item."""
    snapshot = worlds["grocery"].snapshot
    weights = snapshot.item_item.copy()
    weights.data[::3] *= -1
    return dataclasses.replace(snapshot, item_item=weights)


def test_weights_against_an_item_lower_its_score(worlds, against):
    profile = worlds["grocery"].profile(USERS)
    found = propose(against, profile, exclude_seen=False, at_least=20)
    dense = (profile.long @ against.item_item).toarray() * against.trend_factor
    assert (dense < 0).any()
    score = found.scores[1]
    np.testing.assert_allclose(score, dense[found.row, found.item], rtol=1e-4, atol=1e-6)
    bit = np.uint64(1 << against.settings["strategies"]["item_item"])
    proposed = found.supporters & bit > 0
    assert proposed.any()
    assert (score[proposed] > 0).all()


def test_only_what_speaks_for_an_item_is_evidence(worlds, against):
    world = worlds["grocery"]
    for user in USERS:
        profile = world.profile([user])
        for item in range(20):
            shares = [share for _, share in speaking(against, profile, item)]
            assert all(0 < share <= 1 for share in shares)
            assert sum(shares) <= 1 + 1e-9
