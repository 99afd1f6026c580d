"""What the app asks the database and what it writes, without a browser."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import timedelta
from importlib.util import find_spec

import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf.app import desk, server
from m6rec_udf.errors import M6Error, MissingExtraError, ParameterError, UnknownNameError
from m6rec_udf.policy_versions import adopt


def test_the_list_is_that_of_recommend(shop):
    listed = desk.best_list(shop, desk.Question("u00", k=5, domain="movies", among="picked", diversity=0.4))
    options = "k := 5, in_domain := 'movies', among := 'picked', diversity := 0.4"
    assert [row["item_id"] for row in listed] == shop_world.items_of(shop_world.recommend(shop, "u00", options))
    assert desk.best_list(shop, desk.Question("nobody"))[9]["rank"] == 10
    assert not desk.is_known(shop, "nobody")


def test_a_shown_list_is_logged_and_a_click_counts(shop):
    before = desk.best_list(shop, desk.Question("u00"))
    request = desk.show(shop, desk.Question("u00", k=6))
    rows = desk.shown(shop, request)
    assert len(rows) == 6
    assert all(0 < row["propensity"] <= 1 for row in rows)
    desk.react(shop, rows[0]["impression_id"], "click")
    assert [row["reaction"] for row in desk.shown(shop, request)] == ["click", None, None, None, None, None]
    latest = desk.history(shop, "u00", k=1)[0]
    assert (latest["event_type"], latest["title"]) == ("click", rows[0]["title"])
    assert desk.best_list(shop, desk.Question("u00")) != before
    with pytest.raises(UnknownNameError, match="no impression"):
        desk.react(shop, "none", "click")


def test_moves_say_what_happened_to_each_item():
    old = [{"item_id": i, "rank": n} for n, i in enumerate("abc", 1)]
    new = [{"item_id": i, "rank": n} for n, i in enumerate("bad", 1)]
    assert desk.moves(old, new) == ["+1", "-1", "new"]
    assert desk.moves([], new) == ["", "", ""]
    assert desk.moves(old, old) == ["", "", ""]


def test_the_clock_is_the_datas_where_it_ended_long_ago_else_now(shop):
    last = shop.execute(
        "select greatest((select max(happened_at) from m6.events), (select max(happened_at) from m6.feedback))"
    ).fetchone()[0]
    assert desk.moment(shop) == last + timedelta(seconds=1)
    shop.execute(
        "insert into m6.events by name select 'u00' as user_id, 'i00' as item_id, 'view' as event_type, "
        "cast(now() at time zone 'UTC' as timestamp) as happened_at"
    )
    now = shop.execute("select cast(now() at time zone 'UTC' as timestamp)").fetchone()[0]
    assert abs(desk.moment(shop) - now) < timedelta(minutes=5)


def test_hand_made_weights_are_a_candidate_that_can_be_tried_and_adopted(shop):
    assert desk.candidate(shop) is None
    version = desk.propose(shop, {"popular": 3.0, "blended": 1.0})
    assert desk.candidate(shop) == version
    rows = {row["strategy"]: row["candidate"] for row in desk.weights(shop)}
    assert sum(rows.values()) == pytest.approx(1)
    assert min(rows.values()) >= 0.005 - 1e-12
    assert rows["popular"] > rows["blended"] > rows["fresh"]
    in_force = desk.best_list(shop, desk.Question("u03"))
    tried = desk.best_list(shop, desk.Question("u03", policy=version))
    assert [r["strategy"] for r in tried] != [r["strategy"] for r in in_force]
    adopt(shop, version)
    assert [r["item_id"] for r in desk.best_list(shop, desk.Question("u03"))] == [r["item_id"] for r in tried]
    for wrong, error in (({"no_such": 1.0}, UnknownNameError), ({"popular": 0.0}, ParameterError)):
        with pytest.raises(error):
            desk.propose(shop, wrong)


def test_rules_are_the_users_own_tables(shop):
    assert desk.rules(shop) == ["margin", "picked"]
    assert desk.rules(shop, boosts=True) == ["margin"]
    shop.execute("create schema own")
    shop.execute('create view own."In stock" as select item_id from m6.items')
    assert 'own."In stock"' in desk.rules(shop)
    assert len(desk.best_list(shop, desk.Question("u00", among='own."In stock"'))) == 10


@pytest.mark.parametrize(
    "query",
    [
        "delete from m6.items",
        "select 1; select 2",
        "",
        "create table t as select 1",
        "from nowhere",
        "select from where",
    ],
)
def test_looking_refuses_what_is_no_query(shop, query):
    before = shop.execute("select count(*) from m6.items").fetchone()
    with pytest.raises(M6Error):
        desk.look(shop, query)
    assert shop.execute("select count(*) from m6.items").fetchone() == before


def test_looking_reads_every_table_it_names(shop):
    names = desk.tables(shop)
    assert "m6.impressions" in names
    assert [name for name in names if desk.look(shop, f"from {name}").height > desk.ROWS] == []
    with pytest.raises(M6Error, match=r"(?i)read.only"):
        desk.look(shop, "select nextval('m6.feedback_seq')")


def cli(*call, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "m6rec_udf.cli", "app", *map(str, call)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def test_errors_say_what_to_do(tmp_path):
    missing = cli(tmp_path / "none.duckdb", "--no-browser", cwd=tmp_path)
    assert (missing.returncode, "there is no database" in missing.stderr) == (2, True)
    m6.connect(tmp_path / "empty.duckdb").close()
    found = cli(tmp_path / "empty.duckdb", "--no-browser", "--port", 2790, cwd=tmp_path)
    said = "not built yet" if find_spec("marimo") else "pip install 'm6rec[app]'"
    assert (found.returncode, said in found.stderr) == (2, True)


def test_a_missing_extra_is_named(monkeypatch, shop_file):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"m6rec\[app\]"):
        server.run(shop_file)


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind((server.HOST, 0))
        other.listen()
        with pytest.raises(ParameterError, match=r"(?s)taken.*--port"):
            server.require_free(other.getsockname()[1])


def test_why_and_why_not_are_asked_of_the_same_list(shop):
    question = desk.Question("u00", k=5, among="picked")
    first = desk.best_list(shop, question)[0]
    told = desk.explanation(shop, question, first["item_id"])
    assert told["part"][0] == "sentence"
    satisfaction = told.filter((told["part"] == "satisfaction") & (told["name"] == "calibrated"))["value"][0]
    assert satisfaction == pytest.approx(first["satisfaction"], abs=1e-6)
    steps = {row["step"]: row["is_passed"] for row in desk.left_out(shop, question, first["title"]).to_dicts()}
    assert all(steps.values())
    outside = shop.execute("select title from m6.items anti join picked using (item_id) order by item_id").fetchone()[0]
    reason = desk.left_out(shop, question, outside).to_dicts()
    assert [row["step"] for row in reason if row["is_reason"]] == ["in among"]


def test_an_item_is_named_by_id_title_or_a_part_of_it(shop):
    assert desk.named_item(shop, " i07 ") == "i07"
    title = shop.execute("select title from m6.items where item_id = 'i07'").fetchone()[0]
    assert desk.named_item(shop, title.upper()) == "i07"
    with pytest.raises(UnknownNameError, match="no item is called 'nothing of that name'"):
        desk.named_item(shop, "nothing of that name")


def test_charts(shop):
    pytest.importorskip("altair", reason="needs the extra plots")
    desk.show(shop, desk.Question("u00"))
    assert {name for name in desk.CHARTS if desk.chart(shop, name).to_dict()} == set(desk.CHARTS)
