"""The user vector from behaviour text, beside the weighted-history one: m6.recommend_by_behavior_text."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
import shop_world
from shop_world import ITEMS, rows

USERS = ("u00", "u17", "u42")


def lists(con, user, options=""):
    return rows(con, f"from m6.recommend_by_behavior_text(?{options})", [user])


def expected(con, user):
    """The same list the long way: every item by cosine with the embedded text, without the seen ones."""
    near = rows(con, "from m6.nearest_items(m6_embed(m6.behavior_text(?)), k := 1000)", [user])
    seen = {row[0] for row in rows(con, "select item_id from m6.behaviour where user_id = ?", [user])}
    return [(item, score) for item, _, _, score, _ in near if item not in seen]


@pytest.mark.parametrize("user", USERS)
def test_it_is_the_nearest_items_without_the_seen_ones(reader, user):
    wanted = expected(reader, user)
    assert len(wanted) > 10
    got = lists(reader, user, ", k := 10")
    assert [(row[0], row[3]) for row in got] == wanted[:10]
    assert [row[2] for row in got] == list(range(1, 11))


@pytest.mark.parametrize("user", USERS)
def test_the_score_is_the_cosine_with_the_embedded_text(reader, user):
    item, _, _, score, _ = lists(reader, user, ", k := 1")[0]
    sql = "select m6_embed(m6.behavior_text(?)), (select vector from m6.item_vectors where item_id = ?)"
    own, other = rows(reader, sql, [user, item])[0]
    assert score == pytest.approx(float(np.dot(own, other)), abs=1e-6)


def test_more_than_there_is_gives_all_that_is_available_and_new(reader):
    seen = {row[0] for row in rows(reader, "select item_id from m6.behaviour where user_id = 'u00'")}
    assert {row[0] for row in lists(reader, "u00", ", k := 1000")} == set(ITEMS) - seen - {"i07"}


def test_domain_and_among_keep_their_word(reader):
    picked = {row[0] for row in rows(reader, "from picked")}
    found = lists(reader, "u00", ", k := 1000, in_domain := 'books', among := 'picked'")
    assert found
    assert {row[4] for row in found} == {"books"}
    assert {row[0] for row in found} <= picked


def test_nobody_has_no_text_and_gets_no_rows(reader):
    assert lists(reader, "nobody") == []


def test_new_behaviour_moves_the_vector_and_leaves_the_list(shop):
    first = lists(shop, "u00")[0][0]
    before = rows(shop, "select m6.behavior_text('u00')")
    shop.execute(
        "insert into m6.feedback (feedback_id, user_id, item_id, event_type, happened_at) "
        "values ('new', 'u00', ?, 'click', ?)",
        [first, datetime(2024, 7, 20)],
    )
    assert rows(shop, "select m6.behavior_text('u00')") != before
    assert first not in {row[0] for row in lists(shop, "u00", ", k := 1000")}


def test_the_other_user_vector_is_another_list(reader):
    """The text of behaviour and the weighted history do not search with the same vector."""
    sql = """
        select m6_user_vector(
            list(v.vector order by b.happened_at, b.item_id, b.event_type),
            list(cast(b.interest as float) order by b.happened_at, b.item_id, b.event_type)
        )
        from m6.behaviour as b
        inner join m6.item_vectors as v on b.item_id = v.item_id
        where b.user_id = 'u00'
    """
    history = rows(reader, sql)[0][0]
    near = rows(reader, "from m6.nearest_items(cast(? as float[]), k := 10)", [history])
    assert len(near) == 10
    assert [row[0] for row in near] != [row[0] for row in lists(reader, "u00")]


def test_a_read_only_file_answers_the_same(shop_file):
    with shop_world.connect(shop_file) as con:
        written = lists(con, "u17")
    with shop_world.connect(shop_file, read_only=True) as con:
        assert lists(con, "u17") == written
