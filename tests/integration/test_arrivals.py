"""What other transactions write while a build reads: nothing is lost, nothing counts twice, nobody comes back."""

from __future__ import annotations

import duckdb
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import arrivals
from m6rec_udf.errors import M6Error

USER = "u21"
LATER = "2024-08-01 12:00:00"
AN_EVENT = "insert into m6.events (event_id, user_id, item_id, event_type, happened_at) values (?, ?, ?, 'view', ?)"
A_REACTION = (
    "insert into m6.feedback (feedback_id, user_id, item_id, event_type, happened_at) values (?, ?, ?, 'click', ?)"
)
ONE, MANY = "item_id, rank, round(score, 6)", "select {} from m6.{}({}) order by rank"


def whole_history(con, user):
    """The behaviour of a user, straight from the tables."""
    return world.rows(con, "select item_id, happened_at from m6.behaviour where user_id = ? order by all", [user])


def history(con, user):
    """The same as every list reads it."""
    sql = "select h.item_id, make_timestamp(cast(h.happened_at * 1000000 as bigint)) from "
    sql += "(select unnest(history) as h from m6.user_history([?])) order by all"
    return world.rows(con, sql, [user])


def agree(con, *users):
    for user in (USER, *users):
        assert history(con, user) == whole_history(con, user)
        alone = world.rows(con, MANY.format(ONE, "one_list", f"'{user}'"))
        assert alone == world.rows(con, MANY.format(ONE, "slates", f"['{user}']"))
    world.rows(con, "from m6.history(?)", [USER])


def unseen(con, count=3):
    """Items the user has not touched."""
    known = {item for item, _ in whole_history(con, USER)}
    return [item for item in world.ITEMS if item not in known][:count]


def build(con, *, during=None, at="satisfaction"):
    """A build with something happening in the middle of it."""
    done = []

    def progress(step, *_):
        if during is not None and step == at and not done:
            done.append(step)
            during()

    report = m6.build(con, progress=progress)
    assert during is None or done
    return report


@pytest.fixture
def others(shop):
    """Two transactions beside the build."""
    pair = shop.cursor(), shop.cursor()
    yield pair
    for one in pair:
        one.close()


@pytest.mark.parametrize("write", [AN_EVENT, A_REACTION])
@pytest.mark.parametrize("when", ["during the build", "after the build", "after the next query"])
def test_a_row_numbered_before_the_mark_and_committed_later_is_read(shop, others, monkeypatch, write, when):
    monkeypatch.setattr(arrivals, "PATIENCE", 0.2)
    slow, quick = others
    first, second, third = unseen(shop)
    slow.execute("begin")
    slow.execute(write, ["slow", USER, first, LATER])
    quick.execute(write, ["quick", USER, second, LATER])  # its number is the higher one
    if when == "during the build":
        build(shop, during=lambda: slow.execute("commit"))
    else:
        build(shop)
        if when == "after the next query":
            assert first not in {item for item, _ in history(shop, USER)}
            agree(shop)
        slow.execute("commit")
    assert {first, second} <= {item for item, _ in history(shop, USER)}
    agree(shop)
    quick.execute(write, ["new", USER, third, LATER])
    agree(shop)
    build(shop)
    agree(shop)
    marked = world.rows(shop, "select sql from duckdb_views() where view_name like 'unread_%' and sql like '%between%'")
    assert marked == []  # all is read now: the condition is the short one again


def test_what_was_rolled_back_leaves_no_trace(shop, others):
    slow, quick = others
    first, second = unseen(shop, 2)
    slow.execute("begin")
    slow.execute(AN_EVENT, ["slow", USER, first, LATER])
    quick.execute(AN_EVENT, ["quick", USER, second, LATER])
    build(shop, during=lambda: slow.execute("rollback"))
    agree(shop)
    assert (
        world.rows(shop, "select 1 from duckdb_views() where view_name = 'unread_events' and sql like '%between%'")
        == []
    )


