"""Content: seconds as satisfaction over the whole way from the log to the list, and the next episode as a strategy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
import shop_world as world
from test_single_user import LATER, histories_match, lists, stored

import m6rec_udf as m6

PAGE = Path(__file__).parents[2] / "docs" / "domains.md"


@pytest.fixture(scope="module")
def cinema(tmp_path_factory, shop_frames):
    """The shop, whose views are plays in seconds: films (half of the items) have a length, books none."""
    views = pl.col("event_type") == "view"
    events = shop_frames["events"].with_columns(
        event_type=pl.when(views).then(pl.lit("play")).otherwise("event_type"),
        value=pl.when(views).then(60.0 * (1 + pl.int_range(pl.len()) % 90)).otherwise("value"),
    )
    length = [json.dumps({"seconds": 3600}) if n < 40 else None for n in range(80)]
    items = shop_frames["items"].with_columns(attributes=pl.Series(length))
    con = world.connect(tmp_path_factory.mktemp("cinema") / "cinema.duckdb")
    m6.load(con, **{**shop_frames, "events": events, "items": items})
    m6.build(con, satisfaction="dwell")
    yield con
    con.close()


def test_seconds_grade_the_behaviour_in_force(cinema):
    graded = (
        "select b.value, round(b.satisfaction, 9) from m6.behaviour as b inner join m6.items as i using (item_id) "
        "where b.event_type = 'play' and i.domain = '{}' and {} order by all"
    )
    films = world.rows(cinema, graded.format("movies", "true"))
    assert films
    assert all(y == pytest.approx(min(1.0, seconds / 3600)) for seconds, y in films)
    # a book's usual stay is its median one: half of the stays lie below it
    books = [y for _, y in world.rows(cinema, graded.format("books", "true"))]
    assert 0.45 < sum(y < 0.5 for y in books) / len(books) < 0.55
    assert 0 < min(books) < max(books) < 1


def test_a_grade_by_what_is_usual_is_not_stored_and_one_user_equals_the_batch(cinema):
    assert stored(cinema) == 0
    for value in (10.0, 9000.0):
        cinema.execute(
            "insert into m6.events (user_id, item_id, event_type, value, happened_at) "
            f"values ('u21', 'i45', 'play', {value}, '{LATER}')"
        )
        histories_match(cinema)
        histories_match(cinema, "2024-04-01")
        for user in ("u00", "u21", "nobody"):
            assert lists(cinema, "one_list", user) == lists(cinema, "slates", user)


def test_lengths_count_from_the_next_query_on(cinema):
    mine = "select satisfaction from m6.behaviour where user_id = 'u00' and item_id = 'i45' and event_type = 'play'"
    cinema.execute(
        "insert into m6.events (user_id, item_id, event_type, value, happened_at) "
        f"values ('u00', 'i45', 'play', 1000, '{LATER}')"
    )
    cinema.execute("""update m6.items set attributes = '{"seconds": 2000}' where item_id = 'i45'""")
    assert world.rows(cinema, f"{mine} and value = 1000") == [(0.5,)]
    histories_match(cinema)


def test_the_next_episode_as_a_strategy(shop_file, tmp_path):
    [sql] = re.findall(r"```\n(-- one row per \(user, item\): the episode.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    folder = tmp_path / "project" / "sql" / "strategies"
    folder.mkdir(parents=True)
    (folder / "cand_next_episode.sql").write_text(sql)
    con = world.connect(shop_file, project=tmp_path / "project")
    for n, item in enumerate(("i30", "i32", "i34")):
        told = json.dumps({"series": "s", "season": 1 + n // 2, "episode": 1 + n % 2})
        con.execute("update m6.items set attributes = $1 where item_id = $2", [told, item])
    con.execute("delete from m6.events where item_id in ('i30', 'i32', 'i34')")
    con.execute("delete from m6.feedback where item_id in ('i30', 'i32', 'i34')")
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values "
        f"('u07', 'i30', 'play', '{LATER}'), ('u08', 'i30', 'play', '{LATER}'), ('u08', 'i32', 'complete', '{LATER}'), "
        f"('u09', 'i30', 'click', '{LATER}')"
    )
    m6.build(con)
    proposed = world.rows(
        con,
        "select user_id, item_id from m6.extra_candidates join m6.strategies using (bit) "
        "where strategy = 'next_episode' order by all",
    )
    assert proposed == [("u07", "i32"), ("u08", "i34")]
    con.execute("update m6.strategy_weights set weight = weight / 10")
    con.execute("insert into m6.strategy_weights values (1, '*', '*', 'next_episode', 0.9, 0.005)")
    first = world.recommend(con, "u07")[0]
    assert (first["item_id"], first["strategy"]) == ("i32", "next_episode")
    con.close()
