"""Invariant 5: one version at a time; killed half-way, the version before is in force and whole."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import arrays

TESTS = Path(__file__).resolve().parents[1]
START = """
import os, signal, sys
import shop_world as world
import m6rec_udf as m6
con = world.connect(sys.argv[1])

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_before(owner, name):
    setattr(owner, name, die)

def kill_after(owner, name):
    inner = getattr(owner, name)
    def wrapped(*args, **kwargs):
        inner(*args, **kwargs)
        die()
    setattr(owner, name, wrapped)

class Dying:
    '''A connection that dies before its n-th statement that writes to m6 (the commit among them).'''
    def __init__(self, con, left):
        self.con, self.left = con, [left] if isinstance(left, int) else left
    def count(self, sql):
        if sql.startswith(("insert into m6.", "update m6.", "delete from m6.", "commit")):
            self.left[0] -= 1
            if self.left[0] < 0:
                die()
    def execute(self, sql, *rest):
        self.count(sql)
        return self.con.execute(sql, *rest)
    def executemany(self, sql, *rest):
        self.count(sql)
        return self.con.executemany(sql, *rest)
    def cursor(self):
        return Dying(self.con.cursor(), self.left)
    def __getattr__(self, name):
        return getattr(self.con, name)
"""
BUILD = "from m6rec_udf import arrays, reweight, version\nimport m6rec_udf.reweight\n"
BUILD_MOMENTS = {
    "at the start": "m6.build(con, progress=lambda step, *_: die())",
    "after the embedding": "m6.build(con, progress=lambda step, *_: die() if step == 'embed' else None)",
    "after the training": "m6.build(con, progress=lambda step, *_: die() if step == 'satisfaction' else None)",
    "with the arrays written": "kill_after(arrays, 'store'); m6.build(con)",
    "with half of the tables": "kill_before(version, 'write_item_tables'); m6.build(con)",
    "with all of the tables": "kill_after(version, 'publish_tables'); m6.build(con)",
}
NO_GATE = {"gate": False}
VERBS = {"reweight": ("m6.reweight({con}, parameters={{'gate': False}})", 3), "rollback": ("m6.rollback({con})", 1)}


def run(code: str, path: Path) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run(
        [sys.executable, "-c", world.QUIET + START + code, str(path)],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def new_behaviour(con) -> None:
    """Enough that another build gives other lists."""
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select user_id, 'i33', 'purchase', timestamp '2024-07-25' from audience"
    )
    con.execute("update m6.items set domain = 'books' where item_id = 'i33'")


def everything(con) -> tuple:
    """What a reader can see of the versions: no table may have moved."""
    tables = [
        name
        for (name,) in world.rows(con, "select table_name from duckdb_tables() where schema_name = 'm6' order by 1")
    ]
    counted = [
        (name, world.rows(con, f"select count(*), bit_xor(hash(columns(*)::varchar)) from m6.{name}"))
        for name in tables
        if name.startswith(("feat_", "stg_"))
    ]
    kept = [
        (name, world.rows(con, f"select * from m6.{name} order by all"))
        for name in (
            "models",
            "active",
            "policy_versions",
            "strategy_weights",
            "decisions",
            "lineage",
            "audit",
            "item_vectors",
        )
    ]
    hashes = world.rows(con, "select model_version, name, content_hash from m6.artefacts order by all")
    return tables, counted, kept, hashes, world.state(con)


@pytest.mark.parametrize("moment", BUILD_MOMENTS)
def test_a_killed_build_leaves_the_version_before(shop_file, moment):
    with world.connect(shop_file) as con:
        new_behaviour(con)
        before = everything(con)
    assert run(BUILD + BUILD_MOMENTS[moment], shop_file) == -signal.SIGKILL
    with world.connect(shop_file) as con:
        assert everything(con) == before
        arrays.load(con, 1)
        assert m6.build(con).model_version == 2
        assert world.rows(con, "select model_version from m6.active") == [(2,)]
        assert {row["model_version"] for row in world.recommend(con, "u00")} == {2}
        assert world.state(con) != before[-1]


def test_builds_killed_at_random_moments(shop_file):
    """From outside, after so many milliseconds: the version before or the new one, whole either way."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    with world.connect(shop_file) as con:
        new_behaviour(con)
    chance = random.Random(7)
    for _ in range(5):
        with world.connect(shop_file) as con:
            [(version,)] = world.rows(con, "select model_version from m6.active")
            before = everything(con)
        child = subprocess.Popen(
            [sys.executable, "-c", world.QUIET + START + "print('go', flush=True)\nm6.build(con)", str(shop_file)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0.05, 1.2))
        child.kill()
        child.wait()
        child.stdout.close()
        with world.connect(shop_file) as con:
            [(now,)] = world.rows(con, "select model_version from m6.active")
            assert now in (version, version + 1)
            if now == version:
                assert everything(con) == before
            arrays.load(con, now)
            assert {row["model_version"] for row in world.recommend(con, "u00")} == {now}


