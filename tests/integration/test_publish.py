"""publish, snapshot and compact: what leaves the file, and how it is replaced."""

from __future__ import annotations

import importlib
import os
import subprocess
from pathlib import Path

import duckdb
import pytest

from m6rec_udf import connection
from m6rec_udf.errors import LockedError, M6Error, NotBuiltError, NotInstalledError, ParameterError
from m6rec_udf.publish import compact, publish, snapshot

publish_module = importlib.import_module("m6rec_udf.publish")  # the package has a function of that name

# Stand-ins for the serving macros: what is tested here is where their rows go.
SERVING = """
create or replace view m6.known_users as select distinct user_id from m6.events;
create or replace macro m6.recommend(for_user, k := 10) as table
    select for_user as user_id, item_id, cast(row_number() over (order by item_id) as integer) as rank, 0.5 as score,
        0.5 as satisfaction, 'popular' as strategy, 'because' as reason, domain, 1 as policy_version, 1 as model_version
    from m6.items order by item_id limit k;
create or replace macro m6.recommend_many(users, k := 10) as table
    select u.user_id, i.item_id, cast(row_number() over (partition by u.user_id order by i.item_id) as integer) as rank,
        0.5 as score, 0.5 as satisfaction, 'popular' as strategy, 'because' as reason, i.domain,
        1 as policy_version, 1 as model_version
    from query_table(users) as u cross join m6.items as i
    qualify row_number() over (partition by u.user_id order by i.item_id) <= k;
"""


def fill(con: duckdb.DuckDBPyConnection, *, is_built: bool = True) -> duckdb.DuckDBPyConnection:
    connection.migrate(con)
    con.execute(SERVING)
    con.execute("insert into m6.items (item_id, title) select 'i' || x, 'Film ' || x from range(5) as t(x)")
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select 'u' || x, 'i0', 'view', timestamp '2024-01-01' from range(3) as t(x)"
    )
    if is_built:
        con.execute("insert into m6.models values (1, '2024-01-01', 3, 0, 'fake', 0, null, '2024-01-01')")
        con.execute("update m6.active set model_version = 1")
    return con


@pytest.fixture
def con(tmp_path: Path):
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as opened:
        yield fill(opened)


def test_publish_into_the_file_lists_every_user_and_the_unknown_one(con):
    assert publish(con, k=3) == 4 * 3
    rows = con.execute("select user_id, list(rank order by rank), any_value(title) from m6.recommendations group by 1")
    assert sorted(row[:2] for row in rows.fetchall()) == [(user, [1, 2, 3]) for user in ["*", "u0", "u1", "u2"]]
    assert con.execute("select count(*) from m6.recommendations where title is null").fetchone() == (0,)
    undocumented = con.execute(
        "select column_name from duckdb_columns() where table_name = 'recommendations' and comment is null"
    ).fetchall()
    assert undocumented == []


def test_publish_twice_replaces_and_leaves_nothing_behind(con):
    publish(con, k=3)
    assert publish(con, k=2) == 8
    assert con.execute("select count(*) from m6.recommendations").fetchone() == (8,)
    assert con.execute("select count(*) from duckdb_tables() where temporary").fetchone() == (0,)


def test_failed_publish_keeps_the_rows_before(con):
    publish(con, k=2)
    con.execute("create or replace view m6.known_users as select error('gone') as user_id from m6.events")
    with pytest.raises(duckdb.Error, match="gone"):
        publish(con, k=3)
    assert con.execute("select count(*) from m6.recommendations").fetchone() == (8,)


