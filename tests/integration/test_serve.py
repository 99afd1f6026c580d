"""m6.serve against its own log: frequencies, propensities, seeds; options of m6.recommend that change the list."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
import shop_world
from shop_world import rows

from m6rec_udf import candidates
from m6rec_udf.embed import HashEncoder

USER = "u05"
LEVEL = (
    "update m6.strategy_weights set weight = case when strategy = 'blended' then 0.3 "
    "else 0.7 / (select count(*) - 1 from m6.strategies) end"
)


TWINS = ("u05", "u12", "u23", "u38")


@pytest.fixture(scope="module")
def mixed(built_file, tmp_path_factory):
    """The shop with weights spread over the strategies, 1,200 twins of some users, and the list drawn for each.

    Five candidates a strategy: in a shop of 80 items sixty would make all of them agree on the best one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "PER_STRATEGY", 5)
        yield from _mixed(built_file, tmp_path_factory)


def _mixed(built_file, tmp_path_factory):
    con = shop_world.connect(shutil.copy(built_file, tmp_path_factory.mktemp("mixed") / "shop.duckdb"))
    con.execute(LEVEL)
    con.execute(
        "create table twins as select u || '#' || n as user_id, u as twin_of "
        "from unnest($users) as t(u), range(1200) as r(n)",
        {"users": list(TWINS)},
    )
    for table, key in (("events", "event_id"), ("feedback", "feedback_id")):
        con.execute(
            f"insert into m6.{table} ({key}, user_id, item_id, event_type, value, happened_at) "
            f"select t.user_id || e.{key}, t.user_id, e.item_id, e.event_type, e.value, e.happened_at "
            f"from m6.{table} as e join twins as t on e.user_id = t.twin_of"
        )
    con.execute(
        "insert into m6.users select t.user_id, u.segment, null, null "
        "from m6.users as u join twins as t on u.user_id = t.twin_of"
    )
    con.execute(
        "create table drawn as select t.twin_of, s.user_id as n, "
        "item_id, rank, strategy, supporters, eligible, propensity, seed "
        "from m6.serve_many('twins', k := 3, seed := 5) as s join twins as t on s.user_id = t.user_id"
    )
    yield con
    con.close()


def test_frequencies_match_the_logged_propensities(mixed):
    """First slot, and the second given the first."""
    first = rows(
        mixed,
        "select twin_of, item_id, count(*), any_value(propensity), count(distinct round(propensity, 9)), "
        "sum(count(*)) over (partition by twin_of) from drawn where rank = 1 group by 1, 2",
    )
    second = rows(
        mixed,
        "select a.twin_of || a.item_id, b.item_id, count(*), any_value(b.propensity), "
        "count(distinct round(b.propensity, 9)), "
        "sum(count(*)) over (partition by a.twin_of || a.item_id) from drawn as a join drawn as b using (n) "
        "where a.rank = 1 and b.rank = 2 group by a.twin_of, a.item_id, b.item_id",
    )
    for user in TWINS:
        assert sum(p for name, _, _, p, _, _ in first if name == user) == pytest.approx(1.0)
    cells = [cell[2:] for cell in [*first, *second] if cell[5] > 150]
    assert len(cells) > 25
    for count, p, kinds, whole in cells:
        assert kinds == 1, "the same item under the same list has one propensity"
        if 0 < p < 1 and whole * p > 3:
            assert abs(count - whole * p) / (whole * p * (1 - p)) ** 0.5 < 4
        elif p == 1:
            assert count == whole


def test_propensity_is_the_weight_of_supporters_over_the_eligible(mixed):
    weights = dict(
        rows(mixed, "select s.bit, w.weight from m6.strategy_weights as w join m6.strategies as s using (strategy)")
    )
    bits = dict(rows(mixed, "select strategy, bit from m6.strategies"))
    logged = rows(mixed, "select distinct strategy, supporters, eligible, propensity from drawn")
    assert len({strategy for strategy, *_ in logged}) >= 6
    for strategy, supporters, eligible, propensity in logged:
        backing, whole = (sum(w for bit, w in weights.items() if mask >> bit & 1) for mask in (supporters, eligible))
        assert propensity == pytest.approx(backing / whole)
        assert supporters >> bits[strategy] & 1
        assert supporters & eligible == supporters


