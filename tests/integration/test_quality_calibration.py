from __future__ import annotations

from datetime import timedelta

import duckdb
import numpy as np
import pytest
import shop_world

from m6rec_udf.calibration import calibration, own_window
from m6rec_udf.errors import ParameterError
from m6rec_udf.evaluate import default_as_of
from m6rec_udf.training import WINDOW_SHARE


def predictions(con: duckdb.DuckDBPyConnection, rows: list[tuple]) -> None:
    con.execute(
        "create or replace temp table given (user_id varchar, item_id varchar, domain varchar, segment varchar, "
        "satisfaction double, outcome double)"
    )
    con.executemany("insert into given values (?, ?, ?, ?, ?, ?)", rows)


def test_the_reliability_table_by_hand(reader):
    promised = [0.1, 0.1, 0.2, 0.4, 0.5, 0.9]
    came = [0.0, 1.0, 0.0, 0.5, 0.5, 1.0]
    rows = [
        ("u", f"i{n}", "books" if n < 3 else "movies", "*", p, y)
        for n, (p, y) in enumerate(zip(promised, came, strict=True))
    ]
    predictions(reader, rows[::-1])
    table = shop_world.rows(
        reader,
        "select bin, n, predicted, observed, gap from m6.calibration(predictions := 'given', bins := 3) "
        "where group_kind = 'all' order by bin",
    )
    assert table == [
        (1, 2, 0.1, 0.5, -0.4),
        (2, 2, pytest.approx(0.3), 0.25, pytest.approx(0.05)),
        (3, 2, pytest.approx(0.7), 0.75, pytest.approx(-0.05)),
    ]
    error = "select ece, largest_gap, n from m6.calibration_error(predictions := 'given', bins := 3, least_rows := 3) "
    assert shop_world.rows(reader, error + "where group_kind = 'all'") == [(pytest.approx(0.5 / 3), 0.4, 6)]
    groups = shop_world.rows(reader, error.replace("ece, largest_gap, n", "group_kind, group_name"))
    assert groups == [("all", "*"), ("domain", "books"), ("domain", "movies")]
    few = error.replace("least_rows := 3", "least_rows := 4").replace("ece, largest_gap, n", "group_kind")
    assert shop_world.rows(reader, few) == [("all",)]


def test_honest_promises_have_a_small_error_and_shifted_ones_a_large_one(reader):
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 0.3, 4000)
    y = (rng.random(4000) < p).astype(float)
    for shift, low, high in ((0.0, 0.0, 0.02), (0.1, 0.09, 0.11)):
        predictions(reader, [("u", f"i{n}", "d", None, p[n] + shift, y[n]) for n in range(4000)])
        found = shop_world.rows(reader, "select ece, n from m6.calibration_error(predictions := 'given', bins := 15)")
        assert low <= found[0][0] <= high
        assert found[0][1] == 4000


def test_a_build_is_judged_by_what_came_after_it(shop):
    as_of = default_as_of(shop)
    versions = shop_world.rows(shop, "select model_version from m6.models order by all")
    found = {(r[0], r[1], r[2]): r[3:] for r in calibration(shop, as_of=as_of, k=5).fetchall()}
    assert shop_world.rows(shop, "select model_version from m6.models order by all") == versions
    everything, shown = found["all", "all", "*"], found["shown", "all", "*"]
    assert shown[0] < everything[0]
    assert 0 <= everything[1] <= everything[2] <= 1
    users = shop_world.rows(shop, "select count(distinct user_id) from m6.behaviour where happened_at > ?", [as_of])
    assert shop_world.rows(shop, "select count(distinct user_id) from eval_shown_predictions") == users
    wanted = shop_world.rows(
        shop,
        "select count(*), sum(o.outcome) from eval_predictions p join (select user_id, item_id, case when "
        "min(interest) < 0 then 0 else max(satisfaction) end as outcome from m6.behaviour where happened_at > ? "
        "group by all) o using (user_id, item_id) where o.outcome > 0",
        [as_of],
    )
    seen = shop_world.rows(shop, "select count(*), sum(outcome) from eval_predictions where outcome > 0")
    assert wanted == [(seen[0][0], pytest.approx(seen[0][1]))]
    assert seen[0][0] > 0
    assert shop_world.rows(
        shop,
        "select count(*) from eval_shown_predictions s join eval_predictions p using (user_id, item_id) "
        "where round(s.satisfaction, 9) <> round(p.satisfaction, 9)",
    ) == [(0,)]


def test_outcomes_are_those_of_the_window(reader):
    start, end = shop_world.START + timedelta(days=80), shop_world.START + timedelta(days=120)
    found = shop_world.rows(reader, "from m6.later_satisfaction(?, ?) order by user_id, item_id", [start, end])
    wanted = shop_world.rows(
        reader,
        "select user_id, item_id, case when min(interest) < 0 then 0 else max(satisfaction) end from m6.behaviour "
        "where happened_at > ? and happened_at <= ? group by all order by 1, 2",
        [start, end],
    )
    assert len(found) > 50
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    assert [row[2] for row in found] == pytest.approx([float(row[2]) for row in wanted])


def test_the_window_of_a_build_is_as_long_as_those_it_learned_from(shop):
    as_of = shop_world.START + timedelta(days=100)
    until = own_window(shop, as_of)
    before, inside = shop_world.rows(
        shop,
        "select count(*) filter (happened_at <= $1), count(*) filter (happened_at > $1 and happened_at <= $2) "
        "from m6.behaviour",
        [as_of, until],
    )[0]
    assert inside == pytest.approx(before * WINDOW_SHARE, abs=6)  # times tie
    whole = {row[0]: row[6:8] for row in calibration(shop, as_of=as_of, version=1, k=5).fetchall()}
    short = {row[0]: row[6:8] for row in calibration(shop, as_of=as_of, until=until, version=1, k=5).fetchall()}
    assert short["shown"][1] < whole["shown"][1]
    users = shop_world.rows(
        shop,
        "select count(distinct user_id) from m6.behaviour where happened_at > ? and happened_at <= ?",
        [as_of, until],
    )
    assert shop_world.rows(shop, "select count(distinct user_id) from eval_predictions") == users


def test_candidates_hold_what_recommend_shows(reader):
    proposed = shop_world.rows(
        reader, "select item_id from m6.candidates(['u03'], k := 5) order by satisfaction desc, item_id"
    )
    listed = shop_world.recommend(reader, "u03", "k := 5")
    assert {row["item_id"] for row in listed} <= {row[0] for row in proposed}
    assert len(proposed) > 5


def test_nothing_to_judge_by(shop):
    last = shop_world.rows(shop, "select max(happened_at) from m6.behaviour")[0][0]
    with pytest.raises(ParameterError, match="nothing happened"):
        calibration(shop, as_of=last + timedelta(days=1), version=1)
