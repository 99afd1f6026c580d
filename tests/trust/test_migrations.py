"""A file of every release opens with the present code, and answers the same (released/make.py makes them)."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import resources
from m6rec_udf.errors import NotInstalledError

RELEASED = sorted((Path(__file__).parent / "released").glob("*.duckdb.xz"))


@pytest.fixture(params=RELEASED, ids=lambda path: path.name.removesuffix(".duckdb.xz"))
def released(request, tmp_path):
    """(a copy of the file, what it answered when it was made)."""
    path = tmp_path / "shop.duckdb"
    path.write_bytes(lzma.decompress(request.param.read_bytes()))
    expected = json.loads(Path(str(request.param).removesuffix(".duckdb.xz") + ".json").read_text(encoding="utf-8"))
    return path, expected


def lists(con, expected):
    return {
        user: [[r["item_id"], r["strategy"], round(r["satisfaction"], 6)] for r in world.recommend(con, user)]
        for user in expected["lists"]
    }


def test_there_is_a_small_file_of_the_release():
    assert f"v{m6.__version__}.duckdb.xz" in {path.name for path in RELEASED}
    assert all(path.stat().st_size < 1_000_000 for path in RELEASED)


def test_it_migrates_and_answers_the_same(released):
    path, expected = released
    for _ in range(2):  # a second opening finds nothing to do
        with world.connect(path) as con:
            names = [name for (name,) in world.rows(con, "select name from m6.migrations order by name")]
            assert names == sorted(file.stem for file in resources.migrations_root().glob("*.sql"))
            assert list(world.rows(con, "select model_version, policy_version from m6.active")[0]) == expected["active"]
            for table, count in expected["counts"].items():
                assert world.rows(con, f"select count(*) from m6.{table}") == [(count,)]
            weights = world.rows(con, "from m6.strategy_weights_active order by all")
            assert [list(row) for row in weights] == expected["weights"]
            assert lists(con, expected) == expected["lists"]
            kept = world.rows(con, "select name, content from m6.list_state order by name")
            assert kept == world.rows(con, "select name, content from m6.list_state_now order by name")


def test_its_lines_are_explained_by_what_its_model_knows(released):
    path, expected = released
    with world.connect(path) as con:
        for user in expected["lists"]:
            item = world.recommend(con, user)[0]["item_id"]
            said = world.rows(
                con, "select name, contribution from m6.explain(?, ?) where part = 'feature'", [user, item]
            )
            assert any(share for _, share in said if share is not None)
            assert not dict(said).get("pair_new_domain")


def test_it_goes_on(released):
    path, expected = released
    with world.connect(path) as con:
        con.execute("update m6.events set value = 1 where event_seq = 1")  # the triggers of the present code
        assert len(world.rows(con, "from m6.history_edits")) == 1
        version = m6.build(con).model_version
        assert version == expected["active"][0] + 1
        assert world.rows(con, "from m6.history_edits") == []
        assert len(world.recommend(con, "u05")) == 10
        m6.reweight(con, parameters={"gate": False})
        assert m6.rollback(con, to=1)["policy_version"] == 1
        assert m6.publish(con, k=3) > 0


def test_for_reading_only_it_is_named_where_it_needs_migrations(released):
    path, _ = released
    with pytest.raises(NotInstalledError, match=r"(?s)another version of m6rec.*once for writing"):
        world.connect(path, read_only=True)
