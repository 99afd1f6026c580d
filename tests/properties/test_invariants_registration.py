"""Registration: idempotent, seen by every connection of the instance, gone with it, and said so."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf.errors import NotInstalledError
from m6rec_udf.registry import context_of

TESTS = Path(__file__).resolve().parents[1]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", world.QUIET + code, *arguments],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def functions(con) -> list[tuple]:
    return world.rows(
        con, "select function_name from duckdb_functions() where function_name like 'm6\\_%' escape '\\' order by all"
    )


def test_installing_twice_is_a_no_op(shop, shop_file):
    expected, before, context = world.recommend(shop, "u00"), functions(shop), context_of(shop)
    assert m6.install(shop, encoder=world.HashEncoder(32)) is shop
    with world.connect(shop_file) as again:
        assert functions(again) == before
        assert context_of(again) is context
        assert world.recommend(again, "u00") == expected
    assert world.recommend(shop, "u00") == expected
    assert world.rows(shop, "select count(*) from m6.migrations") == world.rows(
        shop, "select count(distinct name) from m6.migrations"
    )


def test_installing_on_a_connection_of_ones_own(tmp_path):
    """Other tables of the database stay as they are; in memory works as well."""
    for target in (str(tmp_path / "own.duckdb"), ":memory:"):
        with duckdb.connect(target) as con:
            con.execute("create table orders as select 1 as id")
            m6.install(con, encoder=world.HashEncoder(32))
            m6.install(con, encoder=world.HashEncoder(32))
            m6.load(con, **world.frames())
            m6.build(con)
            assert len(world.recommend(con, "u00")) == 10
            assert len(world.recommend(con.cursor(), "u00")) == 10
            assert world.rows(con, "from orders") == [(1,)]


def test_a_second_connection_sees_the_functions(shop, shop_file):
    with duckdb.connect(str(shop_file)) as other:
        assert world.recommend(other, "u00") == world.recommend(shop, "u00")
        assert context_of(other) is context_of(shop)


def test_cursors_in_threads(shop):
    """Four at once, each user ten times, the first queries of the instance among them."""
    users = [*world.USERS[:8], "nobody"] * 4

    def read(user: str) -> tuple[str, list[dict]]:
        with shop.cursor() as cursor:
            return user, world.recommend(cursor, user)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, users))
    expected = {user: world.recommend(shop, user) for user in set(users)}
    assert all(listed == expected[user] for user, listed in found)


def test_writers_and_readers_in_threads(shop):
    def write(n: int) -> int:
        with shop.cursor() as cursor:
            cursor.execute(
                "insert into m6.events (user_id, item_id, event_type, happened_at) values (?, ?, 'view', '2024-08-01')",
                [f"u{n:02d}", f"i{n + 20}"],
            )
            return f"i{n + 20}" in [
                i for (i,) in world.rows(cursor, "select item_id from m6.history(?)", [f"u{n:02d}"])
            ]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, range(20)))


def test_reopening_after_close(shop_file):
    with world.connect(shop_file) as con:
        expected = world.recommend(con, "u00")
    for _ in range(3):
        with world.connect(shop_file) as con:
            assert world.recommend(con, "u00") == expected


@pytest.mark.parametrize("opened", ["before", "after"])
def test_the_connection_that_registered_is_closed_while_another_lives(shop_file, opened):
    """A registered closure that is gone crashes the process: run it in one that may."""
    code = f"""
import gc, sys, duckdb, shop_world as world
other = duckdb.connect(sys.argv[1]) if {opened == "before"} else None
first = world.connect(sys.argv[1])
other = other or duckdb.connect(sys.argv[1])
expected = world.recommend(first, "u00")
first.close(); del first; gc.collect()
for _ in range(3):
    assert world.recommend(other, "u00") == expected
    assert world.rows(other, "select count(*) from m6.recommend_many('audience')") == [(620,)]
import m6rec_udf as m6
assert m6.build(other).model_version == 2
assert len(world.recommend(other, "nobody")) == 10
other.close(); del other; gc.collect()
with world.connect(sys.argv[1]) as again:
    assert len(world.recommend(again, "u00")) == 10
print("alive")
"""
    done = python(code, str(shop_file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "alive"


def test_a_connection_without_registration_says_which_call_to_make(shop_file):
    with duckdb.connect(str(shop_file)) as con:
        with pytest.raises(duckdb.Error, match="m6_"):
            con.execute("from m6.recommend('u00')").fetchall()
        with pytest.raises(NotInstalledError, match=r"m6rec_udf\.install\(con\)"):
            context_of(con)
        with pytest.raises(NotInstalledError, match=r"m6rec_udf\.install\(con\)"):
            m6.build(con)
        assert world.rows(con, "select count(*) from m6.items") == [(80,)]
        m6.install(con, encoder=world.HashEncoder(32))
        assert len(world.recommend(con, "u00")) == 10


def test_a_file_is_not_kept_open_after_close(shop_file):
    """Functions look into the file with connections of their own: none may stay."""
    with world.connect(shop_file) as con:
        world.recommend(con, "u00")
        world.rows(con, "from m6.search_items('drama')")
        m6.build(con)
    done = python("import sys, duckdb; duckdb.connect(sys.argv[1]).close(); print('free')", str(shop_file))
    assert done.stdout.strip() == "free", done.stderr
