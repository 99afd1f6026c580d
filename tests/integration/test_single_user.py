"""The single-user path: the same answers as the batch body, over stored histories that are never behind."""

from __future__ import annotations

from datetime import datetime

import duckdb
import numpy as np
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import cells
from m6rec_udf.arrays import of_version
from m6rec_udf.registry import context_of

LATER = "2024-08-01 12:00:00"
COLUMNS = (
    "item_id, rank, round(score, 6), round(satisfaction, 6), strategy, reason, domain, policy_version, model_version, "
    "supporters, eligible, round(propensity, 9), segment, weights_domain, because_item_id, drawn_seed"
)
DIRECT = """
select list(
    struct_pack(
        item_id := item_id, interest := cast(interest as float), satisfaction := cast(satisfaction as float),
        happened_at := epoch(happened_at)
    ) order by happened_at, item_id, interest, satisfaction
)
from m6.behaviour where user_id = $user and happened_at <= $until
"""
FOREVER = "infinity"


def lists(con, macro, user, options=""):
    given = f"'{user}'" if macro == "one_list" else f"['{user}']"
    return world.rows(con, f"select {COLUMNS} from m6.{macro}({given}{options}) order by rank")


@pytest.mark.parametrize(
    "options",
    [
        "",
        "k := 500",
        "in_domain := 'movies', k := 60",
        "among := 'picked'",
        "boosts := 'margin', diversity := 0.4",
        "calibrated := 0.5",
        "exclude_seen := true",
        "exclude_seen := false",
        "until := timestamp '2024-03-01'",
        "version := 1, draw_seed := 7",
        "policy := 1, draw_seed := 11, in_domain := 'books'",
    ],
)
def test_one_list_is_the_list_of_the_batch_body(reader, options):
    options = f", {options}" if options else ""
    for user in ("u00", "u21", "u59", "nobody"):
        assert lists(reader, "one_list", user, options) == lists(reader, "slates", user, options)


def test_a_list_comes_best_first_without_being_sorted(reader):
    for k in (3, 500):
        ranks = world.rows(reader, f"select rank from m6.recommend('u21', k := {k})")
        assert ranks == [(n,) for n in range(1, len(ranks) + 1)]


def test_titles_and_domains_are_those_of_the_version_asked_for(shop):
    first = world.recommend(shop, "u21")
    shop.execute("update m6.items set title = 'New ' || title, domain = 'elsewhere'")
    assert world.recommend(shop, "u21") == first
    assert lists(shop, "one_list", "u21") == lists(shop, "slates", "u21")
    m6.build(shop)
    again = world.recommend(shop, "u21")
    assert {row["domain"] for row in again} == {"elsewhere"}
    assert all('"New ' in row["reason"] for row in again if row["reason"].startswith("because"))
    assert {row["domain"] for row in world.recommend(shop, "u21", "version := 1")} == {row["domain"] for row in first}


def test_an_item_new_to_the_build_is_not_seen_before_it_was(shop):
    shop.execute("insert into m6.items (item_id, domain, title) values ('zz', 'books', 'Of tomorrow')")
    shop.execute(
        f"insert into m6.feedback (user_id, item_id, event_type, happened_at) values ('u21', 'zz', 'click', '{LATER}')"
    )
    for until, strategy in (("2024-07-30", "new"), ("2024-08-02", "seen")):
        options = f", k := 500, until := timestamp '{until}'"
        found = lists(shop, "one_list", "u21", options)
        assert [line[4] for line in found if line[0] == "zz"] == [strategy]
        assert found == lists(shop, "slates", "u21", options)


def test_a_version_of_another_m6rec_is_named(shop):
    shop.execute("delete from m6.artefact_names where name = 'titles'")
    context_of(shop).snapshots.clear()
    with pytest.raises(duckdb.Error, match=r"made by another version of m6rec.*\n?.*m6rec_udf.build"):
        shop.execute("from m6.recommend('u21')")


def test_what_a_list_depends_on_counts_in_the_next_answer_and_inside_the_transaction(shop):
    first = world.items_of(world.recommend(shop, "u21"))
    shop.execute("begin")
    shop.execute("update m6.items set is_available = false where item_id = ?", [first[0]])
    assert first[0] not in world.items_of(world.recommend(shop, "u21"))
    shop.execute("rollback")
    assert world.items_of(world.recommend(shop, "u21")) == first
    shop.execute("update m6.items set title = 'Another title' where item_id = ?", [first[0]])
    shop.execute("insert into m6.extra_candidates values (1, 'u21', 'i07', 3)")
    shop.execute("update m6.items set is_available = true where item_id = 'i07'")
    assert "i07" in world.items_of(world.recommend(shop, "u21", "k := 500"))
    assert lists(shop, "one_list", "u21", ", k := 500") == lists(shop, "slates", "u21", ", k := 500")


