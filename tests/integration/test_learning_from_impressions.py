"""The build learns from what was shown: ignored is a negative, propensities even out, nothing leaks."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf import fitting, training
from m6rec_udf.event_log import Log

SHOWN_AT = shop_world.START + timedelta(days=190)


def show(con: duckdb.DuckDBPyConnection, likes: str, *, at=SHOWN_AT, days: int = 8) -> None:
    """Serve every user a list a day; what has the category in ``likes`` is liked at once, the rest ignored."""
    con.execute("create or replace temp table asked as select user_id from m6.users")
    for day in range(days):
        moment_ = at + timedelta(days=day)
        con.execute(
            "insert into m6.impressions by name "
            "from m6.serve_many('asked', k := 8, seed := $s, request := $r, moment := $t)",
            {"s": day, "r": f"r{moment_:%j}", "t": moment_},
        )
    con.execute(
        "insert into m6.feedback by name select 'like-' || impression_id as feedback_id, impression_id, "
        "'like' as event_type, shown_at + interval 5 minute as happened_at, happened_at as ingested_at "
        "from m6.impressions join m6.items using (item_id) where category = $c and shown_at >= $t",
        {"c": likes, "t": at},
    )


def mean_satisfaction(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    rows = con.execute(
        "select i.category, avg(r.satisfaction) from m6.recommend_many('asked', k := 80) as r "
        "join m6.items as i using (item_id) group by all"
    ).fetchall()
    return dict(rows)


def decisions(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, str]]:
    rows = con.execute(
        "select name, value, reason from m6.decisions where model_version = (select max(model_version) from m6.models)"
    ).fetchall()
    return {name: (value, reason) for name, value, reason in rows}


def test_shown_and_ignored_is_a_negative(shop, monkeypatch):
    show(shop, "cooking")
    m6.build(shop)
    assert int(decisions(shop)["impression_rows"][0]) > 500
    learned = mean_satisfaction(shop)
    monkeypatch.setattr(training, "LEAST_ANSWERS", 10**9)
    # without impressions the latest window's behaviour would teach in their place; the comparison is with neither
    monkeypatch.setattr(fitting, "learn_again", lambda part, *_, **__: part)
    m6.build(shop, retrain=True)
    assert decisions(shop)["impression_rows"][0] == "0"
    without = mean_satisfaction(shop)
    for ignored in ("drama", "comedy", "history"):
        assert learned[ignored] / learned["cooking"] < without[ignored] / without["cooking"], (learned, without)


def test_few_answers_teach_nothing_and_say_so(shop):
    show(shop, "no such category", days=1)
    m6.build(shop)
    value, reason = decisions(shop)["impression_rows"]
    assert value == "0"
    assert "needed" in reason


def test_impressions_after_the_moment_of_the_build_are_not_read(shop):
    show(shop, "cooking")
    as_of = SHOWN_AT + timedelta(days=4, hours=1)
    shop.execute("delete from m6.impressions where shown_at > ?", [as_of + timedelta(days=2)])
    shop.execute("delete from m6.feedback where impression_id not in (select impression_id from m6.impressions)")

    def hashes() -> list[tuple[str, str]]:
        m6.build(shop, as_of=as_of)
        return shop.execute(
            "select name, content_hash from m6.artefacts where model_version = "
            "(select max(model_version) from m6.models) order by name"
        ).fetchall()

    before = hashes()
    show(shop, "drama", at=as_of + timedelta(days=3))
    assert hashes() == before


def test_history_before_a_moment_against_brute_force():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 5, 60))
    when = rng.integers(0, 20, 60).astype(float)
    order = np.lexsort((when, user))
    segment = np.array(["a", "b", "a", "c", "a"])
    log = Log(user, np.arange(60), np.ones(60), np.ones(60), when[order], segment, np.ones(60, bool))
    asked, moments = np.array([3, -1, 0, 3, 4]), np.array([10.0, 10.0, 5.0, 3.0, 99.0])
    found = log.before(asked, moments, ["a", "b"])
    for at, (who, until) in enumerate(zip(asked, moments, strict=True)):
        want = log.item[(log.user == who) & (log.happened_at < until)]
        assert found.item[found.row == at].tolist() == want.tolist()
    assert found.segment.tolist() == [-1, -1, 0, -1, 0]


def test_a_log_of_another_system_gets_estimated_propensities(shop):
    rng = np.random.default_rng(1)
    n = 600
    shown = pl.DataFrame(
        {
            "user_id": [f"u{u:02d}" for u in rng.integers(0, 60, n)],
            "item_id": [f"i{i:02d}" for i in np.where(rng.random(n) < 0.6, 3, rng.integers(0, 80, n))],
            "rank": rng.integers(1, 4, n),
            "shown_at": [SHOWN_AT + timedelta(seconds=int(s)) for s in range(n)],
        }
    )
    shop.register("their_log", shown)
    for _ in range(2):  # a second time changes nothing
        shop.execute("insert or ignore into m6.impressions by name from m6.impressions_from_log('their_log')")
    shop.execute("create view estimated as from m6.impressions where propensity_source = 'estimated'")
    rows = dict(shop.execute("select item_id = 'i03', avg(propensity) from estimated group by all").fetchall())
    assert rows[True] == pytest.approx(0.6, abs=0.05)
    assert rows[False] < 0.05
    assert shop.execute("select count(*) from estimated").fetchall() == [(n,)]
    shop.execute(
        "insert into m6.feedback by name select user_id, item_id, 'like' as event_type, "
        "shown_at + interval 1 minute as happened_at from their_log where rank = 1"
    )
    m6.build(shop)
    assert int(decisions(shop)["impression_rows"][0]) > 0
    result = m6.reweight(shop)
    assert not result["changed"]
    assert "not drawn by m6.serve" in result["reason"]
    found = {row[0]: row for row in m6.doctor(shop).fetchall()}
    assert found["estimated_propensities"][1] == "warn"
