"""Feature models: small cases computed by hand. The span is 100 days (see model_world)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from model_world import BOUND, ago, given, rows, run, table

from m6rec_udf import models


def close(got, expected):
    assert len(got) == len(expected), got
    for one, other in zip(got, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-6), (one, other)


def test_trends_halve_with_their_half_lives():
    con = given([("u", "a", "purchase", 0), ("v", "a", "view", 3)])
    columns = "trend_very_short, trend_short, trend_medium, trend_long, success_short, success_medium, success_long"
    close(table(con, "feat_item_activity", columns), [(1 + 0.5**10, 1 + 0.125, 1.5, 1 + 0.5**0.3, 1.0, 1.0, 1.0)])


def test_item_activity_counts():
    con = given(
        [
            ("u", "a", "view", 4),
            ("u", "a", "purchase", 2),
            ("v", "a", "view", 1),
            ("v", "a", "dismiss", 0.5),
            ("v", "b", "dismiss", 1),
        ],
        [{"item_id": "a", "price": 7.0}, {"item_id": "b"}, {"item_id": "c"}],
    )
    columns = "item_id, events, users, satisfaction, successes, age_days, idle_days, price"
    close(
        [row[1:5] for row in table(con, "feat_item_activity", columns)][:1],
        [(3, 2, 0.4, 1)],
    )
    assert [row[0:3] + row[5:] for row in table(con, "feat_item_activity", columns)] == [
        ("a", 3, 2, 4.0, 1.0, 7.0),
        ("b", 0, 0, None, None, None),
        ("c", 0, 0, None, None, None),
    ]


def test_the_age_of_an_item_is_that_of_its_row_or_its_first_event():
    con = given(
        [("u", "a", "view", 4), ("u", "b", "view", 4), ("u", "c", "view", 4)],
        [
            {"item_id": "a", "created_at": ago(9)},
            {"item_id": "b", "created_at": ago(1)},
            {"item_id": "d", "created_at": ago(-2)},
        ],
    )
    got = table(con, "feat_item_activity", "item_id, age_days, first_event_days")
    assert got == [("a", 9.0, 4.0), ("b", 4.0, 4.0), ("c", 4.0, 4.0), ("d", None, None)]


def test_repurchase_rhythm():
    """u came back twice in 20 days, v once after 4, w never: 2 of 3 users return, the median gap is 7 days."""
    con = given(
        [("u", "a", "purchase", days) for days in (30, 20, 10)]
        + [("v", "a", "purchase", 9), ("v", "a", "purchase", 5), ("w", "a", "purchase", 1)]
        + [("w", "b", "purchase", 1)] * 2
    )
    close(table(con, "feat_item_activity", "repurchase_rate, coalesce(repurchase_days, -1)"), [(0.0, -1), (2 / 3, 7.0)])


def test_history_weights():
    con = given(
        [
            ("u", "a", "purchase", 50), ("u", "b", "view", 0), ("u", "c", "rating", 100, 3.0),
            ("u", "d", "purchase", 10), ("u", "d", "return", 5), ("u", "e", "view", 75), ("u", "e", "cart", 50),
        ]
    )  # fmt: skip
    columns = (
        "item_idx, events, interest, lowest_interest, last_days, first_days, recency_rank, long_weight, short_weight"
    )
    close(
        table(con, "feat_user_item", columns),
        [
            (0, 1, 1.0, 1.0, 50.0, 50.0, 3, 0.5, 0.9**2),
            (1, 1, 0.3, 0.3, 0.0, 0.0, 1, 0.3, 1.0),
            (2, 1, 0.5, 0.5, 100.0, 100.0, 5, 0.125, 0.9**4),
            (3, 2, 1.0, -1.0, 5.0, 10.0, 2, -1.0, 0.9),
            (4, 2, 0.7, 0.3, 50.0, 75.0, 4, 0.35, 0.9**3),
        ],
    )


def test_only_the_latest_twenty_items_have_a_short_weight():
    con = given([("u", f"i{n:02d}", "view", n) for n in range(25)])
    got = table(con, "feat_user_item", "item_idx, short_weight")
    assert [weight > 0 for _, weight in got] == [n < 20 for n in range(25)]


def test_co_visitation_has_direction_distance_and_decay():
    """u went a, b, c (c today, b 25 days ago); v went b, a, both 50 days ago or less."""
    con = given(
        [
            ("u", "a", "view", 40),
            ("u", "b", "view", 25),
            ("u", "c", "view", 0),
            ("v", "b", "view", 60),
            ("v", "a", "view", 50),
        ]
    )
    decay = lambda days: 0.5 ** (days / 25)  # noqa: E731
    ab, ba = decay(25), decay(50)
    bc, ac = decay(0), decay(0) / 2
    users = {"a": 2, "b": 2, "c": 1}
    raw = {
        ("a", "b"): ab + 0.6 * ba, ("b", "a"): ba + 0.6 * ab,
        ("b", "c"): bc, ("c", "b"): 0.6 * bc, ("a", "c"): ac, ("c", "a"): 0.6 * ac,
    }  # fmt: skip
    expected = {key: value / (users[key[0]] ** 0.5 * (users[key[1]] + 5) ** 0.3) for key, value in raw.items()}
    got = table(con, "feat_item_transitions", "item_idx, next_item_idx, weight")
    assert {("abc"[a], "abc"[b]): weight for a, b, weight in got} == pytest.approx(expected)


def test_co_visitation_reaches_eight_steps_and_keeps_turned_away_items_out():
    con = given([("u", f"i{n}", "view", 20 - n) for n in range(10)] + [("u", "bad", "dismiss", 15)])
    got = table(con, "feat_item_transitions", "item_idx, next_item_idx")
    pairs = {(a - 1, b - 1) for a, b in got}  # 'bad' sorts first
    assert pairs == {(a, b) for a in range(10) for b in range(10) if a != b and abs(a - b) <= 8}


def test_stg_events_ends_at_the_moment_even_where_behaviour_does_not():
    """Past moments of a build read the behaviour that was graded at the build."""
    con = given([("u", "a", "view", 4), ("u", "b", "view", 1)])
    run(con, "stg_events")
    found = models.with_satisfaction(models.collect(), "graded")
    models.run(con, found["stg_events"], {**BOUND, "as_of": ago(2)}, temporary=True)
    assert rows(con, "select item_idx, age_days from stg_events") == [(0, 2.0)]


def test_where_users_are_many_only_their_latest_items_count():
    con = given([("u", f"i{n}", "view", 20 - n) for n in range(10)] + [("v", "i0", "view", 1), ("v", "i9", "view", 2)])
    run(con, "feat_user_item")
    model = models.collect()["feat_item_transitions"]
    few = replace(model, sql=model.sql.replace("5.0, 2500000.0", "1.0, 6.0"))  # 6 of them for 2 users: 3 each
    models.run(con, few, BOUND, temporary=True)
    pairs = {frozenset(pair) for pair in rows(con, "select item_idx, next_item_idx from feat_item_transitions")}
    assert pairs == {frozenset(pair) for pair in ((7, 8), (8, 9), (7, 9), (0, 9))}


def test_transitions_of_a_large_catalogue_and_many_users():
    """Numbers as large as they get are mixed without an overflow."""
    con = given([("u", "a", "view", 2), ("u", "b", "view", 1)])
    run(con, "feat_user_item")
    con.execute("update feat_user_item set item_idx = item_idx + 2000000000, user_idx = user_idx + 2000000000")
    models.run(con, models.collect()["feat_item_transitions"], BOUND, temporary=True)
    assert rows(con, "select count(*) from feat_item_transitions") == [(2,)]


def test_the_hundred_best_transitions_are_kept():
    events = [(f"u{n:03d}", item, "view", days) for n in range(120) for item, days in (("hub", 2), (f"x{n:03d}", 1))]
    events += [("more", "hub", "view", 2), ("more", "x119", "view", 1)]
    got = table(given(events), "feat_item_transitions", "item_idx, next_item_idx, neighbour_rank")
    hub = [(other, rank) for item, other, rank in got if item == 0]
    assert sorted(rank for _, rank in hub) == list(range(1, 101))
    assert dict(hub)[120] == 1
    assert {other for other, _ in hub} == {*range(1, 100), 120}


def test_segment_trend():
    users = [("u", "s"), ("v", "s"), ("w", "t"), ("x", None)]
    con = given(
        [
            ("u", "a", "view", 0),
            ("v", "a", "purchase", 3),
            ("w", "a", "view", 6),
            ("x", "a", "view", 0),
            ("v", "b", "dismiss", 0),
        ],
        [],
        users,
    )
    close([row[1:] for row in table(con, "feat_segment_item", "segment, item_idx, trend")], [(0, 1.5), (0, 0.25)])


def test_user_activity():
    con = given(
        [("u", "a", "view", 40), ("u", "a", "purchase", 8), ("u", "b", "view", 0.5), ("v", "a", "view", 1)],
        [{"item_id": "a", "price": 9.0}, {"item_id": "b"}],
        [("idle", "s")],
    )
    columns = "user_id, events, items, satisfaction, idle_days, tenure_days, events_short, events_long"
    columns += ", events_7_days, events_30_days"
    idle, u, v = table(con, "feat_user_activity", f"{columns}, mean_log_popularity, mean_log_price")
    assert idle == ("idle", 0, 0, None, None, None, 0, 0, 0, 0, None, None)
    assert u[:3] + u[4:10] == ("u", 3, 2, 0.5, 40.0, 1, 2, 1, 2)
    assert u[3] == pytest.approx(1.2 / 3)
    assert u[10] == pytest.approx((2 * math.log(4) + math.log(2)) / 3)
    assert u[11] == pytest.approx(math.log(10))
    assert v[1:3] == (1, 1)


def test_tf_idf_has_unit_length_and_rare_terms_weigh_more():
    items = [
        {"item_id": "a", "category": "x|y", "tags": ["t"], "brand": "m"},
        {"item_id": "b", "category": "x"},
        {"item_id": "c", "category": "x"},
        {"item_id": "d"},
    ]
    con = given(
        [("u", "a", "purchase", 0), ("u", "b", "purchase", 50), ("v", "d", "purchase", 0), ("w", "a", "dismiss", 0)],
        items,
    )
    common, rare = math.log(1 + 4 / 3), math.log(1 + 4)
    weights = {"x": 1.5 * common, "y": rare, "t": rare, "m": rare}
    length = math.sqrt(sum(w * w for w in weights.values()))
    got = table(con, "feat_user_terms", "user_idx, term, tf_idf")
    assert {user for user, _, _ in got} == {0}
    assert {term: value for _, term, value in got} == pytest.approx({term: w / length for term, w in weights.items()})


@pytest.mark.parametrize("label", ["category", "brand"])
def test_shares_of_interest(label):
    con = given(
        [("u", "a", "purchase", 0), ("u", "b", "purchase", 50), ("u", "c", "purchase", 50), ("u", "d", "dismiss", 0)],
        [{"item_id": "a", label: "x"}, {"item_id": "b", label: "y"}, {"item_id": "c"}, {"item_id": "d", label: "y"}],
    )
    close([row[1:] for row in table(con, f"feat_user_{label}", f"{label}, user_idx, share")], [(0, 0.5), (0, 0.25)])


@pytest.mark.parametrize(
    "model",
    [
        "feat_item_activity",
        "feat_item_transitions",
        "feat_segment_item",
        "feat_user_activity",
        "feat_user_item",
        "feat_user_terms",
        "feat_user_category",
        "feat_user_brand",
    ],
)
def test_nothing_gives_nothing(model):
    assert table(given(), model, "*") == []