def test_too_many_gaps_under_an_open_transaction_and_nothing_is_stored(shop, others, monkeypatch):
    monkeypatch.setattr(arrivals, "PATIENCE", 0.1)
    monkeypatch.setattr(arrivals, "MOST_RANGES", 3)
    slow, quick = others
    items = unseen(shop, 6)
    shop.execute("delete from m6.events where event_seq % 100 = 7")
    slow.execute("begin")
    slow.execute(AN_EVENT, ["slow", USER, items[0], LATER])
    quick.execute(AN_EVENT, ["quick", USER, items[1], LATER])
    build(shop)
    assert world.rows(shop, "from m6.stored_histories") == []
    agree(shop)
    slow.execute("commit")
    agree(shop)
    build(shop)
    assert world.rows(shop, "from m6.stored_histories") != []
    agree(shop)


@pytest.mark.parametrize("how", ["update", "delete"])
@pytest.mark.parametrize("committed", ["during", "after"])
def test_events_edited_while_a_build_runs_are_read_afresh(shop, others, how, committed):
    change = "delete from m6.events where user_id = ?"
    if how == "update":
        change = "update m6.events set happened_at = happened_at - interval 1 day where user_id = ?"
    new = unseen(shop, 1)[0]
    shop.execute(AN_EVENT, ["unread", USER, new, LATER])  # the build before has not read it
    shop.execute("delete from m6.events where user_id = 'u20'")  # noted before this build, and read by it
    other = others[0]

    def during():
        other.execute("begin")
        other.execute(change, [USER])
        if committed == "during":
            other.execute("commit")

    build(shop, during=during)
    if committed == "after":
        agree(shop)
        other.execute("commit")
    agree(shop, "u20")
    assert {user for (user,) in world.rows(shop, "from m6.history_edits")} == {USER}
    build(shop)
    assert world.rows(shop, "from m6.history_edits") == []
    agree(shop)


def test_event_types_edited_while_a_build_runs_count(shop):
    build(
        shop, during=lambda: shop.cursor().execute("update m6.event_types set interest = 0.9 where event_type = 'view'")
    )
    assert world.rows(shop, "select user_id from m6.edited_users") == [(None,)]
    sums = "select round(sum(interest), 4) from m6.behaviour where user_id = 'u21'"
    read = "select round(list_sum(list_transform(history, lambda h: h.interest)), 4) from m6.user_history(['u21'])"
    assert world.rows(shop, read)[0][0] == pytest.approx(world.rows(shop, sums)[0][0], abs=1e-3)


def test_a_person_forgotten_while_a_build_runs_does_not_come_back(shop):
    with pytest.raises(M6Error, match=r"forgotten while this build ran.*\n.*again"):
        build(shop, during=lambda: m6.forget_user(shop.cursor(), USER))
    assert world.rows(shop, "select model_version from m6.active") == [(1,)]
    for table in ("stored_histories", "stg_users", "events"):
        assert world.rows(shop, f"select 1 from m6.{table} where user_id = ?", [USER]) == []
    build(shop)
    assert world.rows(shop, "select 1 from m6.stored_histories where user_id = ?", [USER]) == []


def test_two_builds_at_once_leave_one_whole(shop):
    other = shop.cursor()
    with pytest.raises(M6Error, match=r"another .* committed.*\n.*again"):
        build(shop, during=lambda: m6.build(other), at="satisfaction")
    assert world.rows(shop, "select model_version from m6.active") == [(2,)]
    agree(shop)
    assert build(shop).model_version == 3


def test_gaps_are_the_numbers_nobody_has(shop):
    shop.execute("delete from m6.events where event_seq in (1, 2, 5)")
    shop.execute("begin")
    assert arrivals.gaps(shop, "events") == [(1, 2), (5, 5)]
    assert arrivals.gaps(shop, "feedback") == []
    shop.execute("rollback")


def test_settled_says_whether_somebody_still_writes(shop, others):
    slow, _ = others
    slow.execute("begin")
    slow.execute("select nextval('m6.event_seq')").fetchall()
    assert not arrivals.is_settled(shop, 0.05)
    slow.execute("rollback")
    assert arrivals.is_settled(shop, 0.05)
    with duckdb.connect() as memory:  # the database cannot say
        assert not arrivals.is_settled(memory, 0.05)