def test_publish_to_a_file_needs_no_m6rec(con, tmp_path):
    target = tmp_path / "lists.duckdb"
    assert publish(con, to=target, k=2) == 8
    with duckdb.connect(str(target), read_only=True) as other:
        tag = other.execute(
            "select tags['storage_version'] from duckdb_databases() where database_name = current_database()"
        ).fetchone()
        assert tag[0].startswith("v1.4")
        assert other.execute("from m6.recommendations where user_id = '*'").fetchall()
        assert other.execute("select table_name from duckdb_tables()").fetchall() == [("recommendations",)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_older_duckdb_reads_the_published_file(con, tmp_path):
    python = os.environ.get("M6REC_OLD_DUCKDB_PYTHON")
    if not python:
        pytest.skip("M6REC_OLD_DUCKDB_PYTHON names no Python with an older duckdb")
    target = tmp_path / "lists.duckdb"
    publish(con, to=target, k=2)
    code = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('from m6.recommendations').fetchall()[0][0])"
    done = subprocess.run([python, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "*"


def test_publish_replaces_under_a_reader_who_keeps_the_old_rows(con, tmp_path):
    target = tmp_path / "lists.duckdb"
    publish(con, to=target, k=2)
    with duckdb.connect(str(target), read_only=True) as reader:
        before = os.stat(target).st_ino
        assert publish(con, to=target, k=3) == 12
        assert os.stat(target).st_ino != before
        assert reader.execute("select count(*) from m6.recommendations").fetchone() == (8,)
    with duckdb.connect(str(target), read_only=True) as reader:
        assert reader.execute("select count(*) from m6.recommendations").fetchone() == (12,)


def test_publish_keeps_the_permissions_of_the_file(con, tmp_path):
    target = tmp_path / "lists.duckdb"
    publish(con, to=target, k=1)
    assert target.stat().st_mode & 0o777 == 0o600
    target.chmod(0o644)
    publish(con, to=target, k=1)
    assert target.stat().st_mode & 0o777 == 0o644


def test_publish_from_a_read_only_connection_to_a_file(con, tmp_path):
    path = tmp_path / "shop.duckdb"
    con.close()
    with duckdb.connect(str(path), read_only=True) as reader:
        assert publish(reader, to=tmp_path / "lists.duckdb", k=1) == 4


@pytest.mark.parametrize("k", [0, -1, True, 1.5])
def test_publish_refuses_a_wrong_k(con, k):
    with pytest.raises(ParameterError, match="whole number"):
        publish(con, k=k)


def test_publish_refuses_what_is_not_built_or_not_ours(con, tmp_path):
    with pytest.raises(NotInstalledError, match="Hint:"):
        publish(duckdb.connect())
    with pytest.raises(NotBuiltError, match="m6rec build"):
        publish(fill(duckdb.connect(), is_built=False))
    with pytest.raises(ParameterError, match="open database itself"):
        publish(con, to=tmp_path / "shop.duckdb")
    with pytest.raises(ParameterError, match="does not exist"):
        publish(con, to=tmp_path / "nowhere" / "lists.duckdb")
    with pytest.raises(ParameterError, match="stem m6"):
        publish(con, to=tmp_path / "m6.duckdb")


@pytest.mark.parametrize("kind", ["text", "database"])
def test_publish_never_replaces_a_foreign_file(con, tmp_path, kind):
    target = tmp_path / "mine.duckdb"
    if kind == "text":
        target.write_text("my notes")
    else:
        with duckdb.connect(str(target)) as other:
            other.execute("create table mine as select 1 as a")
    before = target.read_bytes()
    with pytest.raises(ParameterError, match="not written by m6rec"):
        publish(con, to=target)
    assert target.read_bytes() == before


def test_publish_refuses_a_file_that_is_being_written(con, tmp_path):
    target = tmp_path / "lists.duckdb"
    publish(con, to=target, k=1)
    with duckdb.connect(str(target)), pytest.raises(LockedError, match="open for writing"):
        publish(con, to=target, k=1)


def test_snapshot_holds_everything_the_file_holds(con, tmp_path):
    con.execute(
        "create trigger seen after insert on m6.feedback referencing new table as n for each statement "
        "insert into m6.audit (action) select 'seen' from n"
    )
    con.execute("create table own as select 42 as a")
    path = snapshot(con, tmp_path / "copy.duckdb")
    con.execute("insert into m6.items (item_id) values ('later')")
    con.close()
    (tmp_path / "shop.duckdb").unlink()
    with duckdb.connect(str(path)) as copy:
        assert copy.execute("from own").fetchall() == [(42,)]
        assert copy.execute("select count(*) from m6.items").fetchone() == (5,)
        assert len(copy.execute("from m6.recommend('u0', k := 2)").fetchall()) == 2
        copy.execute("insert into m6.feedback (event_type) values ('click')")
        assert copy.execute("select action from m6.audit").fetchall() == [("seen",)]
        assert copy.execute("select event_seq from m6.events order by event_seq").fetchall() == [(1,), (2,), (3,)]
        copy.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u', 'i', 'view', '2024-01-02')"
        )
        assert copy.execute("select max(event_seq) from m6.events").fetchone() == (4,)
        assert copy.execute(
            "select count(*) from duckdb_columns() "
            "where schema_name = 'm6' and table_name = 'items' and comment is null"
        ).fetchone() == (0,)


def test_snapshot_of_memory_and_again(tmp_path):
    with duckdb.connect() as con:
        fill(con)
        snapshot(con, tmp_path / "copy.duckdb")
        con.execute("delete from m6.items")
        assert snapshot(con, tmp_path / "copy.duckdb") == tmp_path / "copy.duckdb"
        assert con.execute("select current_database()").fetchone() == ("memory",)
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as copy:
        assert copy.execute("select count(*) from m6.items").fetchone() == (0,)


def test_compact_needs_the_file_closed(con, tmp_path):
    with pytest.raises(LockedError, match="closed"):
        compact(tmp_path / "shop.duckdb")
    with pytest.raises(M6Error, match="no file"):
        compact(tmp_path / "other.duckdb")


def test_compact_of_a_publication_keeps_its_storage_version(con, tmp_path):
    target = tmp_path / "lists.duckdb"
    publish(con, to=target, k=2)
    compact(target)
    with duckdb.connect(str(target), read_only=True) as other:
        assert other.execute("select count(*) from m6.recommendations").fetchone() == (8,)
        tag = other.execute("select tags['storage_version'] from duckdb_databases() where not internal").fetchone()
        assert tag[0].startswith("v1.4")


def test_what_a_killed_process_left_is_removed_and_nobody_elses(con, tmp_path):
    done = subprocess.Popen(["true"])
    done.wait()
    dead, alive = (tmp_path / f".lists.duckdb.{pid}-abc.tmp" for pid in (done.pid, os.getppid()))
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "lists.duckdb").write_text("half")
    publish(con, to=tmp_path / "lists.duckdb", k=1)
    assert not dead.exists()
    assert alive.exists()


def test_a_file_being_written_is_its_owners_alone(con, tmp_path):
    modes = []
    copy = publish_module._copy_triggers

    def look(work, source, catalog):
        [folder] = tmp_path.glob(".copy.duckdb.*.tmp")
        modes.append(folder.stat().st_mode & 0o777)
        copy(work, source, catalog)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_module, "_copy_triggers", look)
        snapshot(con, tmp_path / "copy.duckdb")
    assert modes == [0o700]
    assert (tmp_path / "copy.duckdb").stat().st_mode & 0o777 == 0o600
