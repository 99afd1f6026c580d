"""Staging models and satisfaction functions: given rows, expect rows."""

from __future__ import annotations

import pytest
from model_world import AS_OF, ago, given, rows, run, table


def test_an_event_type_says_interest_and_satisfaction():
    con = given([("u", "a", "view", 3), ("u", "b", "purchase", 2, 19.9), ("u", "c", "return", 1, 19.9)])
    got = table(con, "stg_behaviour", "item_id, event_type, value, interest, satisfaction, happened_at")
    assert got == [
        ("a", "view", None, 0.3, 0.1, ago(3)),
        ("b", "purchase", 19.9, 1.0, 1.0, ago(2)),
        ("c", "return", 19.9, -1.0, 0.0, ago(1)),
    ]


@pytest.mark.parametrize(
    ("stars", "y", "interest"),
    [
        (1, 0.0, 0.2),
        (2, 0.25, 0.25),
        (3, 0.5, 0.5),
        (4, 0.75, 0.75),
        (5, 1.0, 1.0),
        (9, 1.0, 1.0),
        (-2, 0.0, 0.2),
        (None, 0.5, 1.0),
    ],
)
def test_stars_are_graded_between_their_bounds(stars, y, interest):
    con = given([("u", "a", "rating", 1, stars)])
    assert table(con, "stg_behaviour", "satisfaction, interest") == [(y, interest)]


def test_another_scale_is_an_update_of_event_types():
    con = given([("u", "a", "rating", 1, 7.0)])
    con.execute("update m6.event_types set value_low = 0, value_high = 10 where event_type = 'rating'")
    assert table(con, "stg_behaviour", "satisfaction, interest") == [(0.7, 0.7)]


def test_what_happened_after_as_of_is_not_read():
    con = given([("u", "a", "view", 0), ("u", "b", "view", -0.001), ("late", "c", "view", -5)])
    assert table(con, "stg_behaviour", "item_id") == [("a",)]
    assert table(con, "stg_users", "user_id") == [("u",)]
    assert table(con, "stg_items", "item_id") == [("a",)]


def test_a_kind_of_behaviour_nobody_described_says_nothing():
    con = given([("u", "a", "wave", 1), ("u", "a", "view", 1)])
    assert table(con, "stg_behaviour", "event_type") == [("view",)]


def test_feedback_is_behaviour_and_finds_user_and_item_by_its_impression():
    con = given([("u", "a", "view", 3)])
    con.execute(
        "insert into m6.impressions (impression_id, request_id, user_id, item_id, rank, strategy, supporters, "
        "eligible, propensity, "
        "shown_at) values ('r-1', 'r', 'u', 'b', 1, 'popular', 1, 1, 1, ?)",
        [ago(2)],
    )
    feedback = [
        ("r-1", None, None, "click", 1),
        (None, "v", "c", "purchase", 1),
        (None, None, None, "click", 1),
        ("gone", None, None, "click", 1),
    ]
    for impression, user, item, kind, days in feedback:
        con.execute(
            "insert into m6.feedback (impression_id, user_id, item_id, event_type, happened_at) values (?, ?, ?, ?, ?)",
            [impression, user, item, kind, ago(days)],
        )
    got = table(con, "stg_behaviour", "user_id, item_id, event_type")
    assert got == [("u", "a", "view"), ("u", "b", "click"), ("v", "c", "purchase")]


def test_two_equal_rows_are_two_units():
    con = given([("u", "a", "purchase", 2, 5.0), ("u", "a", "purchase", 2, 5.0)])
    assert table(con, "stg_events", "user_idx, item_idx, age_days") == [(0, 0, 2.0), (0, 0, 2.0)]


def test_keys_are_dense_in_the_order_of_the_ids():
    con = given([("w", "c", "view", 1), ("v", "a", "view", 1)], [{"item_id": "b"}], [("x", "s"), ("v", None)])
    assert table(con, "stg_users", "user_idx, user_id, segment") == [(0, "v", "*"), (1, "w", "*"), (2, "x", "s")]
    assert table(con, "stg_items", "item_idx, item_id, domain") == [
        (0, "a", "default"),
        (1, "b", "default"),
        (2, "c", "default"),
    ]


