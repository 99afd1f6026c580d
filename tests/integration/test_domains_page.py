"""The SQL of docs/domains.md runs, top to bottom, and says what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import shop_world as world

PAGE = Path(__file__).parents[2] / "docs" / "domains.md"


@pytest.fixture(scope="module")
def page(built_file, tmp_path_factory):
    """The shop after every statement of the page; a list of (statement, rows)."""
    import shutil

    con = world.connect(shutil.copy(built_file, tmp_path_factory.mktemp("page") / "shop.duckdb"))
    con.execute("drop table margin")
    for table in ("events", "feedback"):
        con.execute(f"delete from m6.{table} where user_id = 'u42' and item_id in ('i30', 'i32', 'i34')")
    for season, episode, item in ((1, 1, "i30"), (1, 10, "i32"), (2, 1, "i34")):
        told = json.dumps({"series": "s", "season": season, "episode": episode})
        con.execute("update m6.items set attributes = $1 where item_id = $2", [told, item])
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "values ('u42', 'i30', 'play', timestamp '2024-07-30')"
    )
    text = "\n".join(re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    said = []
    for statement in text.split(";\n"):
        if statement.strip():
            said.append((statement, con.execute(statement).fetchall()))
    yield con, said
    con.close()


def test_every_statement_runs_and_every_list_has_lines(page):
    _, said = page
    lists = [(s, rows) for s, rows in said if s.lstrip().startswith(("from", "with"))]
    assert len(lists) >= 10
    for statement, rows in lists:
        assert rows, statement


def plays(con, item, day, kind="play"):
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u42', ?, ?, ?)",
        [item, kind, f"2024-07-{day} 12:00:00"],
    )


def test_the_next_episode_is_next(page):
    con, said = page
    [up_next] = [rows for s, rows in said if "up_next" in s]
    assert [row[1] for row in up_next] == ["i32"]
    begun = "select item_id from to_be_continued where user_id = 'u42'"
    mine = "select item_id from next_episodes where user_id = 'u42'"
    assert world.rows(con, begun) == []
    plays(con, "i32", 30, "click")  # looked at, not finished
    assert (world.rows(con, mine), world.rows(con, begun)) == ([("i32",)], [("i32",)])
    plays(con, "i32", 31)
    assert (world.rows(con, mine), world.rows(con, begun)) == ([("i34",)], [])  # the next season
    plays(con, "i34", 31)
    assert world.rows(con, mine) == []


def test_what_comes_after_may_be_a_table(page):
    con, _ = page
    mine = "select item_id from next_in_line where user_id = 'u42'"
    con.execute("delete from m6.events where user_id = 'u42' and item_id in ('i40', 'i42', 'i44')")
    assert world.rows(con, mine) == []
    plays(con, "i40", 30)
    assert world.rows(con, mine) == [("i42",)]
    plays(con, "i42", 31)
    assert world.rows(con, mine) == [("i44",)]


def test_ads_are_ordered_by_bid_times_probability_within_budget_and_cap(page):
    con, said = page
    [ranked] = [rows for s, rows in said if "as ecpm from open_ads" in s]
    assert ranked == [("i12", 8.0), ("i10", 5.0), ("i50", 1.0)]
    con.execute(
        "insert into m6.impressions (impression_id, request_id, user_id, item_id, rank, strategy, supporters, "
        "eligible, propensity, shown_at) select 'ad' || n, 'ad' || n, 'u42', 'i12', 1, 'pinned', 0, 0, 1.0, "
        "timestamp '2030-01-01 23:00' from range(7) t(n)"
    )
    assert ("u42", "i12") in world.rows(con, "from shown_often")
    assert ("i12",) in world.rows(con, "from payable")
    con.execute("insert into m6.feedback (impression_id, event_type) select 'ad' || n, 'click' from range(7) t(n)")
    assert ("i12",) not in world.rows(con, "from payable")  # 7 clicks at 0.80 are more than 5.0


def test_margin_is_expected(page):
    con, _ = page
    rows = world.rows(
        con,
        "select r.score, r.satisfaction, coalesce(m.boost, 1.0) from m6.recommend('u42', boosts := 'margin') as r "
        "left join margin as m using (item_id)",
    )
    for score, satisfaction, boost in rows:
        assert score == pytest.approx(satisfaction * boost)