def test_weights_of_segment_and_domain_are_found_as_in_the_batch(shop):
    shop.execute("delete from m6.strategy_weights")
    for domain, segment, strategy in (("*", "*", "popular"), ("*", "new", "trending"), ("movies", "*", "item_item")):
        shop.execute("insert into m6.strategy_weights values (1, ?, ?, ?, 1.0, 0.0)", [domain, segment, strategy])
    for user in ("u00", "u01", "u02", "nobody"):
        for options in (", draw_seed := 3", ", draw_seed := 3, in_domain := 'movies'"):
            assert lists(shop, "one_list", user, options) == lists(shop, "slates", user, options)


def histories_match(con, until=FOREVER):
    users = [*world.USERS, *world.UNKNOWN]
    macro = "select user_id, history from m6.user_history($users, until := cast($until as timestamp))"
    found = dict(con.execute(macro, {"users": users, "until": until}).fetchall())
    for user in users:
        [(expected,)] = con.execute(DIRECT, {"user": user, "until": until}).fetchall()
        assert found[user] == expected, user


def stored(con):
    return world.rows(con, "select count(*) from m6.stored_histories")[0][0]


@pytest.mark.parametrize(
    "change",
    [
        "select 1",
        f"insert into m6.events (user_id, item_id, event_type, happened_at) values ('u21', 'i05', 'view', '{LATER}')",
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u21', 'i05', 'view', '2024-02-01')",
        f"insert into m6.feedback (user_id, item_id, event_type, happened_at) values ('u3', 'i05', 'click', '{LATER}')",
        "delete from m6.events where user_id = 'u21' and event_type = 'view'",
        "delete from m6.events where user_id = 'u21'",
        "update m6.events set item_id = 'i05' where event_id in ('e1', 'e30', 'e77')",
        "update m6.events set user_id = 'u00' where user_id = 'u21'",
        "update m6.event_types set interest = 0.1, satisfaction = 0.9 where event_type = 'view'",
        "delete from m6.event_types where event_type = 'view'",
    ],
)
def test_stored_histories_are_never_behind(shop, change):
    assert stored(shop) == 60
    shop.execute(change).fetchall()
    histories_match(shop)
    histories_match(shop, "2024-04-01")
    for user in ("u00", "u01", "u21"):
        assert lists(shop, "one_list", user) == lists(shop, "slates", user)


def test_grades_of_new_events_are_those_of_the_sql_also_where_they_are_remembered(shop):
    """Read twice, the second time from memory; what no event type knows is left out; a build forgets them."""

    def happens(user, item, kind, value):
        names = "user_id, item_id, event_type, value, happened_at"
        shop.execute(f"insert into m6.events ({names}) values (?, ?, ?, ?, ?)", [user, item, kind, value, LATER])
        assert lists(shop, "one_list", user) == lists(shop, "slates", user)

    for kind, value in (("rating", 1), ("rating", 4.5), ("rating", None), ("purchase", 9), ("never heard of", 1)):
        for user, item in (("u21", "i05"), ("u00", "i09"), ("u21", "zz")):
            happens(user, item, kind, value)
    shop.execute("update m6.event_types set value_high = 50, interest = 0.2 where event_type = 'rating'")
    m6.build(shop)
    happens("u21", "i12", "rating", 4.5)


@pytest.mark.parametrize(
    "change",
    [
        "delete from m6.feedback where feedback_id in ('f1', 'f2')",
        "update m6.feedback set event_type = 'purchase' where feedback_id in ('f1', 'f2')",
    ],
)
def test_feedback_changed_by_hand_counts_when_it_is_said_and_from_the_next_build_on(shop, change):
    before = world.rows(shop, "from m6.stored_histories order by user_id")
    shop.execute(change)
    assert world.rows(shop, "from m6.stored_histories order by user_id") == before
    m6.build(shop)
    assert world.rows(shop, "from m6.stored_histories order by user_id") != before
    histories_match(shop)


def test_histories_named_as_edited_are_read_afresh(shop):
    shop.execute("delete from m6.feedback where feedback_id in ('f1', 'f2')")
    shop.execute("insert into m6.history_edits select user_id from m6.known_users")
    histories_match(shop)
    for user in ("u00", "u01", "u21"):
        assert lists(shop, "one_list", user) == lists(shop, "slates", user)