@pytest.fixture(scope="module")
def answered(built_file, tmp_path_factory):
    """Two versions of the weights, the second in force, and a period of feedback not yet learned from."""
    path = Path(shutil.copy(built_file, tmp_path_factory.mktemp("answered") / "shop.duckdb"))
    with world.connect(path) as con:
        for day in (1, 2):
            con.execute(
                "insert into m6.impressions by name from m6.serve_many('audience', k := 10, seed := $day, "
                "request := 'd' || $day, moment := timestamp '2024-08-01' + to_days($day))",
                {"day": day},
            )
            con.execute(
                "insert into m6.feedback (impression_id, event_type, happened_at, ingested_at) "
                "select impression_id, 'purchase', shown_at + interval 1 minute, shown_at + interval 1 minute "
                "from m6.impressions where supporters > 1 and request_id like 'd' || $day || '%'",
                {"day": day},
            )
            if day == 1:
                m6.reweight(con, parameters=NO_GATE)
        assert world.rows(con, "select policy_version from m6.active") == [(2,)]
    return path


@pytest.mark.parametrize("statements", range(5))
@pytest.mark.parametrize("verb", VERBS)
def test_a_killed_reweighting_or_rollback_leaves_the_weights_before(answered, tmp_path, verb, statements):
    path = Path(shutil.copy(answered, tmp_path / "shop.duckdb"))
    with world.connect(path) as con:
        before = everything(con)
    code = f"import m6rec_udf.reweight\n{VERBS[verb][0].format(con=f'Dying(con, {statements})')}\n"
    died = run(code, path) == -signal.SIGKILL
    assert died or statements > 2
    with world.connect(path) as con:
        if died:
            assert everything(con) == before
            if verb == "reweight":
                m6.reweight(con, parameters=NO_GATE)
            else:
                m6.rollback(con)
        assert everything(con) != before
        assert world.rows(con, "select policy_version from m6.active") == [(VERBS[verb][1],)]
        sums = world.rows(con, "select sum(weight) from m6.strategy_weights group by policy_version, domain, segment")
        assert [total for (total,) in sums] == pytest.approx([1.0] * len(sums))
        assert {row["policy_version"] for row in world.recommend(con, "u00")} == {VERBS[verb][1]}


def test_readers_see_one_version_during_builds(shop):
    """Cursors in threads read while two builds come into force."""
    new_behaviour(shop)
    stop, seen, wrong = threading.Event(), set(), []

    def read(query: str) -> None:
        cursor = shop.cursor()
        try:
            while not stop.is_set():
                found = world.rows(cursor, query)
                versions = {row[:2] for row in found}
                seen.update(versions)
                if len(versions) != 1 or {row[2] for row in found} != set(range(1, 11)):
                    wrong.append(found)
        except Exception as error:
            wrong.append(error)
        finally:
            cursor.close()

    columns = "select model_version, policy_version, rank"
    queries = [
        f"{columns} from m6.recommend('u00')",
        f"{columns} from m6.recommend_many('audience')",
        f"{columns} from m6.serve('u07')",
    ]
    threads = [threading.Thread(target=read, args=[query]) for query in queries]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            m6.build(shop)
    finally:
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert {version for version, _ in seen} >= {1, 3}


def test_a_reader_in_a_transaction_keeps_its_version(shop):
    new_behaviour(shop)
    cursor = shop.cursor()
    cursor.execute("begin")
    before = world.state(cursor)
    m6.build(shop)
    assert world.state(cursor) == before
    cursor.execute("commit")
    assert world.rows(cursor, "select model_version from m6.active") == [(2,)]
    assert world.state(cursor) != before
    cursor.close()


def test_a_build_that_fails_changes_nothing(shop, monkeypatch):
    before = everything(shop)

    def fail(*_: object) -> None:
        raise RuntimeError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("m6rec_udf.version.write_item_tables", fail)
        with pytest.raises(RuntimeError, match="disk is full"):
            m6.build(shop)
    assert everything(shop) == before
    assert m6.build(shop).model_version == 2
