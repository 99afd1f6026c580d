"""A rebuild reads what came since and folds it in: what it leaves equals what a full build leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import shop_world as world
from polars.testing import assert_frame_equal

import m6rec_udf as m6
from m6rec_udf import arrays, event_log, models, moment

NEW = world.START + timedelta(days=199)
READ = ("stg_events", "stg_users", "stg_items", "feat_item_activity", "feat_item_transitions", "stored_histories")
READ += ("feat_user_item", "feat_user_activity", "feat_segment_item", "recent_behaviour", "item_vectors")


@pytest.fixture
def con(tmp_path, built_file):
    con = world.connect(shutil.copy(built_file, tmp_path / "shop.duckdb"))
    yield con
    con.close()


def event(con, user: str, item: str, kind: str = "purchase", days: float = 0.0) -> None:
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values (?, ?, ?, ?)",
        [user, item, kind, NEW + timedelta(days=days)],
    )


def little(con) -> None:
    """New and known users and items, before, between and behind the others; late, twice, turned away from."""
    con.execute("insert into m6.items (item_id, title, description) values ('i105', 'Drama number 105', 'drama')")
    con.execute("insert into m6.users (user_id, segment) values ('a-reader', 'new')")
    for user, item, kind, days in (
        ("u00", "i70", "purchase", 0.0),
        ("u00", "i70", "purchase", 0.0),
        ("u31", "i105", "view", 0.1),
        ("u30x", "i00", "rating", 0.2),
        ("a-reader", "i105", "purchase", 0.3),
        ("u59", "a-new-one", "view", 0.4),
        ("u17", "i33", "dismiss", 0.5),
        ("u17", "i34", "view", -150.25),
    ):
        event(con, user, item, kind, days)
    con.execute(
        "insert into m6.feedback (feedback_id, user_id, item_id, event_type, happened_at) "
        "values ('late', 'u05', 'i02', 'click', ?)",
        [NEW - timedelta(days=3)],
    )


CHANGES = {
    "little": little,
    "nothing": lambda con: None,
    "one late event": lambda con: event(con, "u03", "i09", "view", -60.0),
    "a user": lambda con: event(con, "zoe", "i70"),
    "an item without behaviour": lambda con: con.execute("insert into m6.items (item_id, title) values ('i05b', 'b')"),
}


def test_it_takes_over_and_reads_only_what_is_new(con, monkeypatch):
    little(con)
    seen = []
    monkeypatch.setattr(event_log, "read_log", lambda con: seen.append("all of it"))
    m6.build(con)
    assert not seen
    found = dict(world.rows(con, "select name, value from m6.decisions where model_version = 2"))
    assert found["item_models"] == found["satisfaction_model"] == "taken over"


@pytest.mark.parametrize("change", CHANGES)
def test_tables_equal_those_of_a_full_build(con, tmp_path, change):
    CHANGES[change](con)
    con.close()
    found = {}
    for name, retrain in (("rebuilt", False), ("full", True)):
        other = world.connect(shutil.copy(tmp_path / "shop.duckdb", tmp_path / f"{name}.duckdb"))
        m6.build(other, retrain=retrain)
        taken = world.rows(other, "select count(*) from m6.decisions where name = 'item_models' and model_version = 2")
        assert taken == [(not retrain,)]
        found[name] = {table: other.sql(f"from m6.{table}").pl() for table in READ}
        found[name] |= {"snapshot": arrays.load(other, 2)}
        other.close()
    for table in READ:
        one, other = (found[name][table] for name in found)
        assert len(one) == len(other)
        assert len(one) or table == "recent_behaviour"
        assert_frame_equal(one.sort(one.columns), other.sort(one.columns), check_exact=True)
    one, other = (found[name]["snapshot"] for name in found)
    for name in ("item", "domain", "category", "brand", "is_known", "text"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("transitions", "segment_trend"):
        assert (getattr(one, name) != getattr(other, name)).nnz == 0, name
    assert one.settings.keys() == other.settings.keys()


def test_the_log_is_that_of_the_staged_events_row_by_row(con):
    little(con)
    found = models.with_satisfaction(models.collect(), "graded")
    bound = moment.parameters(con, NEW + timedelta(days=1), 0.75)
    work = con.cursor()
    staging = {name for name, model in found.items() if model.layer == "staging"}
    moment.run_models(work, found, bound, wanted=staging)
    whole, appended = event_log.read_log(work), event_log.appended(work, found, bound)
    assert appended is not None
    for name in ("user", "item", "interest", "satisfaction", "happened_at", "segment", "is_positive"):
        np.testing.assert_array_equal(getattr(appended, name), getattr(whole, name), err_msg=name)
        assert getattr(appended, name).dtype == getattr(whole, name).dtype, name
    work.close()


def test_who_and_what_left_the_catalogue_is_numbered_as_by_a_full_build(con, tmp_path):
    """Users and items come from the build before, but for those that only a table named which no longer does."""
    event(con, "u00", "of-events-alone")
    con.execute(
        "insert into m6.feedback (feedback_id, user_id, item_id, event_type, happened_at) "
        "values ('nowhere', 'of-feedback-alone', 'an-item-nobody-knows', 'click', ?)",
        [NEW],
    )
    con.execute("insert into m6.users (user_id) values ('of-users-alone'), ('stays')")
    con.execute("insert into m6.items (item_id, title) values ('of-items-alone', 'x')")
    m6.build(con)
    con.execute("delete from m6.users where user_id in ('of-users-alone', 'u00')")
    con.execute("delete from m6.items where item_id in ('of-items-alone', 'i70')")
    event(con, "u01", "i05")
    con.close()
    found = {}
    for name, retrain in (("rebuilt", False), ("full", True)):
        other = world.connect(shutil.copy(tmp_path / "shop.duckdb", tmp_path / f"{name}.duckdb"))
        m6.build(other, retrain=retrain)
        found[name] = {table: other.sql(f"from m6.{table} order by all").pl() for table in ("stg_users", "stg_items")}
        other.close()
    for table, frame in found["full"].items():
        assert_frame_equal(found["rebuilt"][table], frame)
    users, items = (set(found["full"][f"stg_{name}s"][f"{name}_id"]) for name in ("user", "item"))
    assert {"u00", "of-feedback-alone", "stays"} <= users
    assert "of-users-alone" not in users
    assert {"i70", "of-events-alone"} <= items
    assert "of-items-alone" not in items


def test_staging_of_the_project_and_then_not_is_read_afresh(con):
    """Histories under numbers of another SQL are not appended to."""
    work = con.cursor()
    found = models.with_satisfaction(models.collect(), "graded")
    bound = moment.parameters(con, NEW + timedelta(days=1), 0.75)
    assert event_log.stored_version(work, found, bound) == 1
    for name in ("stg_users", "stg_items", "stg_events"):
        other = replace(found[name], sql=found[name].sql + " -- another")
        assert event_log.stored_version(work, found | {name: other}, bound) is None
    work.close()


def test_item_tables_stay_where_what_they_were_made_from_did_and_are_mended(con):
    """The tables of the version before are not written again, unless rows are missing."""
    sql = "select table_name, table_oid from duckdb_tables() where schema_name = 'm6' and table_name like 'item_%'"
    before = dict(world.rows(con, sql))
    event(con, "u00", "i70")
    m6.build(con)
    after = dict(world.rows(con, sql))
    assert {"item_neighbours", "item_factors"} <= {name for name in before if before[name] == after[name]}
    assert before["item_trend"] != after["item_trend"]
    snapshot = arrays.load(con, 2)
    con.execute("delete from m6.item_neighbours where item_idx = 3")
    event(con, "u00", "i70")
    m6.build(con)
    rows = con.sql("from m6.item_neighbours order by item_idx, next_item_idx").fetchnumpy()
    matrix = snapshot.item_item.tocoo()
    order = np.lexsort((matrix.col, matrix.row))
    np.testing.assert_array_equal(rows["next_item_idx"], matrix.col[order])
    np.testing.assert_array_equal(rows["weight"], matrix.data[order])


@pytest.mark.parametrize("gone", ["text", "item_ids"])
def test_text_vectors_are_read_by_content_where_those_in_force_are_broken(con, gone):
    expected = arrays.load(con, 1).text
    digest = world.rows(con, "select content_hash from m6.artefact_names where name = ?", [gone])[0][0]
    con.execute("update m6.artefact_contents set content = 'x'::blob where content_hash = ?", [digest])
    m6.build(con)
    np.testing.assert_array_equal(arrays.load(con, 2).text, expected)


def test_an_item_with_another_text_gets_another_vector_the_others_keep_theirs(con):
    before = arrays.load(con, 1)
    con.execute("update m6.items set title = 'Quite another title' where item_id = 'i03'")
    con.execute("insert into m6.items (item_id, title) values ('i05b', 'Quite another title')")
    report = m6.build(con)
    after = arrays.load(con, 2)
    assert report.embedded in {1, 2}
    changed = after.index["i03"]
    assert (after.text[changed] != before.text[before.index["i03"]]).any()
    others = [item for item in before.item_ids if item != "i03"]
    old, new = ([snapshot.index[item] for item in others] for snapshot in (before, after))
    np.testing.assert_array_equal(after.text[new], before.text[old])


NOT_AS_IT_WAS = {
    "an event was edited": "update m6.events set event_type = 'view' where event_seq = 5",
    "an event is gone": "delete from m6.events where event_seq = 5",
    "an event came under a number that was passed over": (
        "insert into m6.events (user_id, item_id, event_type, happened_at, event_seq) "
        "select user_id, item_id, event_type, happened_at, event_seq from m6.events where event_seq = 5"
    ),
    "feedback was edited": "update m6.feedback set event_type = 'purchase' where feedback_id = 'f0'",
    "feedback is gone": "delete from m6.feedback where feedback_id = 'f0'",
    "another grade": "update m6.event_types set satisfaction = 0.9 where event_type = 'view'",
}


@pytest.mark.parametrize("change", NOT_AS_IT_WAS)
def test_behaviour_that_is_not_as_it_was_is_read_afresh(con, change):
    con.execute(NOT_AS_IT_WAS[change])
    m6.build(con)
    sql = "select user_id, item_id, interest, satisfaction, happened_at from {} order by all"
    expected = con.sql(
        "select user_id, item_id, cast(interest as float), cast(satisfaction as float), happened_at "
        "from m6.behaviour order by all"
    ).fetchall()
    staged = "(from m6.stg_events join m6.stg_users using (user_idx) join m6.stg_items using (item_idx))"
    assert world.rows(con, sql.format(staged)) == expected
    stored = "select h.item_id, h.interest from (select unnest(history) as h from m6.user_history($users)) order by all"
    users = [row[0] for row in world.rows(con, "select distinct user_id from m6.behaviour")]
    assert len(con.execute(stored, {"users": users}).fetchall()) == len(expected)


def test_items_that_were_not_learned_from_are_folded_in(con):
    before = arrays.load(con, 1)
    little(con)
    for user in ("u31", "u32", "u33", "u35"):
        event(con, user, "i105", "purchase", 0.6)
    m6.build(con)
    after = arrays.load(con, 2)
    new = after.index["i105"]
    assert after.learned_users[new] == 0
    assert after.factors[new].any()
    assert after.item_item[:, [new]].nnz
    assert after.item_item[[new]].nnz
    old = np.asarray([after.index[item] for item in before.item_ids])
    learned = before.learned_users > 0
    np.testing.assert_array_equal(after.factors[old[learned]], before.factors[learned])
    np.testing.assert_array_equal(after.learned_users[old], before.learned_users)
    kept = old[learned]
    assert (after.item_item[kept][:, kept] != before.item_item[learned][:, learned]).nnz == 0


def test_an_item_without_behaviour_gets_its_weights_from_its_text(con):
    con.execute("insert into m6.items (item_id, title, description) values ('i05b', 'Comedy number 1', 'comedy')")
    m6.build(con)
    snapshot = arrays.load(con, 2)
    assert snapshot.item_item[:, [snapshot.index["i05b"]]].nnz > 3


def test_what_did_not_change_is_stored_once_and_goes_with_its_last_version(con):
    sql = "select name, content_hash from m6.artefacts where model_version = ? order by 1"
    event(con, "u00", "i70")
    m6.build(con)
    first, second = (dict(world.rows(con, sql, [version])) for version in (1, 2))
    same = {name for name in first if first[name] == second[name]}
    assert {"text", "factors", "fold_in", "item_item.data", "satisfaction"} <= same
    assert {"item", "transitions.data"}.isdisjoint(same)
    for _ in range(4):
        event(con, "u00", "i70")
        m6.build(con)
    named = "select count(*), count(distinct model_version) from m6.artefact_names"
    assert world.rows(con, named) == [(3 * len(first), 3)]
    left = "select (select count(*) from m6.artefact_contents), (select count(distinct content_hash) from m6.artefacts)"
    assert len(set(world.rows(con, left)[0])) == 1
    assert world.rows(con, "select count(*) from m6.artefacts where content is null") == [(0,)]


def test_the_version_before_still_answers(con):
    before = world.recommend(con, "u00", "until := timestamp '2024-07-01'")
    little(con)
    m6.build(con)
    assert world.recommend(con, "u00", "until := timestamp '2024-07-01', version := 1") == before
    assert len(world.recommend(con, "u30x")) == 10


@pytest.mark.parametrize("name", ["factors", "text", "satisfaction", "item_ids"])
def test_a_broken_artefact_is_learned_again_and_mended(con, name):
    digest = world.rows(con, "select content_hash from m6.artefact_names where name = ?", [name])[0][0]
    con.execute("update m6.artefact_contents set content = content || 'x' where content_hash = ?", [digest])
    m6.build(con)
    assert arrays.load(con, 2).n == 80
    assert len(world.recommend(con, "u00")) == 10


def test_what_a_build_of_an_earlier_moment_left_out_is_appended(con, monkeypatch):
    """Numbers of arrival were passed over, moments were not."""
    m6.build(con, as_of=world.START + timedelta(days=195), retrain=True)
    early = world.rows(con, "select count(*) from m6.stg_events")
    monkeypatch.setattr(event_log, "read_log", None)
    m6.build(con)
    behaviour = world.rows(con, "select count(*) from m6.behaviour")
    assert world.rows(con, "select count(*) from m6.stg_events") == behaviour > early
    stored = "select sum(len(history)) from m6.user_history((select list(user_id) from m6.stg_users))"
    assert world.rows(con, stored) == behaviour
    assert world.rows(con, "from m6.recent_behaviour") == []