def test_a_query_that_began_before_a_build_reads_feedback_that_the_build_has_read(shop):
    shop.execute(
        "insert into m6.feedback (feedback_id, user_id, item_id, event_type, happened_at) "
        f"values ('late', 'u21', 'i05', 'purchase', '{LATER}')"
    )
    before = shop.cursor()
    before.execute("begin")
    expected = lists(before, "one_list", "u21")
    m6.build(shop)
    assert lists(before, "one_list", "u21") == expected
    before.execute("rollback")
    before.close()


def test_feedback_newer_than_the_build_is_found_by_impression_by_name_and_by_request(shop):
    served = "from m6.serve('u21', k := 3, request := 'new', moment := $1)"
    shop.execute(f"insert into m6.impressions by name {served}", [LATER])
    for columns, values in (
        ("impression_id", "'new-u21-1'"),
        ("user_id, item_id", "'u21', 'i05'"),
        ("request_id, item_id", "'new-u21', 'i09'"),
    ):
        shop.execute(
            f"insert into m6.feedback ({columns}, event_type, happened_at) values ({values}, 'click', '{LATER}')"
        )
        histories_match(shop)
        assert lists(shop, "one_list", "u21") == lists(shop, "slates", "u21")
    assert world.rows(shop, "select count(*) from m6.recent_behaviour where user_id = 'u21'") == [(3,)]
    m6.build(shop)
    assert world.rows(shop, "select count(*) from m6.recent_behaviour") == [(0,)]
    histories_match(shop)


def test_a_new_event_type_gives_old_events_a_meaning(shop):
    shop.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u21', 'i05', 'sang', '2024-02-01')"
    )
    m6.build(shop)
    shop.execute("insert into m6.event_types (event_type, interest, satisfaction) values ('sang', 0.9, 0.9)")
    histories_match(shop)


def test_feedback_that_came_before_its_impression(shop):
    shop.execute(
        "insert into m6.feedback (impression_id, user_id, item_id, event_type, happened_at) "
        f"values ('late-1', 'u00', 'i05', 'click', '{LATER}')"
    )
    histories_match(shop)
    shop.execute(
        "insert into m6.impressions by name select * replace ('late-1' as impression_id) "
        "from m6.serve('u21', k := 1, request := 'late')"
    )
    histories_match(shop)
    m6.build(shop)
    histories_match(shop)


def test_a_build_reads_the_tail_and_clears_the_edits(shop):
    shop.execute("update m6.event_types set interest = 0.2 where event_type = 'view'")
    shop.execute("delete from m6.events where user_id = 'u21'")
    assert world.rows(shop, "select count(*) from m6.history_edits where user_id = 'u21'") == [(1,)]
    m6.build(shop)
    assert world.rows(shop, "from m6.history_edits") == []
    assert world.rows(shop, "from m6.edited_users") == []
    histories_match(shop)


def test_a_forgotten_user_leaves_no_stored_history(shop):
    shop.execute("update m6.events set value = 2 where user_id = 'u21'")
    assert world.rows(shop, "from m6.history_edits where user_id = 'u21'") != []
    m6.forget_user(shop, "u21")
    assert world.rows(shop, "from m6.stored_histories where user_id = 'u21'") == []
    assert world.rows(shop, "from m6.history_edits where user_id = 'u21'") == []
    histories_match(shop)


def test_a_grade_that_depends_on_other_rows_is_not_stored(shop_file, tmp_path):
    folder = tmp_path / "project" / "sql" / "satisfaction"
    folder.mkdir(parents=True)
    (folder / "sat_last.sql").write_text(
        "-- one row per behaviour: only the last one of a user satisfies\n"
        "select user_id, item_id, event_type, value, interest,\n"
        "    case when happened_at = max(happened_at) over (partition by user_id) then 1.0 else 0.0 end\n"
        "    as satisfaction,\n"
        "    happened_at\nfrom stg_behaviour\n"
    )
    con = world.connect(shop_file, project=tmp_path / "project")
    m6.build(con, satisfaction="last")
    assert stored(con) == 0
    con.execute(
        f"insert into m6.events (user_id, item_id, event_type, happened_at) values ('u21', 'i05', 'view', '{LATER}')"
    )
    histories_match(con)
    con.close()


def test_what_a_build_as_of_the_past_left_out_is_read_beside_it(shop):
    m6.build(shop, as_of=datetime(2024, 3, 5, 7))
    assert world.rows(shop, "select count(*) from m6.recent_behaviour")[0][0] > 0
    assert stored(shop) > 0
    histories_match(shop)
    histories_match(shop, "2024-03-05 07:00:00")


