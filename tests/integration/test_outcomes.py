"""m6.outcomes: what was shown and what came of it, counted by hand."""

from __future__ import annotations

from datetime import datetime

import duckdb
import pytest
import shop_world
from shop_world import rows


@pytest.fixture
def logged(shop):
    """Four people are shown two items a day by two strategies; some react, one way or both ways."""
    for n, user in enumerate(("a", "b", "c", "d")):
        for rank, (item, strategy) in enumerate((("i00", "popular"), ("i50", "fresh")), 1):
            shop.execute(
                "insert into m6.impressions (impression_id, request_id, user_id, item_id, rank, strategy, supporters, "
                "eligible, propensity, segment, shown_at) values (?, ?, ?, ?, ?, ?, 1, 1, 0.5, ?, ?)",
                [f"r{n}/{rank}", f"r{n}", user, item, rank, strategy, "new" if n < 2 else "loyal",
                 datetime(2024, 8, 1 + n % 2, 12)],
            )  # fmt: skip
    for key, user, impression, kind, value in (
        ("k1", None, "r0/1", "click", None),
        ("k2", None, "r0/1", "purchase", 10.0),
        ("k3", None, "r1/1", "purchase", 30.0),
        ("k4", None, "r1/1", "return", 30.0),
        ("k5", "c", None, "click", None),
        ("k6", None, "r3/2", "dismiss", None),
    ):
        shop.execute(
            "insert into m6.feedback (feedback_id, impression_id, user_id, item_id, event_type, value, happened_at) "
            "values (?, ?, ?, ?, ?, ?, timestamp '2024-08-03 10:00:00')",
            [key, impression, user, "i00" if user else None, kind, value],
        )
    shop.execute(
        "insert into m6.events (event_id, user_id, item_id, event_type, value, happened_at) values "
        "('both', 'a', 'i00', 'purchase', 10.0, timestamp '2024-08-03 10:00:00'), "
        "('only', 'd', 'i50', 'purchase', 5.0, timestamp '2024-08-04 10:00:00'), "
        "('late', 'c', 'i50', 'purchase', 7.0, timestamp '2024-08-20 10:00:00'), "
        "('before', 'c', 'i50', 'purchase', 7.0, timestamp '2024-07-20 10:00:00')"
    )
    return shop


def group(con, kind, name, options=""):
    cursor = con.execute(f"from m6.outcomes({options}) where group_kind = ? and group_name = ?", [kind, name])
    names = [column[0] for column in cursor.description]
    found = cursor.fetchall()
    assert len(found) == 1
    return dict(zip(names, found[0], strict=True))


def test_everything_is_counted_once(logged):
    found = group(logged, "all", "*")
    assert {name: found[name] for name in ("users", "active_users", "requests", "impressions")} == {
        "users": 4, "active_users": 4, "requests": 4, "impressions": 8,
    }  # fmt: skip
    assert (found["clicks"], found["conversions"], found["returns"]) == (4, 3, 1)
    assert (found["click_rate"], found["conversion_rate"]) == (4 / 8, 3 / 8)
    assert found["return_rate"] == pytest.approx(1 / 3)
    assert (found["revenue"], found["revenue_per_1000"]) == (45.0, 1000 * 45 / 8)
    for name in ("click", "conversion", "return"):
        assert 0 <= found[f"{name}_low"] < found[f"{name}_rate"] < found[f"{name}_high"] <= 1
    assert found["revenue_low"] < found["revenue_per_1000"] < found["revenue_high"]


def test_groups_are_strategies_domains_and_segments(logged):
    assert group(logged, "strategy", "popular")["revenue"] == 40.0
    assert group(logged, "strategy", "fresh")["revenue"] == 5.0
    assert group(logged, "domain", "movies")["conversions"] == 2
    assert group(logged, "segment", "loyal")["conversions"] == 1
    nothing = group(logged, "segment", "loyal", "conversions := ['follow']")
    assert (nothing["conversions"], nothing["return_rate"]) == (0, None)


def test_periods_add_up_to_the_whole(logged):
    days = rows(
        logged, "select period_start, impressions, revenue from m6.outcomes(period := 'day') where group_kind = 'all'"
    )
    assert days == [(datetime(2024, 8, 1), 4, 10.0), (datetime(2024, 8, 2), 4, 35.0)]
    assert group(logged, "all", "*", "since := timestamp '2024-08-02'")["impressions"] == 4
    assert group(logged, "all", "*", "within := interval 30 days")["conversions"] == 4


def test_wilson_is_wider_where_users_repeat_themselves(logged):
    plain = rows(logged, "select m6.wilson(0.2, 100, 0.0016)")[0][0]
    assert (plain["low"], plain["high"]) == pytest.approx((0.1333669, 0.2888292), abs=1e-6)
    wide = rows(logged, "select m6.wilson(0.2, 100, 0.0064)")[0][0]
    assert wide["low"] < plain["low"] < plain["high"] < wide["high"]
    assert rows(logged, "select m6.wilson(0.0, 10, 0.0).low, m6.wilson(0.0, 10, 0.0).high > 0.2") == [(0.0, True)]


def test_a_period_that_is_none_is_refused(logged):
    with pytest.raises(duckdb.Error, match="fortnightly"):
        rows(logged, "from m6.outcomes(period := 'fortnightly')")


def test_without_impressions_there_are_no_rows(reader):
    assert shop_world.rows(reader, "from m6.outcomes()") == []
