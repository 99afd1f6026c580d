"""forget_user: whose rows go, whose stay, and what is said about the rest."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf import connection
from m6rec_udf.errors import LockedError, NotInstalledError, ParameterError
from m6rec_udf.files import occurrences
from m6rec_udf.privacy import forget_user
from m6rec_udf.publish import snapshot

ROWS = """
insert into m6.items (item_id) values ('i1'), ('i2');
insert into m6.users (user_id, segment, profile) values ('u1', 'a', 'likes jazz'), ('u2', 'b', 'likes rock');
insert into m6.events (user_id, item_id, event_type, happened_at) values
    ('u1', 'i1', 'view', '2024-01-01'), ('u1', 'i2', 'view', '2024-01-02'), ('u2', 'i1', 'view', '2024-01-01'),
    ('u11', 'i1', 'view', '2024-01-01');
insert into m6.relations (user_id, other_user_id) values ('u1', 'u2'), ('u2', 'u1'), ('u2', 'u11');
insert into m6.impressions (
    impression_id, request_id, user_id, item_id, rank, strategy, supporters, eligible, propensity, shown_at
) values
    ('r1-1', 'r1', 'u1', 'i1', 1, 'popular', 1, 1, 0.5, '2024-01-03'),
    ('r2-1', 'r2', 'u2', 'i1', 1, 'popular', 1, 1, 0.5, '2024-01-03');
insert into m6.feedback (feedback_id, impression_id, request_id, user_id, event_type) values
    ('f1', 'r1-1', null, null, 'click'), ('f2', null, 'r1', null, 'click'), ('f3', null, null, 'u1', 'click'),
    ('f4', 'r2-1', null, null, 'click'), ('f5', null, 'r2', 'u2', 'click');
insert into m6.rejected_rows values
    ('b', 'events', 1, 'no item_id', '{"customer": "u1", "when": "x"}'),
    ('b', 'events', 2, 'no item_id', '{"customer": "u11", "when": "x"}'),
    ('b', 'events', 3, 'user u1 has no time', null);
