"""The battery every candidate strategy passes, as SQL and in memory."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import shop_world
from strategy_world import PERSONAL, STRATEGIES, World, proposed_by

from m6rec_udf import candidates, models
from m6rec_udf.arrays import ITEM_COLUMNS
from m6rec_udf.history import Behaviour, Profile

SILENT = {80: {"social", "fresh"}}  # the shop of 80 items has no ties and no new item
IN_MEMORY = [name for name in STRATEGIES if name != "social"]


def test_the_battery_knows_every_shipped_strategy():
    shipped = {name for name, model in models.collect().items() if model.layer == "strategies"}
    assert shipped == {f"cand_{name}" for name in STRATEGIES}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_columns_and_types(world, strategy):
    world.in_sql(strategy, [0])
    model = world.models[f"cand_{strategy}"]
    bound = {name: world.bound[name] for name in models.parameter_names(model.sql)}
    cursor = world.work.execute(model.sql, bound)
    described = [(column[0], str(column[1])) for column in cursor.description]
    cursor.fetchall()
    assert [name for name, _ in described] == ["user_idx", "item_idx", "raw_score"]
    assert described[0][1] == described[1][1] == "INTEGER"
    assert described[2][1] in {"DOUBLE", "FLOAT"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_score_is_finite_and_every_item_is_of_the_catalogue(world, strategy):
    users = set(world.users)
    found = world.in_sql(strategy, list(users))
    assert bool(found) == (strategy not in SILENT.get(world.snapshot.n, ()))
    for user, listed in found.items():
        assert user in users
        assert all(0 <= item < world.snapshot.n for item in listed)
        assert all(score is not None and math.isfinite(score) for score in listed.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nobody_asked_nothing_proposed(world, strategy):
    assert world.in_sql(strategy, []) == {}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_unknown_user_gets_only_what_everybody_gets(world, strategy):
    found = world.in_sql(strategy, [0, 999_999])
    if strategy in {*PERSONAL, "segment_popular"}:
        assert 999_999 not in found
    else:
        assert found.get(999_999) == found.get(0)


@pytest.mark.parametrize("strategy", IN_MEMORY)
def test_an_unknown_user_in_memory(world, strategy):
    profile = world.profile(["nobody at all"])
    found = candidates.propose(world.snapshot, profile, exclude_seen=False)
    got = proposed_by(world.snapshot, found, strategy, 0)
    assert bool(got) == (strategy not in {*PERSONAL, "segment_popular", *SILENT.get(world.snapshot.n, ())})
    assert not found.is_seen.any()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_user_with_an_empty_history(worlds, strategy):
    """``idle`` has a row in m6.users, a segment, and no behaviour."""
    world = worlds["grocery"]
    idle = next(idx for idx, name in world.users.items() if name == "idle")
    found = world.in_sql(strategy, [idle])
    assert (idle in found) == (strategy not in PERSONAL)
    if strategy != "social":
        proposals = candidates.propose(world.snapshot, world.profile(["idle"]), exclude_seen=False)
        assert bool(proposed_by(world.snapshot, proposals, strategy, 0)) == (strategy not in PERSONAL)


@pytest.mark.parametrize("strategy", IN_MEMORY)
def test_k_larger_than_the_catalogue(world, strategy, monkeypatch):
    monkeypatch.setattr(candidates, "PER_STRATEGY", 10_000)
    users = world.some_users(1, 6)
    _, found = world.in_memory(users, at_least=10_000)
    expected = world.in_sql(strategy, users)
    for row, user in enumerate(users):
        listed = {item: score for item, score in expected.get(user, {}).items() if world.snapshot.is_known[item]}
        got = proposed_by(world.snapshot, found, strategy, row)
        scored = strategy in candidates.SCORED
        raw = found.scores[candidates.SCORED.index(strategy)] if scored else np.full(len(found.item), np.inf)
        mine = found.row == row
        here = dict(zip(found.item[mine].tolist(), raw[mine].tolist(), strict=True))
        nothing = 1e-5 * max(map(abs, listed.values()), default=0)  # a score of 0 may fall on either side
        assert all(abs(listed[item]) < nothing for item in listed.keys() - got)
        assert all(here[item] < nothing for item in got - listed.keys())


def test_a_list_longer_than_the_catalogue_holds_every_item_once(world):
    available = shop_world.rows(
        world.con,
        "select item_id from m6.available_items where item_id in (select item_id from m6.stg_items where is_known)",
    )
    listed = shop_world.recommend(world.con, world.users[0], "k := 1000")
    assert len(listed) >= len(available)
    assert len(set(shop_world.items_of(listed))) == len(listed)
    assert {item for (item,) in available} <= set(shop_world.items_of(listed))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_question_twice_gets_the_same_answer(world, strategy):
    users = world.some_users(2, 10)
    first, second = (world.in_sql(strategy, asked) for asked in (users, users[::-1]))
    assert first.keys() == second.keys()
    for user, listed in first.items():  # the last bits of a sum depend on the order of its rows
        assert listed == pytest.approx(second[user], rel=1e-9, abs=1e-12)
    if strategy != "social":
        first, second = (world.in_memory(users)[1] for _ in range(2))
        for name in ("row", "item", "supporters"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def level(snapshot):
    """A snapshot whose every item scores the same under every strategy; 12 items, two segments."""
    n = 12
    table = np.full((n, len(ITEM_COLUMNS)), 2.0, np.float32)
    everywhere = sp.csr_matrix(np.ones((n, n), np.float32))
    return dataclasses.replace(
        snapshot,
        settings={**snapshot.settings, "segments": ["a"], "span_days": 100.0},
        item_ids=[f"t{at:02d}" for at in range(n)],
        item=table,
        domain=np.zeros(n, np.int32),
        category=np.zeros(n, np.int32),
        brand=np.zeros(n, np.int32),
        is_known=np.ones(n, bool),
        transitions=everywhere,
        item_item=everywhere,
        factors=np.ones((n, 2), np.float32),
        fold_in=np.ones((n, 2), np.float32),
        text=np.full((n, 4), 0.5, np.float32),
        segment_trend=sp.csr_matrix(np.ones((1, n), np.float32)),
        masks={},
    )


@pytest.mark.parametrize("strategy", IN_MEMORY)
def test_ties_go_to_the_lower_item_id(worlds, strategy, monkeypatch):
    monkeypatch.setattr(candidates, "PER_STRATEGY", 3)
    snapshot = level(worlds["grocery"].snapshot)
    at = float(snapshot.settings["as_of"])
    seen = np.array([5, 0, 7, 1, 9])
    one = np.ones(len(seen))
    behaviour = Behaviour(1, np.zeros(len(seen), int), seen, one, one, np.full(len(seen), at - 86400), np.zeros(1, int))
    profile = Profile(snapshot, behaviour)
    again = strategy == "buy_again"
    found = candidates.propose(snapshot, profile, exclude_seen=not again, at_least=1)
    assert sorted(proposed_by(snapshot, found, strategy, 0)) == ([0, 1, 5] if again else [2, 3, 4])


def test_a_shop_without_behaviour():
    con = shop_world.connect(":memory:")
    shop_world.m6.load(
        con,
        items=pl.DataFrame({"item_id": ["a", "b"], "title": ["one", "two"]}),
        users=pl.DataFrame({"user_id": ["x"]}),
    )
    shop_world.m6.build(con)
    world = World(con)
    for strategy in STRATEGIES:
        assert bool(world.in_sql(strategy, [0])) == (strategy in {"popular", "fresh"}), strategy
    assert shop_world.items_of(shop_world.recommend(con, "x")) == ["a", "b"]
    con.close()


def test_candidates_stay_inside_what_is_allowed(world):
    allowed = np.zeros(world.snapshot.n, bool)
    allowed[::3] = True
    _, found = world.in_memory(world.some_users(9, 10), allowed=allowed, at_least=20)
    assert allowed[found.item].all()
    assert world.snapshot.is_known[found.item].all()
