"""Invariants 6 and 7: everything is in the file, and published tables need no Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shop_world as world

import m6rec_udf as m6

TESTS = Path(__file__).resolve().parents[1]
QUESTIONS = {
    "recommend": "from m6.recommend('u00', k := 20)",
    "options": "from m6.recommend('u07', in_domain := 'books', among := 'picked', boosts := 'margin', diversity "
    ":= 0.3)",
    "unknown": "from m6.recommend('nobody')",
    "many": "from m6.recommend_many('audience', k := 5)",
    "serve": "from m6.serve('u00', seed := 5, request := 'r', moment := timestamp '2024-08-01')",
    "similar": "from m6.similar_items('i04')",
    "together": "from m6.bought_together('i04')",
    "search": "from m6.search_items('drama about topic3')",
    "text": "from m6.recommend_for_text('cooking')",
    "explain": "from m6.explain('u00', 'i04')",
    "history": "from m6.history('u00')",
    "trending": "from m6.trending(in_domain := 'movies')",
    "behaviour": "select m6.behavior_text('u00')",
}


def answers(con) -> str:
    return json.dumps({name: world.rows(con, sql) for name, sql in QUESTIONS.items()}, default=str, sort_keys=True)


ANSWER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import shop_world as world
from test_invariants_file import answers
with world.connect(sys.argv[1]) as con:
    print(answers(con))
"""


def python(code: str, *arguments: str, paths: tuple[Path, ...] = (), cwd: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-c", world.QUIET + code, *arguments],
        env=environment,
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_question_has_an_answer(reader):
    for name, sql in QUESTIONS.items():
        assert world.rows(reader, sql), name


def test_a_copy_elsewhere_gives_the_same_answers_in_another_process(shop_file, tmp_path):
    with world.connect(shop_file) as con:
        con.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u00', 'i44', 'purchase', "
            "'2024-08-01')"
        )
        expected = answers(con)
    copy = tmp_path / "another place" / "renamed.db"
    copy.parent.mkdir()
    shutil.copy(shop_file, copy)
    shop_file.unlink()
    found = python(ANSWER, str(copy), paths=(TESTS, TESTS.parent), cwd=copy.parent)
    assert found.strip() == expected


def test_two_files_in_one_process_do_not_mix(shop, tmp_path):
    """The second file has another build under the same version number."""
    path = tmp_path / "other.duckdb"
    world.fill(path, world.frames(seed=5)).close()
    alone = python(ANSWER, str(path), paths=(TESTS, TESTS.parent)).strip()
    one = answers(shop)
    with world.connect(path) as other:
        assert answers(other) == alone
        assert answers(shop) == one
    assert one != alone


def test_the_file_can_be_read_only(shop_file):
    with world.connect(shop_file) as con:
        expected = answers(con)
    with world.connect(shop_file, read_only=True) as con:
        assert answers(con) == expected


PLAIN = """
import json, sys
import duckdb
con = duckdb.connect(sys.argv[1], read_only=True)
rows = con.execute("select user_id, item_id, rank, round(satisfaction, 9) from m6.recommendations order by "
"user_id, rank").fetchall()
assert not [name for name in sys.modules if name.startswith("m6rec")], "the package was imported"
print(json.dumps(rows))
"""


@pytest.mark.parametrize("where", ["in the file", "in a file of its own"])
def test_published_tables_are_read_by_plain_duckdb(shop_file, tmp_path, where):
    target = None if where == "in the file" else tmp_path / "for_readers.duckdb"
    with world.connect(shop_file) as con:
        m6.publish(con, to=target, k=5)
        expected = {u: [(r["item_id"], r["rank"]) for r in world.recommend(con, u, "k := 5")] for u in ("u00", "u33")}
    rows = json.loads(python(PLAIN, str(target or shop_file), cwd=tmp_path))
    assert {user for user, *_ in rows} >= set(world.USERS)
    for user, listed in expected.items():
        assert [(item, rank) for who, item, rank, _ in rows if who == user] == listed
    assert all(0 <= satisfaction <= 1 for *_, satisfaction in rows)