insert into m6.text_vectors values ('fake', sha256('likes jazz'), [1.0]), ('fake', sha256('likes rock'), [1.0]);
create table m6.stg_users as select 0 as user_idx, 'u1' as user_id union all select 1, 'u2';
create table m6.stg_events as select unnest([0, 0, 1]) as user_idx, 5 as item_idx;
create table m6.user_histories as select 'u1' as user_id, [1, 2] as items union all select 'u2', [3];
create table m6.recommendations as select 'u1' as user_id, 'i1' as item_id union all select '*', 'i1';
"""


def fill(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    connection.migrate(con)
    con.execute(ROWS)
    return con


@pytest.fixture
def con():
    with duckdb.connect() as opened:
        yield fill(opened)


def contents(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    tables = [
        row[0] for row in con.execute("select table_name from duckdb_tables() where schema_name = 'm6'").fetchall()
    ]
    return {
        table: sorted(row[0] for row in con.execute(f"select cast(t as varchar) from m6.{table} as t").fetchall())
        for table in tables
    }


def test_every_table_forgets_the_user_and_only_the_user(con):
    report = forget_user(con, "u1")
    assert {table: count for table, count in report["deleted"].items() if count} == {
        "events": 2,
        "history_edits": 1,  # noted by the deletion of the events, and deleted with the rest
        "users": 1,
        "relations": 2,
        "impressions": 1,
        "feedback": 3,
        "rejected_rows": 2,
        "text_vectors": 1,
        "user_histories": 1,
        "stg_users": 1,
        "stg_events": 2,
        "recommendations": 1,
    }
    assert report["total"] == 18
    assert con.execute("select user_idx from m6.stg_events").fetchall() == [(1,)]
    left = {table: rows for table, rows in contents(con).items() if any("'u1'" in r or "u1," in r for r in rows)}
    assert left == {}
    assert con.execute("select feedback_id from m6.feedback order by 1").fetchall() == [("f4",), ("f5",)]
    assert con.execute("select user_id from m6.events order by 1").fetchall() == [("u11",), ("u2",)]
    assert con.execute("select content is null, reason from m6.rejected_rows order by row_number").fetchall() == [
        (True, "no item_id"),
        (False, "no item_id"),
        (True, "forgotten"),
    ]


def test_the_audit_row_never_holds_the_id(con):
    con.execute("insert into m6.users (user_id) values ('anna@example.org')")
    forget_user(con, "anna@example.org")
    ((action, detail),) = con.execute("select action, detail from m6.audit").fetchall()
    assert action == "forget_user"
    assert "anna" not in detail
    assert json.loads(detail)["deleted"]["users"] == 1


def test_unknown_user_changes_nothing_and_is_no_error(con):
    before = contents(con)
    report = forget_user(con, "nobody")
    assert report["total"] == 0
    assert set(report["deleted"].values()) == {0}
    assert contents(con) == before


@pytest.mark.parametrize("user", ["", "u' or 1=1 --", "u1|u2", ".*", "ü"])
def test_odd_ids_touch_nobody_else(con, user):
    before = contents(con)
    assert forget_user(con, user)["total"] == 0
    assert contents(con) == before
    con.execute("insert into m6.users (user_id) values (?)", [user])
    assert forget_user(con, user)["total"] == 1
    con.execute("delete from m6.audit")
    assert contents(con) == before


def test_a_new_table_with_user_id_is_found(con):
    con.execute("create table m6.later (user_id varchar, note varchar); insert into m6.later values ('u1', 'x')")
    assert forget_user(con, "u1")["deleted"]["later"] == 1


def test_a_failure_leaves_everything(con):
    con.execute("create table m6.parent (user_id varchar primary key); insert into m6.parent values ('u1')")
    con.execute("create table m6.child (p varchar references m6.parent (user_id)); insert into m6.child values ('u1')")
    before = contents(con)
    with pytest.raises(duckdb.ConstraintException):
        forget_user(con, "u1")
    assert contents(con) == before


def test_builds_and_artefacts_are_named(con):
    con.execute("insert into m6.models values (7, '2024-01-01', 3, 0, 'fake', 0, null, '2024-01-01')")
    con.execute("insert into m6.artefact_names values (7, 'ids', 'h'), (7, 'none', 'g')")
    con.execute("insert into m6.artefact_contents values ('h', ?), ('g', ?)", [b"u0u1u2", b"abc"])
    report = forget_user(con, "u1")
    assert report["model_versions"] == [7]
    assert report["artefacts"] == ["ids"]
    assert any("m6.build" in text for text in report["remains"])


def test_copies_forget_too_and_lose_the_bytes(tmp_path: Path):
    user = "Wilhelmina-Featherstonehaugh-0123456789"
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as con:
        fill(con)
        con.execute("insert into m6.users (user_id, profile) values (?, 'x')", [user])
        con.execute(f"create or replace table m6.recommendations as select '{user}' as user_id, 'i1' as item_id")
        lists = tmp_path / "lists.duckdb"
        con.execute(f"attach '{lists}' as lists (storage_version 'v1.4.0')")
        con.execute("create schema lists.m6; create table lists.m6.recommendations as from m6.recommendations")
        con.execute("detach lists")
        assert user.encode() in lists.read_bytes()
        report = forget_user(con, user, snapshots=[lists, tmp_path / "missing.duckdb"])
        assert report["snapshots"] == {str(lists): 1, str(tmp_path / "missing.duckdb"): -1}
        assert any("missing.duckdb does not exist" in text for text in report["remains"])
        assert any("free blocks" in text for text in report["remains"])
        assert user.encode() not in lists.read_bytes()
        copy = snapshot(con, tmp_path / "copy.duckdb")
    assert user.encode() not in copy.read_bytes()
    assert not (tmp_path / "shop.duckdb.wal").exists()


def test_a_database_without_m6rec_is_an_error():
    with pytest.raises(NotInstalledError, match="Hint:"):
        forget_user(duckdb.connect(), "u1")


PERSON = "wilhelmina@featherstonehaugh.example"
UNCOMPRESSED = "set force_compression = 'uncompressed'"


def shop_with(person: str, path: Path, frames: dict) -> Path:
    """A built shop that a person has left traces in wherever there is a place for them, written uncompressed."""
    con = shop_world.connect(path)
    con.execute(UNCOMPRESSED)
    m6.load(con, **frames)
    behaviour = pl.DataFrame(
        {
            "event_id": [f"{person}/{n}" for n in range(6)],
            "user_id": [person] * 6,
            "item_id": [f"i0{n}" for n in range(6)],
            "event_type": ["view", "purchase"] * 3,
            "happened_at": [shop_world.START + timedelta(days=20 * n) for n in range(6)],
        }
    )
    m6.load(con, events=behaviour, users=pl.DataFrame({"user_id": [person], "profile": [f"{person} likes drama"]}))
    m6.load(con, relations=pl.DataFrame({"user_id": [person, "u01"], "other_user_id": ["u02", person]}))
    m6.load(con, events=behaviour.with_columns(pl.lit("nonsense").alias("event_type"), event_id=pl.lit(None)))
    m6.build(con)
    con.execute("insert into m6.impressions by name from m6.serve(?, k := 5, seed := 1, request := 'r7')", [person])
    served = {"person": f"r7-{person}"}
    con.execute("insert into m6.feedback (impression_id, event_type) values ($person || '-1', 'click')", served)
    con.execute("insert into m6.feedback (request_id, item_id, event_type) values ($person, 'i01', 'click')", served)
    con.execute("insert into m6.feedback (impression_id, event_type) values ($person || '-99', 'click')", served)
    con.execute("insert into m6.extra_candidates values (1, ?, 'i05', 0)", [person])
    con.execute("update m6.events set value = 3 where event_id = ?", [f"{person}/0"])  # into m6.history_edits
    m6.publish(con)
    con.close()
    return path


def test_the_bytes_of_a_forgotten_person_are_nowhere(tmp_path, shop_frames):
    shop = shop_with(PERSON, tmp_path / "shop.duckdb", shop_frames)
    con = shop_world.connect(shop)
    con.execute(UNCOMPRESSED)
    copy = m6.snapshot(con, tmp_path / "copy.duckdb")
    lists = tmp_path / "lists.duckdb"
    m6.publish(con, to=lists)
    con.execute("set checkpoint_threshold = '1TB'")
    con.execute("pragma disable_checkpoint_on_shutdown")
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values (?, 'i09', 'view', '2024-06-01')",
        [PERSON],
    )
    con.close()
    assert PERSON.encode() in Path(f"{shop}.wal").read_bytes()
    before = {path: occurrences(path, PERSON) for path in (shop, copy)}
    assert all(found > 20 for found in before.values()), before

    report = m6.forget_user(shop, PERSON, snapshots=[copy, lists], ticket="2024-117")

    assert report["occurrences"] == {str(shop): 0, str(copy): 0, str(lists): 0}
    for path in tmp_path.iterdir():  # nothing beside them either: no log, no half-written copy
        assert PERSON.encode() not in path.read_bytes(), path
        assert b"featherstonehaugh" not in path.read_bytes(), path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.duckdb", "lists.duckdb", "shop.duckdb"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (shop, copy, lists)} == {0o600}
    for table in ("events", "users", "relations", "impressions", "feedback", "rejected_rows", "stored_histories",
                  "extra_candidates", "recommendations", "history_edits"):  # fmt: skip
        assert report["deleted"][table] > 0, table
    assert report["snapshots"][str(lists)] > 0
    con = shop_world.connect(shop)
    ((detail,),) = con.execute("select detail from m6.audit where action = 'forget_user'").fetchall()
    assert "2024-117" in detail
    assert len(con.execute("from m6.recommend(?)", [PERSON]).fetchall()) == 10
    assert len(con.execute("from m6.recommend('u01')").fetchall()) == 10
    assert any("m6.build" in text for text in report["remains"])
    con.close()


def test_an_open_connection_is_told_what_it_leaves(tmp_path, shop_frames):
    shop = shop_with(PERSON, tmp_path / "shop.duckdb", shop_frames)
    con = shop_world.connect(shop)
    report = m6.forget_user(con, PERSON)
    assert any("m6.forget_user(path, user_id)" in text for text in report["remains"])
    assert con.execute("select count(*) from m6.events where user_id = ?", [PERSON]).fetchall() == [(0,)]
    with pytest.raises(LockedError, match="Hint:"):
        m6.forget_user(shop, PERSON)
    con.close()
    m6.compact(shop)
    assert occurrences(shop, PERSON) == 0


def test_texts_of_others_that_mention_the_person_are_named(tmp_path, shop_frames):
    shop = shop_with(PERSON, tmp_path / "shop.duckdb", shop_frames)
    con = shop_world.connect(shop)
    con.execute("update m6.items set description = 'as seen by ' || ? where item_id = 'i05'", [PERSON])
    con.execute("create table audience as select ? as user_id", [PERSON])
    con.close()
    report = m6.forget_user(shop, PERSON)
    assert any("m6.items.description mentions the id in 1 rows" in text for text in report["remains"])
    assert any("main.audience.user_id mentions the id in 1 rows" in text for text in report["remains"])


def test_a_ticket_with_the_id_is_refused(con):
    with pytest.raises(ParameterError, match="Hint:"):
        forget_user(con, "u1", ticket="please forget u1")
    with pytest.raises(ParameterError, match="Hint:"):
        forget_user("nowhere.duckdb", "u1")


def test_new_files_are_private_from_the_start(tmp_path):
    con = shop_world.connect(tmp_path / "new.duckdb")
    m6.snapshot(con, tmp_path / "copy.duckdb")
    con.close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
