"""Invariant 2: the next query sees the last event, from any connection, in both directions."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import shop_world as world

from m6rec_udf.arrays import of_version
from m6rec_udf.candidates import Scores
from m6rec_udf.functions import behaviour_of
from m6rec_udf.history import Profile
from m6rec_udf.registry import context_of

USER = "u21"
LATER = "2024-08-01 12:00:00"
UNSEEN = "exclude_seen := true"


def user_vector(con: duckdb.DuckDBPyConnection, user: str) -> np.ndarray:
    """The user's vector in the items' space, as the candidate search computes it for the next query."""
    snapshot = of_version(context_of(con), 1)
    table = con.sql("select segment, history from m6.user_history([$user])", params={"user": user}).to_arrow_table()
    behaviour = behaviour_of(snapshot, table["history"].combine_chunks(), table["segment"].to_pylist())
    return Scores(snapshot, Profile(snapshot, behaviour)).text[0]


def seen(con: duckdb.DuckDBPyConnection, user: str, k: int = 1000) -> list[str]:
    return [item for (item,) in world.rows(con, "select item_id from m6.history(?, k := 1000)", [user])][:k]


@pytest.fixture(params=["same", "cursor", "second connection"])
def writer(request, shop, shop_file):
    if request.param == "same":
        yield shop
        return
    other = shop.cursor() if request.param == "cursor" else duckdb.connect(str(shop_file))
    yield other
    other.close()


def an_event(con, shop, item):
    con.execute(
        "insert into m6.events (event_id, user_id, item_id, event_type, happened_at) values ('new', ?, ?, 'view', ?)",
        [USER, item, LATER],
    )
    return "delete from m6.events where event_id = 'new'"


def feedback_of_a_user(con, shop, item):
    con.execute(
        "insert into m6.feedback by name select 'new' as feedback_id, ? as user_id, ? as item_id, 'click' as "
        "event_type, ?::timestamp as happened_at",
        [USER, item, LATER],
    )
    return "delete from m6.feedback where feedback_id = 'new'"


def feedback_to_an_impression(con, shop, item):
    shop.execute("create or replace table only_this as select ? as item_id", [item])
    shop.execute(
        "insert into m6.impressions by name from m6.serve(?, k := 1, among := 'only_this', request := 'r', seed := 1)",
        [USER],
    )
    assert world.rows(shop, "select item_id from m6.impressions") == [(item,)]
    con.execute(
        "insert into m6.feedback by name select 'new' as feedback_id, impression_id, 'click' as event_type, "
        "?::timestamp as happened_at from m6.impressions",
        [LATER],
    )
    return "delete from m6.feedback where feedback_id = 'new'"


def late_arrival(con, shop, item):
    """It happened long before the build and arrives now."""
    con.execute(
        "insert into m6.events (event_id, user_id, item_id, event_type, happened_at) values ('new', ?, ?, "
        "'purchase', '2024-02-01')",
        [USER, item],
    )
    return "delete from m6.events where event_id = 'new'"


@pytest.mark.parametrize("write", [an_event, feedback_of_a_user, feedback_to_an_impression, late_arrival])
def test_the_next_query_sees_the_row_and_its_deletion(shop, writer, write):
    before, vector, known = world.recommend(shop, USER, UNSEEN), user_vector(shop, USER), seen(shop, USER)
    item = before[0]["item_id"]
    undo = write(writer, shop, item)
    after = world.recommend(shop, USER, UNSEEN)
    assert len(after) == 10
    assert item not in world.items_of(after)
    assert sorted(seen(shop, USER)) == sorted([*known, item])
    assert np.abs(user_vector(shop, USER) - vector).max() > 1e-3
    satisfaction = {row["item_id"]: row["satisfaction"] for row in before}
    assert any(satisfaction.get(row["item_id"]) not in (None, row["satisfaction"]) for row in after)
    # the same answer everywhere, at once
    for reader in (shop.cursor(), writer):
        assert world.recommend(reader, USER, UNSEEN) == after
    shop.execute("create table one_user as select ? as user_id", [USER])
    many = world.rows(shop, f"select item_id from m6.recommend_many('one_user', {UNSEEN})")
    assert [found for (found,) in many] == world.items_of(after)
    served = world.rows(shop, f"select item_id from m6.serve(?, {UNSEEN}, k := 30)", [USER])
    assert item not in {found for (found,) in served}
    writer.execute(undo)
    assert world.recommend(shop, USER, UNSEEN) == before
    assert seen(shop, USER) == known
    np.testing.assert_array_equal(user_vector(shop, USER), vector)


def test_an_update_moves_the_seen_list(shop):
    first, second = world.items_of(world.recommend(shop, USER, UNSEEN))[:2]
    an_event(shop, shop, first)
    shop.execute("update m6.events set item_id = ? where event_id = 'new'", [second])
    found = world.items_of(world.recommend(shop, USER, UNSEEN))
    assert first in found
    assert second not in found


def test_an_unknown_user_is_known_by_the_first_events(shop):
    before = world.recommend(shop, "nobody")
    shop.executemany(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('nobody', ?, 'purchase', ?)",
        [[item, LATER] for item in ("i41", "i43", "i45")],
    )
    after = world.recommend(shop, "nobody")
    assert world.items_of(after) != world.items_of(before)
    assert any(row["reason"].startswith("because of") for row in after)
    assert not any(row["reason"].startswith("because of") for row in before)
    shop.execute("delete from m6.events where user_id = 'nobody'")
    assert world.recommend(shop, "nobody") == before


def test_a_purchase_pulls_the_list_and_a_dismissal_pushes_it_away(shop):
    """Three cooking books bought by a drama lover lift the other cooking books; sent back, they do not."""
    cooking = {item for (item,) in world.rows(shop, "select item_id from m6.items where category = 'cooking'")}

    def share() -> int:
        return len(cooking & set(world.items_of(world.recommend(shop, "u00", UNSEEN))))

    unseen = sorted(cooking - set(seen(shop, "u00")))[:8]
    before = share()
    shop.executemany(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u00', ?, 'purchase', ?)",
        [[item, LATER] for item in unseen],
    )
    bought = share()
    assert bought > before
    shop.executemany(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u00', ?, 'return', ?)",
        [[item, "2024-08-02 12:00:00"] for item in unseen],
    )
    assert share() < bought


def test_only_committed_rows_are_seen_elsewhere(shop, shop_file):
    before = world.recommend(shop, USER, UNSEEN)
    item = before[0]["item_id"]
    with duckdb.connect(str(shop_file)) as other:
        other.execute("begin")
        an_event(other, shop, item)
        assert item not in world.items_of(world.recommend(other, USER, UNSEEN))  # its own transaction sees it
        assert world.recommend(shop, USER, UNSEEN) == before
        other.execute("commit")
        assert item not in world.items_of(world.recommend(shop, USER, UNSEEN))
        other.execute("begin")
        other.execute("delete from m6.events where event_id = 'new'")
        assert item not in world.items_of(world.recommend(shop, USER, UNSEEN))
        other.execute("rollback")
    assert item not in world.items_of(world.recommend(shop, USER, UNSEEN))


@pytest.mark.parametrize("given", ["request and item", "request, user and item"])
def test_feedback_that_names_the_request_counts(shop, given):
    shop.execute(
        "insert into m6.impressions by name from m6.serve(?, k := 5, exclude_seen := true, request := 'r', seed := 3)",
        [USER],
    )
    [(request, item)] = world.rows(shop, "select request_id, item_id from m6.impressions where rank = 1")
    user = USER if "user" in given else None
    shop.execute(
        "insert into m6.feedback (request_id, user_id, item_id, event_type, happened_at) values (?, ?, ?, 'click', ?)",
        [request, user, item, LATER],
    )
    assert seen(shop, USER, 1) == [item]
    assert item not in world.items_of(world.recommend(shop, USER, UNSEEN))
