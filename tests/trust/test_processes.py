"""Between processes: one writes, or many read; the others serve from copies that follow each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf.errors import LockedError, M6Error, NotInstalledError, ParameterError

TESTS = Path(__file__).resolve().parents[1]
SERVER = """
import json, sys, time
import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
path, stop = sys.argv[1:]
users = ["u00", "u17", "u42", "nobody"]
import pathlib
with m6.Serving(path, every=0.05, encoder=HashEncoder(32)) as shop:
    print("serving", flush=True)
    while not pathlib.Path(stop).exists():
        with shop.cursor() as cursor:  # one cursor, one copy
            lists = [[[r[0], r[1], r[2]] for r in cursor.execute(
                "select item_id, model_version, round(score, 6) from m6.recommend(?)", [user]).fetchall()]
                for user in users]
        print(json.dumps(lists), flush=True)
"""
OPEN = world.QUIET + "import sys, m6rec_udf as m6\nfrom m6rec_udf.embed import HashEncoder\n"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


def lists(con) -> list:
    sql = "select item_id, model_version, round(score, 6) from m6.recommend(?)"
    return [[list(row) for row in world.rows(con, sql, [user])] for user in ("u00", "u17", "u42", "nobody")]


def new_behaviour(con) -> None:
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select user_id, 'i33', 'purchase', timestamp '2024-07-25' from audience"
    )


def test_two_processes_serve_from_a_copy_and_notice_the_next_one(shop, tmp_path, request):
    copy, stop = tmp_path / "copy.duckdb", tmp_path / "stop"
    m6.snapshot(shop, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    expected = {1: lists(shop)}
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", world.QUIET + SERVER, str(copy), str(stop)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    request.addfinalizer(stop.touch)
    said: list[list] = [[], []]
    readers = []
    for server, own in zip(servers, said, strict=True):
        assert server.stdout is not None
        assert server.stdout.readline() == "serving\n"
        readers.append(threading.Thread(target=lambda s=server, o=own: o.extend(json.loads(x) for x in s.stdout)))
        readers[-1].start()

    def wait_for(version):
        until = time.monotonic() + 60
        while time.monotonic() < until and not all(own and own[-1][0][0][1] == version for own in said):
            time.sleep(0.02)

    wait_for(1)
    new_behaviour(shop)
    m6.build(shop)
    expected[2] = lists(shop)
    assert expected[2] != expected[1]
    m6.snapshot(shop, copy)
    wait_for(2)
    stop.touch()
    for server, reader in zip(servers, readers, strict=True):
        reader.join(60)
        assert server.wait(60) == 0
        server.stdout.close()
    for own in said:
        versions = [answer[0][0][1] for answer in own]
        assert set(versions) == {1, 2}
        assert versions == sorted(versions)
        assert all(answer == expected[version] for answer, version in zip(own, versions, strict=True))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_second_process_is_told_the_two_ways_that_work(shop, shop_file):
    for options in ("", ", read_only=True"):
        code = f"{OPEN}m6.connect(sys.argv[1], encoder=HashEncoder(32){options})"
        done = subprocess.run(
            [sys.executable, "-c", code, str(shop_file)], env=environment(), capture_output=True, text=True, check=False
        )
        assert "LockedError" in done.stderr
        for words in ("one process write a file, or many read it", "cursor per thread", "m6rec_udf.snapshot(con"):
            assert words in done.stderr
    assert issubclass(LockedError, M6Error)


def test_readers_in_two_processes_share_a_file_and_lock_the_writer_out(shop_file):
    with world.connect(shop_file, read_only=True) as con:
        code = f"{OPEN}con = m6.connect(sys.argv[1], encoder=HashEncoder(32), read_only=sys.argv[2] == 'yes')\n"
        code += "print(con.execute(\"select count(*) from m6.recommend('u00')\").fetchall()[0][0])"
        for read_only, words in (("yes", "10\n"), ("no", "")):
            done = subprocess.run(
                [sys.executable, "-c", code, str(shop_file), read_only],
                env=environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.stdout == words
        assert "LockedError" in done.stderr
        assert len(world.recommend(con, "u00")) == 10


def serving(path, **options):
    from m6rec_udf.embed import HashEncoder

    return m6.Serving(path, encoder=HashEncoder(32), **options)


def test_a_cursor_keeps_its_copy_and_the_next_one_has_the_new(shop, tmp_path):
    copy = tmp_path / "copy.duckdb"
    m6.snapshot(shop, copy)
    with serving(copy) as served:
        assert not served.refresh()
        with served.cursor() as old:
            before = lists(old)
            new_behaviour(shop)
            m6.build(shop)
            m6.snapshot(shop, copy)
            assert served.refresh()
            assert not served.refresh()
            assert lists(old) == before
            with served.cursor() as new:
                assert lists(new) == lists(shop) != before
            assert lists(old) == before
        with pytest.raises(duckdb.Error):
            old.execute("select 1")
    with pytest.raises(duckdb.Error), served.cursor():
        pass


def test_a_copy_that_is_broken_leaves_the_one_before(shop, tmp_path):
    copy = tmp_path / "copy.duckdb"
    m6.snapshot(shop, copy)
    with serving(copy) as served:
        (tmp_path / "broken").write_bytes(copy.read_bytes()[:9000])
        os.replace(tmp_path / "broken", copy)
        with pytest.raises(M6Error, match="snapshot"):
            served.refresh()
        with served.cursor() as cursor:
            assert lists(cursor) == lists(shop)
        copy.unlink()
        with pytest.raises(FileNotFoundError):
            served.refresh()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_links_the_file_is_copied(shop, tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("not supported")

    copy = m6.snapshot(shop, tmp_path / "copy.duckdb")
    monkeypatch.setattr(os, "link", no_links)
    with serving(copy) as served, served.cursor() as cursor:
        assert lists(cursor) == lists(shop)


def test_a_retired_copy_holds_no_arrays(shop, tmp_path):
    from m6rec_udf import registry

    copy = m6.snapshot(shop, tmp_path / "copy.duckdb")
    known = len(registry._CONTEXTS)
    with serving(copy) as served:
        for _ in range(3):
            m6.snapshot(shop, copy)
            assert served.refresh()
            assert len(registry._CONTEXTS) == known + 1
    assert len(registry._CONTEXTS) == known


def test_serving_says_what_is_wrong(tmp_path):
    with pytest.raises(M6Error, match=r"no file.*\n.*snapshot"):
        serving(tmp_path / "none.duckdb")
    with pytest.raises(ParameterError, match="every"):
        serving(tmp_path / "none.duckdb", every=-1)


def test_a_copy_of_another_version_is_named(shop, tmp_path):
    copy = m6.snapshot(shop, tmp_path / "copy.duckdb")
    for change, words in (
        ("update m6.definitions set content_hash = 'other'", "views and macros"),
        ("delete from m6.migrations where name like '0005%'", "0005"),
    ):
        with duckdb.connect(str(copy)) as con:
            con.execute(change)
        with pytest.raises(NotInstalledError, match=rf"(?s){words}.*once for writing"):
            world.connect(copy, read_only=True)