def test_item_text_is_a_plain_sentence_of_what_is_known():
    con = given(
        [],
        [
            {
                "item_id": "a",
                "title": " Cup ",
                "brand": "Acme",
                "category": "home|kitchen",
                "tags": ["red", "small"],
                "price": 1.0,
            },
            {"item_id": "b", "title": "Bowl", "description": "holds soup"},
            {"item_id": "c"},
            {"item_id": "d", "title": "", "description": " ", "price": 9.0},
        ],
    )
    assert table(con, "stg_items", "item_id, price_band, item_text") == [
        ("a", "very cheap", "Cup. by Acme. home, kitchen. red, small. price very cheap"),
        ("b", None, "Bowl. holds soup"),
        ("c", None, ""),
        ("d", "cheap", "price cheap"),
    ]


def test_price_bands_are_fifths_of_their_domain():
    items = [
        {"item_id": f"{domain}{n}", "domain": domain, "price": n * scale}
        for domain, scale in (("x", 1.0), ("y", 100.0))
        for n in range(5)
    ]
    con = given([], items)
    bands = ["very cheap", "cheap", "medium", "expensive", "very expensive"]
    got = table(con, "stg_items", "domain, item_id, price_band")
    assert [band for _, _, band in got] == bands * 2


def test_an_item_of_the_future_is_not_known_yet():
    con = given(
        [],
        [
            {"item_id": "a", "created_at": ago(1)},
            {"item_id": "b", "created_at": ago(-1)},
            {"item_id": "c", "created_at": AS_OF},
        ],
    )
    assert table(con, "stg_items", "item_id, is_known") == [("a", True), ("b", False), ("c", True)]


def test_satisfaction_functions():
    con = given(
        [
            ("u", "a", "view", 5),
            ("u", "b", "purchase", 4),
            ("u", "c", "rating", 3, 4.0),
            ("u", "d", "dismiss", 2),
            ("u", "e", "cart", 1),
        ]
    )
    expected = {
        "graded": [0.1, 1.0, 0.75, 0.0, 0.5],
        "click": [1.0, 1.0, 1.0, 0.0, 1.0],
        "purchase": [0.0, 1.0, 0.0, 0.0, 0.0],
        "rating": [0.0, 0.0, 0.75, 0.0, 0.0],
        "dwell": [0.1, 1.0, 0.75, 0.0, 0.5],
    }
    for name, wanted in expected.items():
        run(con, "stg_events", satisfaction=name)
        got = rows(con, "select satisfaction, is_positive, interest from stg_events order by item_idx")
        assert [y for y, _, _ in got] == pytest.approx(wanted), name
        assert [positive for _, positive, _ in got] == [y >= 0.75 for y in wanted], name
        assert [interest for _, _, interest in got] == pytest.approx([0.3, 1.0, 0.75, -0.5, 0.7]), name


def dwelt(con):
    run(con, "satisfaction_in_force", satisfaction="dwell")
    columns = "user_id, item_id, round(satisfaction, 6), round(interest, 6)"
    return rows(con, f"select {columns} from satisfaction_in_force order by all")


def test_seconds_are_graded_by_the_length_of_the_item():
    items = [
        {"item_id": "film", "attributes": '{"seconds": 6000}'},
        {"item_id": "odd", "attributes": '{"seconds": "long"}'},
        {"item_id": "none", "attributes": '{"seconds": 0}'},
    ]
    told = [("a", "film", 6000), ("b", "film", 1500), ("c", "film", 9000), ("d", "film", 60), ("e", "film", -1)]
    odd = [("f", "odd", 1500), ("g", "none", 1500), ("h", "film", None)]
    con = given([(user, item, "play", 1, value) for user, item, value in told + odd], items=items)
    assert dwelt(con) == [
        ("a", "film", 1.0, 0.8),
        ("b", "film", 0.25, 0.2),
        ("c", "film", 1.0, 0.8),
        ("d", "film", 0.01, 0.16),  # interest: type_interest * max(y, 0.2)
        ("e", "film", 0.0, 0.16),
        ("f", "odd", 0.5, 0.4),  # no length, too few stays: against the median of all plays, 1500
        ("g", "none", 0.5, 0.4),
        ("h", "film", 0.8, 0.8),  # no value: the event type's own
    ]