def test_strategies_are_drawn_by_their_weights(mixed):
    weights = rows(
        mixed,
        "select s.strategy, s.bit, w.weight from m6.strategy_weights as w join m6.strategies as s using (strategy)",
    )
    for user in TWINS:
        drawn = Counter(
            name for (name,) in rows(mixed, "select strategy from drawn where rank = 1 and twin_of = ?", [user])
        )
        [(eligible,)] = rows(mixed, "select distinct eligible from drawn where rank = 1 and twin_of = ?", [user])
        live = {name: w for name, bit, w in weights if eligible >> bit & 1}
        assert "social" not in live
        total = sum(drawn.values())
        assert total == 1200
        for name, weight in live.items():
            p = weight / sum(live.values())
            assert abs(drawn[name] - total * p) / (total * p * (1 - p)) ** 0.5 < 4, name


def test_the_same_seed_gives_the_same_list_and_none_gives_another(mixed):
    sql = "select rank, item_id, strategy, propensity from m6.serve('u05', seed := 3) order by rank"
    assert rows(mixed, sql) == rows(mixed, sql)
    free = [tuple(rows(mixed, "select item_id from m6.serve('u05') order by rank")) for _ in range(8)]
    assert len(set(free)) > 1
    seeds = {rows(mixed, "select any_value(seed), count(distinct seed) from m6.serve('u05')")[0] for _ in range(5)}
    assert len(seeds) == 5
    assert {kinds for _, kinds in seeds} == {1}


def test_a_logged_seed_draws_its_list_again(mixed):
    listed = rows(mixed, "select item_id, seed from m6.serve('u09') order by rank")
    again = rows(mixed, "select item_id, seed from m6.serve('u09', seed := ?) order by rank", [listed[0][1]])
    assert again == listed


def test_impressions_take_what_serve_gives(shop):
    shop.execute(
        "insert into m6.impressions by name from "
        "m6.serve('u05', k := 6, request := 'r1', moment := timestamp '2024-09-01')"
    )
    shop.execute("insert into m6.impressions by name from m6.serve('u05', k := 6)")
    got = rows(
        shop,
        "select request_id, count(*), min(rank), max(rank), min(shown_at) from m6.impressions group by 1 order by 2, 1",
    )
    assert [row[1:4] for row in got] == [(6, 1, 6)] * 2
    assert rows(shop, "select impression_id from m6.impressions where request_id = 'r1-u05' and rank = 2") == [
        ("r1-u05-2",)
    ]


def test_every_weight_on_blended_is_the_order_of_satisfaction(shop):
    shop.execute("update m6.strategy_weights set weight = case when strategy = 'blended' then 1.0 else 0.0 end")
    for sql in ("from m6.recommend('u05', k := 30)", "from m6.serve('u05', k := 30)"):
        listed = rows(shop, f"select satisfaction, strategy from ({sql}) order by rank")
        values = [value for value, _ in listed]
        assert values == sorted(values, reverse=True)
        assert {strategy for _, strategy in listed} <= {"blended", "new"}


def test_deterministic_shares_tend_to_the_weights(mixed):
    """Over a batch: blended takes about 0.3 of the slots (and what others leave)."""
    mixed.execute(
        "update m6.strategy_weights set weight = case strategy when 'blended' "
        "then 0.5 when 'popular' then 0.3 when 'trending' then 0.2 else 0 end"
    )
    try:
        shares = dict(
            rows(
                mixed,
                "select strategy, count(*) / sum(count(*)) over () "
                "from m6.recommend_many('audience', k := 20) group by 1",
            )
        )
    finally:
        mixed.execute(LEVEL)
    assert shares["blended"] == pytest.approx(0.5, abs=0.06)
    assert shares["popular"] == pytest.approx(0.3, abs=0.06)
    assert shares["trending"] == pytest.approx(0.2, abs=0.06)


def similarity(con, items: list[str]) -> float:
    vectors = np.asarray(
        [v for (v,) in rows(con, "select vector from m6.item_vectors where list_contains(?, item_id)", [items])]
    )
    own = vectors @ vectors.T
    return float((own.sum() - len(items)) / (len(items) * (len(items) - 1)))


