"""sql/strategies/cand_*.sql and feat_user_* are the definition; what serving computes in memory equals them."""

from __future__ import annotations

import numpy as np
import pytest
import shop_world
from strategy_world import STRATEGIES, Scores, World, assert_top, proposed_by

from m6rec_udf import candidates, models
from m6rec_udf.candidates import Candidates
from m6rec_udf.ranking import PLACE, features

IN_MEMORY = [name for name in STRATEGIES if name != "social"]
SCORED = {"covisitation": 1e-5, "item_item": 1e-5, "matrix_factorization": 1e-5, "semantic": 1e-5}


def after_filters(world: World, scores: dict[int, float], seen: set[int]) -> dict[int, float]:
    """What is left of a strategy's items after the filters every strategy gets: known at as_of, not seen."""
    return {i: score for i, score in scores.items() if world.snapshot.is_known[i] and i not in seen}


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("strategy", IN_MEMORY)
def test_same_best_items(world, strategy, exclude_seen, monkeypatch):
    k = 8
    monkeypatch.setattr(candidates, "PER_STRATEGY", k)
    users = world.some_users(3, 25)
    profile, found = world.in_memory(users, exclude_seen=exclude_seen)
    expected = world.in_sql(strategy, users)
    for row, user in enumerate(users):
        seen = set(profile.item[profile.row == row].tolist()) if exclude_seen else set()
        wanted = after_filters(world, expected.get(user, {}), seen)
        assert_top(wanted, proposed_by(world.snapshot, found, strategy, row), k, f"{strategy} for {world.users[user]}")


@pytest.mark.parametrize("strategy", SCORED)
def test_same_raw_scores(world, strategy):
    users = world.some_users(4, 20)
    profile = world.profile([world.users[user] for user in users])
    scores = Scores(world.snapshot, profile)
    for row, listed in enumerate(world.in_sql(strategy, users).get(user, {}) for user in users):
        items = np.asarray(sorted(listed), np.int64)
        want = np.asarray([listed[i] for i in items.tolist()])
        got = scores.of_pairs(np.full(len(items), row), items)[candidates.SCORED.index(strategy)]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max(initial=0))


@pytest.mark.parametrize("strategy", SCORED)
def test_scores_of_pairs_are_products_of_the_whole_catalogue(world, strategy):
    users = world.some_users(5, 10)
    snapshot, profile = world.snapshot, world.profile([world.users[user] for user in users])
    scores, trend = Scores(snapshot, profile), snapshot.trend_factor
    whole = {
        "covisitation": (profile.short @ snapshot.transitions).toarray,
        "item_item": lambda: (profile.long @ snapshot.item_item).toarray() * trend,
        "matrix_factorization": lambda: np.maximum(scores.factors @ snapshot.factors.T, 0) * trend,
        "semantic": lambda: scores.text @ snapshot.text.T,
    }[strategy]()
    row, item = (part.ravel() for part in np.indices(whole.shape))
    pairs = scores.of_pairs(row, item)[candidates.SCORED.index(strategy)].reshape(whole.shape)
    np.testing.assert_allclose(pairs, whole, rtol=1e-5, atol=1e-6)


def test_same_buy_again_scores(worlds):
    world = worlds["grocery"]
    users = list(world.users)
    profile = world.profile([world.users[user] for user in users])
    got = {
        (users[row], item): score
        for row, item, score in zip(profile.row, profile.item, profile.buy_again, strict=True)
        if score > 0
    }
    want = {
        (user, item): score
        for user, listed in world.in_sql("buy_again", users).items()
        for item, score in listed.items()
    }
    assert got.keys() == want.keys()
    assert len(want) > 200
    np.testing.assert_allclose([got[key] for key in want], list(want.values()), rtol=1e-4)


def test_social_candidates_of_the_build_are_those_of_its_sql(worlds):
    world = worlds["grocery"]
    bit = shop_world.rows(world.con, "select bit from m6.strategies where strategy = 'social'")[0][0]
    stored: dict[str, set[str]] = {}
    for user_id, item_id in shop_world.rows(
        world.con, "select user_id, item_id from m6.extra_candidates where bit = ?", [bit]
    ):
        stored.setdefault(user_id, set()).add(item_id)
    expected = world.in_sql("social", list(world.users))
    assert {world.users[user] for user in expected} == stored.keys()
    for user, listed in expected.items():
        got = {world.snapshot.index[item] for item in stored[world.users[user]]}
        assert_top(listed, got, 60, world.users[user])


def test_nobody_is_reached_through_a_block(worlds):
    world = worlds["grocery"]
    blocked, before = world.in_sql("social", [1])[1], None
    world.work.execute("begin")
    world.work.execute("delete from m6.relations where kind = 'blocks'")
    before = world.in_sql("social", [1])[1]
    world.work.execute("rollback")
    assert before.keys() > blocked.keys() or any(before[i] > blocked[i] for i in blocked)