def test_other_macros_keep_the_stored_histories_another_grade_does_not(shop, shop_file):
    shop.execute("update m6.definitions set content_hash = 'of an earlier version'")
    shop.close()
    con = world.connect(shop_file)
    assert stored(con) == 60
    histories_match(con)
    con.execute("update m6.definitions set content_hash = 'of an earlier version'")
    con.execute("update m6.history_marks set definition = 'of an earlier version'")
    con.close()
    con = world.connect(shop_file)
    assert stored(con) == 0
    histories_match(con)
    con.close()


@pytest.fixture
def in_cells(shop, monkeypatch):
    """The shop with its few items in cells, a tenth of them looked through first."""
    monkeypatch.setattr(cells, "LEAST_ITEMS", 10)
    snapshot = of_version(context_of(shop), 1)
    snapshot.cells = cells.make_cells(snapshot.text, seed=0)
    assert snapshot.cells is not None
    assert len(snapshot.cells.centres) == 9
    return shop


def test_one_user_equals_the_batch_where_text_is_searched_in_cells(in_cells, monkeypatch):
    monkeypatch.setattr(cells.Cells, "probed", 2)
    for user in ("u00", "u21", "nobody"):
        one = world.items_of(world.recommend(in_cells, user))
        many = world.rows(in_cells, "select item_id from m6.recommend_many('audience') where user_id = ?", [user])
        assert [item for (item,) in many] == one


def test_the_first_list_does_not_wait_for_texts_in_the_order_of_the_cells(in_cells, monkeypatch):
    monkeypatch.setattr(cells.Cells, "probed", 2)
    snapshot = of_version(context_of(in_cells), 1)
    first = {}
    for user in ("u00", "u21", "u42"):
        monkeypatch.setattr(snapshot, "text_in_cells_if_made", lambda: None)
        first[user] = world.recommend(in_cells, user)
        monkeypatch.undo()
        monkeypatch.setattr(cells.Cells, "probed", 2)
    snapshot.__dict__.pop("text_in_cells", None)
    snapshot._is_sorting = False
    assert snapshot.text_in_cells_if_made() is None
    np.testing.assert_array_equal(snapshot.text_in_cells, snapshot.text[snapshot.cells.order])
    assert snapshot.text_in_cells_if_made() is snapshot.text_in_cells
    assert {user: world.recommend(in_cells, user) for user in first} == first


def test_cells_hold_every_item_once_and_are_the_same_again(in_cells):
    snapshot = of_version(context_of(in_cells), 1)
    again = cells.make_cells(snapshot.text, seed=0)
    np.testing.assert_array_equal(np.sort(snapshot.cells.order), np.arange(snapshot.n))
    np.testing.assert_array_equal(again.order, snapshot.cells.order)
    np.testing.assert_array_equal(again.centres, snapshot.cells.centres)
    assert snapshot.cells.start[-1] == snapshot.n


def test_all_cells_give_the_exact_search(in_cells, monkeypatch):
    def candidates():
        sql = "select user_id, item_id, supporters from m6.candidates(['u00', 'u21', 'u42'])"
        return sorted(world.rows(in_cells, sql))

    monkeypatch.setattr(cells.Cells, "probed", 9)
    approximate = candidates()
    of_version(context_of(in_cells), 1).cells = None
    assert approximate == candidates()


def test_cells_travel_in_the_file(shop, monkeypatch):
    monkeypatch.setattr(cells, "LEAST_ITEMS", 10)
    m6.build(shop, retrain=True)
    names = {name for (name,) in world.rows(shop, "select name from m6.artefacts where model_version = 2")}
    assert {"cells.centres", "cells.order", "cells.start"} <= names
    assert of_version(context_of(shop), 2).cells is not None
    assert len(world.recommend(shop, "u21")) == 10


def test_nearest_items_of_all_cells_are_those_of_the_exact_search(in_cells, monkeypatch):
    def nearest():
        options = ("", ", k := 3", ", in_domain := 'movies', k := 100", ", among := 'picked', k := 50")
        return [
            world.rows(in_cells, f"select item_id, rank, score from m6.similar_items('i03'{o}) order by rank")
            for o in options
        ]

    monkeypatch.setattr(cells.Cells, "probed", 5)
    found = nearest()
    assert [len(rows) for rows in found] == [10, 3, 38, 15]  # i03 itself and the unavailable i07 are left out
    monkeypatch.setattr(cells.Cells, "probed", 1)
    assert [len(rows) for rows in nearest()] == [len(rows) for rows in found]
    of_version(context_of(in_cells), 1).cells = None
    assert found == nearest()
