"""m6.list_state is what its tables say after every change of them, and a list is made with it."""

from __future__ import annotations

import itertools
import json

import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf.single import reason

KEPT = "select name, content from m6.list_state order by name"
NOW = "select name, coalesce(content, 'null') from m6.list_state_now order by name"
CHANGES = {
    "another policy": ("in_force", "update m6.active set policy_version = 9"),
    "another build": ("in_force", "update m6.active set model_version = 9"),
    "a weight": ("in_force", "update m6.strategy_weights set weight = 1.0 / 3 where strategy = 'fresh'"),
    "weights of a segment": ("in_force", "insert into m6.strategy_weights values (1, '*', 'new', 'fresh', 0.3, 0.0)"),
    "weights gone": ("in_force", "delete from m6.strategy_weights"),
    "no weights any more": ("in_force", "truncate m6.strategy_weights"),
    "a strategy": ("strategies", "insert into m6.strategies values ('own', 40, true, '')"),
    "a strategy that is known": (
        "strategies",
        "insert into m6.strategies values ('fresh', 6, false, '') on conflict (strategy) do update set is_enabled = 0",
    ),
    "a strategy off": ("strategies", "update m6.strategies set is_enabled = false where strategy = 'fresh'"),
    "a strategy gone": ("strategies", "delete from m6.strategies where strategy = 'fresh'"),
    "an event type": (
        "event_types",
        "insert into m6.event_types by name select 'hold' as event_type, 1 as interest, 0 as satisfaction",
    ),
    "a grade": ("event_types", "update m6.event_types set satisfaction = 0.77 where event_type = 'view'"),
    "an event type gone": ("event_types", "delete from m6.event_types where event_type = 'view'"),
    "histories not read": ("stored_histories", "delete from m6.history_marks"),
    "proposals": ("extra_candidates", "insert into m6.extra_candidates values (1, 'u21', 'i07', 3)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_kept_and_goes_with_its_transaction(shop, change):
    name, sql = CHANGES[change]
    before = dict(world.rows(shop, KEPT))
    assert before == dict(world.rows(shop, NOW))
    shop.execute("begin")
    shop.execute(sql)
    after = dict(world.rows(shop, KEPT))
    assert after == dict(world.rows(shop, NOW))
    assert [key for key in after if after[key] != before[key]] == [name]
    shop.execute("rollback")
    assert dict(world.rows(shop, KEPT)) == before


def test_event_types_are_loaded_over_those_that_are_known(shop):
    before = dict(world.rows(shop, KEPT))
    given = shop.sql("select 'view' as event_type, 0.2 as interest, 0.7 as satisfaction")
    m6.load(shop, event_types=given)
    after = dict(world.rows(shop, KEPT))
    assert after["event_types"] != before["event_types"]
    assert after == dict(world.rows(shop, NOW))


def test_a_weight_is_kept_to_the_last_bit(shop):
    for weight in (1 / 3, 0.1 + 0.2, 5e-324, 1 - 2**-53):
        shop.execute("update m6.strategy_weights set weight = ? where strategy = 'fresh'", [weight])
        [(content,)] = world.rows(shop, "select content from m6.list_state where name = 'in_force'")
        assert {w["weight"] for w in json.loads(content)["weights"] if w["strategy"] == "fresh"} == {weight}


def test_weights_of_a_candidate_do_not_wait_for_a_build(shop):
    other = shop.cursor()
    other.execute("begin")
    other.execute("insert into m6.strategy_weights values (8, '*', '*', 'fresh', 1.0, 0.0)")
    shop.execute("update m6.active set model_version = 9")
    other.execute("commit")
    assert world.rows(shop, KEPT) == world.rows(shop, NOW)


def test_the_words_of_a_reason_are_those_of_the_macro(shop):
    strategies = ["seen", "fresh", "new", "popular", "trending", "own", None]
    for strategy, item, title in itertools.product(strategies, ["i1", "", None], ['A "title"', "", None]):
        said = world.rows(shop, "select m6.reason(?, ?, ?)", [strategy, item, title])
        assert said == [(reason(strategy, item, title),)]