def test_user_and_item_pairs_equal_feat_user_item(world):
    users = world.some_users(6, 30)
    profile = world.profile([world.users[user] for user in users])
    sql = (
        "select user_idx, item_idx, events, interest, last_days, long_weight, short_weight from m6.feat_user_item "
        "where list_contains(?, user_idx) order by 1, 2"
    )
    table = np.asarray(shop_world.rows(world.con, sql, [users]), float)
    got = np.column_stack(
        [
            np.asarray(users)[profile.row],
            profile.item,
            profile.events,
            profile.interest,
            profile.last_days,
            profile.long_weight,
            profile.short_weight,
        ]
    )
    np.testing.assert_allclose(got, table, rtol=1e-5, atol=2e-5)


def test_users_equal_feat_user_activity(world):
    users = world.some_users(7, 30)
    profile = world.profile([world.users[user] for user in users])
    columns = {
        "events": profile.user_events,
        "items": profile.items,
        "satisfaction": profile.user_satisfaction,
        "idle_days": profile.idle_days,
        "tenure_days": profile.tenure_days,
        "events_short": profile.events_short,
        "events_long": profile.events_long,
        "mean_log_popularity": profile.mean_log_popularity,
        "mean_log_price": profile.mean_log_price,
    }
    sql = f"select {', '.join(columns)} from m6.feat_user_activity where list_contains(?, user_idx) order by user_idx"
    table = np.asarray(
        [[np.nan if v is None else v for v in row] for row in shop_world.rows(world.con, sql, [users])], float
    )
    np.testing.assert_allclose(np.column_stack(list(columns.values())), table, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("label", ["category", "brand"])
def test_shares_equal_feat_user_category_and_brand(world, label):
    users = world.some_users(8, 15)
    profile = world.profile([world.users[user] for user in users])
    row, item = (part.ravel() for part in np.indices((len(users), world.snapshot.n)))
    nothing = np.zeros(len(row), np.uint64), np.zeros(len(row), bool), np.zeros((4, len(row)), np.float32)
    got = features(world.snapshot, profile, Candidates(row, item, *nothing))[:, PLACE[f"pair_{label}_share"]]
    sql = (
        f"select u.user_idx, i.item_idx, coalesce(s.share, 0) from m6.stg_users as u cross join m6.stg_items as i "
        f"left join m6.feat_user_{label} as s on s.user_idx = u.user_idx and s.{label} = i.{label} "
        f"where i.{label} is not null and list_contains(?, u.user_idx)"
    )
    rows = shop_world.rows(world.con, sql, [users])
    at = {user: position for position, user in enumerate(users)}
    some = profile.long_weight > 0
    active = set(profile.row[some].tolist())
    pairs = [(at[user] * world.snapshot.n + i, share) for user, i, share in rows if at[user] in active]
    np.testing.assert_allclose(got[[key for key, _ in pairs]], [share for _, share in pairs], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["covisitation", "item_item", "matrix_factorization", "semantic", "buy_again"])
def test_live_behaviour_moves_both_the_same_way(tmp_path, built_file, worlds, strategy):
    """Events newer than the build: the SQL over the history as it is now equals the in-memory path."""
    user = "c07"
    world = worlds["grocery"]
    con = world.con.cursor()
    con.execute("begin")
    try:
        con.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) "
            "values (?, 'p40', 'purchase', ?), (?, 'p41', 'view', ?)",
            [user, now := shop_world.START.replace(month=6, day=20), user, now.replace(day=19)],
        )
        tail = World.__new__(World)
        vars(tail).update(vars(world), con=con, work=con, bound={**world.bound, "as_of": now})
        con.execute("set search_path = 'm6'")
        found = models.with_satisfaction(models.collect(), "graded")
        for model in models.ordered(found, {"feat_user_item"}):
            if model.name != "stg_items":
                models.run(con, model, tail.bound, temporary=True)
        at = next(idx for idx, name in world.users.items() if name == user)
        listed = tail.in_sql(strategy, [at])[at]
        profile = tail.profile([user], now)
        before = world.profile([user])
    finally:
        con.execute("rollback")
        con.close()
    assert len(profile.item) > len(before.item) or profile.events.sum() > before.events.sum()
    if strategy == "buy_again":
        got = dict(zip(profile.item.tolist(), profile.buy_again.tolist(), strict=True))
        items = sorted(listed)
        values = np.asarray([got[i] for i in items])
    else:
        items = sorted(i for i in listed)
        scores = Scores(world.snapshot, profile)
        values = scores.of_pairs(np.zeros(len(items), np.int64), np.asarray(items, np.int64))
        values = values[candidates.SCORED.index(strategy)]
    want = np.asarray([listed[i] for i in items])
    np.testing.assert_allclose(values, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())