def test_seconds_without_a_length_are_graded_by_the_usual_stay():
    stays = [("a", 10), ("b", 20), ("c", 30), ("d", 40), ("e", 90)]
    con = given(
        [(user, "news", "play", 1, value) for user, value in stays]
        + [("a", "rare", "play", 1, 60), ("a", "shop", "purchase", 1, 60), ("b", "rare", "dismiss", 1, 60)]
    )
    found = {(user, item): y for user, item, y, _ in dwelt(con)}
    assert found["c", "news"] == 0.5  # the median stay
    assert found["a", "news"] == 0.25
    assert found["e", "news"] == 0.75
    assert found["a", "rare"] == pytest.approx(60 / 95, abs=1e-6)  # too few stays: the median of all plays is 35
    assert found["a", "shop"] == 1.0  # money is no time
    assert found["b", "rare"] == 0.0


def test_bounds_of_an_event_type_in_seconds_give_way_to_the_length():
    con = given([("u", "a", "read", 1, 30), ("u", "b", "read", 1, 30)], items=[{"item_id": "a", "attributes": None}])
    con.execute("insert into m6.event_types values ('read', 0.8, 0.5, 5, 60, 'seconds', 'dwell')")
    con.execute("update m6.items set attributes = '{\"seconds\": 40}' where item_id = 'a'")
    assert dwelt(con) == [("u", "a", 0.75, 0.6), ("u", "b", 0.5, 0.4)]


def test_stays_after_as_of_do_not_say_what_is_usual():
    past = [(user, "a", "play", 1, 10.0) for user in "abcde"]
    later = [(user, "a", "play", -1, 500.0) for user in "fghijklm"]
    assert dwelt(given(past + later)) == dwelt(given(past))


def test_outcomes_of_a_window():
    con = given(
        [
            ("u", "a", "view", 5), ("u", "a", "purchase", 4), ("u", "b", "view", 3),
            ("u", "c", "purchase", 3), ("u", "c", "return", 2),
            ("v", "a", "dismiss", 1), ("v", "b", "purchase", 10), ("v", "c", "rating", 6, 5.0),
        ]
    )  # fmt: skip
    got = table(con, "mart_outcomes", "user_idx, item_idx, satisfaction", window_start=ago(6), window_end=ago(1))
    assert [(u, i) for u, i, _ in got] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [y for _, _, y in got] == pytest.approx([1.0, 0.1, 0.0, 0.0])


def test_impressions_of_a_window_and_what_followed():
    con = given(
        [
            ("u", "a", "view", 8.5), ("u", "a", "purchase", 6), ("u", "a", "view", 3),
            ("u", "b", "dismiss", 6), ("v", "c", "purchase", 9),
        ],
        items=[{"item_id": name} for name in "abc"],
    )  # fmt: skip
    shown = [("1", "u", "a", 8), ("2", "u", "a", 4), ("3", "u", "b", 7), ("4", "v", "c", 7), ("5", "new", "a", 7)]
    for key, user, item, days in [*shown, ("6", "u", "c", 20)]:
        con.execute(
            "insert into m6.impressions (impression_id, request_id, user_id, item_id, rank, strategy, supporters, "
            "eligible, propensity, shown_at) values ($1, $1, $2, $3, 2, 'blended', 1, 1, 0.5, $4)",
            [key, user, item, ago(days)],
        )
    con.execute(
        "insert into m6.feedback (feedback_id, impression_id, event_type, happened_at) values ('f', '3', 'like', ?)",
        [ago(5)],
    )
    columns = "impression_id, user_idx, item_idx, rank, propensity, satisfaction"
    got = table(con, "mart_impressions", columns, window_start=ago(10), window_end=ago(1))
    assert got == [
        ("1", 0, 0, 2, 0.5, 1.0),  # bought between the two times it was shown
        ("2", 0, 0, 2, 0.5, pytest.approx(0.1)),
        ("3", 0, 1, 2, 0.5, 0.0),  # liked, but turned away
        ("4", 1, 2, 2, 0.5, 0.0),  # what came before it does not count
        ("5", -1, 0, 2, 0.5, 0.0),  # a user without behaviour
    ]