def test_diversity_reduces_similarity_and_zero_changes_nothing(reader):
    users = shop_world.USERS[:15]
    plain = {user: shop_world.recommend(reader, user) for user in users}
    assert plain == {user: shop_world.recommend(reader, user, "diversity := 0.0") for user in users}
    found = []
    for d in (0.0, 0.3, 0.7):
        lists = [shop_world.items_of(shop_world.recommend(reader, user, f"diversity := {d}")) for user in users]
        found.append(np.mean([similarity(reader, items) for items in lists]))
    assert found[2] < found[0] - 0.05
    assert found[0] >= found[1] >= found[2]


def test_calibrated_lists_come_nearer_to_the_users_own_mix(reader):
    users = shop_world.USERS[:15]
    assert [shop_world.recommend(reader, u) for u in users] == [
        shop_world.recommend(reader, u, "calibrated := 0.0") for u in users
    ]

    def distance(options: str) -> float:
        """Mean total variation between the categories of the history and of the list."""
        total = 0.0
        for user in users:
            listed = shop_world.items_of(shop_world.recommend(reader, user, options))
            total += rows(
                reader,
                "with h as (select category, count(*) / sum(count(*)) over () as p from m6.history($u) "
                "join m6.items using (item_id) group by all), "
                "l as (select category, count(*) / sum(count(*)) over () as q from m6.items "
                "where list_contains($items, item_id) group by all) "
                "select sum(abs(coalesce(p, 0) - coalesce(q, 0))) / 2 from h full join l using (category)",
                {"u": user, "items": listed},
            )[0][0]
        return total / len(users)

    assert distance("calibrated := 0.8") < distance("calibrated := 0.0") - 0.03


def test_boosts_multiply(shop):
    shop.execute("create table push as select 'i10' as item_id, 3.0 as boost union all select 'i11', 0.5")
    plain = {row["item_id"]: row for row in shop_world.recommend(shop, USER, "k := 100, exclude_seen := true")}
    pushed = {
        row["item_id"]: row
        for row in shop_world.recommend(shop, USER, "k := 100, exclude_seen := true, boosts := 'push'")
    }
    assert plain.keys() == pushed.keys()
    for item, row in pushed.items():
        if row["strategy"] not in ("seen", "new"):
            factor = {"i10": 3.0, "i11": 0.5}.get(item, 1.0)
            assert row["score"] == pytest.approx(plain[item]["satisfaction"] * factor)
            assert row["satisfaction"] == pytest.approx(plain[item]["satisfaction"])
    if "i10" in plain and plain["i10"]["strategy"] not in ("seen", "new"):
        assert pushed["i10"]["rank"] <= plain["i10"]["rank"]


def test_every_served_score_is_satisfaction_times_boost_and_in_range(reader):
    listed = rows(reader, "select score, satisfaction from m6.recommend_many('audience', k := 20)")
    assert all(0 <= y <= 1 and score == pytest.approx(y) for score, y in listed)


def test_weights_of_a_segment_and_a_domain_come_before_those_for_all(shop):
    version = rows(shop, "select policy_version from m6.active")[0][0]
    for domain, segment, strategy in (("*", "loyal", "popular"), ("books", "*", "trending")):
        shop.execute(
            "insert into m6.strategy_weights values (?, ?, ?, ?, 1.0, 0.0)", [version, domain, segment, strategy]
        )
    loyal = rows(shop, "select user_id from m6.users where segment = 'loyal' order by 1")[0][0]
    others = rows(shop, "select user_id from m6.users where segment = 'new' order by 1")[0][0]
    first = lambda user, options="": rows(shop, f"select strategy from m6.serve(?, k := 1{options})", [user])[0][0]  # noqa: E731
    assert {first(loyal) for _ in range(5)} == {"popular"}
    assert {first(others, ", in_domain := 'books'") for _ in range(5)} == {"trending"}
    assert "blended" in {first(others) for _ in range(8)}


def test_a_disabled_strategy_is_not_drawn(mixed):
    mixed.execute("update m6.strategies set is_enabled = false where strategy = 'popular'")
    try:
        many = rows(mixed, "select distinct strategy from m6.serve_many('audience', k := 10)")
    finally:
        mixed.execute("update m6.strategies set is_enabled = true")
    assert ("popular",) not in many
    assert len(many) > 5


def test_the_hash_encoder_is_what_the_build_recorded(reader):
    assert rows(reader, "select encoder from m6.models") == [(HashEncoder(32).name,)]
