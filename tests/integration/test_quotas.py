"""Lists with quotas: shares of the domains, the same for one user and a batch, exact propensities, never fewer."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import shop_world as world
from test_single_user import lists

from m6rec_udf.quotas import plan

MIXED = "quotas := map {'movies': 0.7, 'books': 0.3}"
EVEN = "quotas := map {'movies': 1, 'books': 1}"


def domains(listed):
    return [row["domain"] for row in listed]


@pytest.mark.parametrize("user", ["u00", "u21", "nobody"])
def test_every_domain_gets_its_share_of_the_slots(reader, user):
    assert domains(world.recommend(reader, user, f"k := 10, {MIXED}")).count("movies") == 7
    assert domains(world.recommend(reader, user, f"k := 20, {EVEN}")).count("movies") == 10


def test_a_list_with_quotas_is_the_lists_of_its_domains_dealt_out(reader):
    mixed = world.recommend(reader, "u05", f"k := 10, {MIXED}")
    for domain in ("movies", "books"):
        own = world.recommend(reader, "u05", f"k := 10, in_domain := '{domain}'")
        assert [r["item_id"] for r in mixed if r["domain"] == domain] == [
            r["item_id"] for r in own[: domains(mixed).count(domain)]
        ]


def test_a_short_list_begins_a_long_one(reader):
    long = world.recommend(reader, "u09", f"k := 10, {MIXED}")
    assert world.items_of(world.recommend(reader, "u09", f"k := 4, {MIXED}")) == world.items_of(long)[:4]


@pytest.mark.parametrize(
    "options",
    [
        MIXED,
        f"{EVEN}, k := 60",
        f"{MIXED}, draw_seed := 5, k := 12",
        f"{MIXED}, among := 'picked', boosts := 'margin', diversity := 0.3",
    ],
)
def test_one_user_equals_the_batch(reader, options):
    for user in ("u00", "u21", "u59", "nobody"):
        one = lists(reader, "one_list", user, f", {options}")
        assert one == lists(reader, "slates", user, f", {options}")
        assert one


def test_recommend_many_takes_quotas_for_everybody(reader):
    rows = world.rows(
        reader,
        "select user_id, count(*), count(*) filter (where domain = 'movies') "
        f"from m6.recommend_many('audience', {MIXED}) group by user_id",
    )
    assert {row[1:] for row in rows} == {(10, 7)}
    assert len(rows) == len(world.USERS) + len(world.UNKNOWN)


def test_where_a_domain_runs_dry_the_other_fills_up(shop):
    shop.execute("update m6.items set is_available = false where domain = 'books' and item_id <> 'i50'")
    listed = world.recommend(shop, "u00", f"k := 30, {EVEN}")
    assert len(listed) == 30
    assert domains(listed).count("books") == 1


def test_the_domains_of_the_quotas_are_never_left(shop):
    shop.execute("insert into m6.items (item_id, domain, title) values ('n1', 'news', 'new'), ('m99', 'movies', 'new')")
    for macro in ("m6.recommend('u00', ", "m6.recommend_many('audience', "):
        found = world.rows(shop, f"select distinct domain from {macro}k := 200, quotas := map {{'movies': 1}})")
        assert found == [("movies",)]
    listed = world.recommend(shop, "u00", "k := 200, quotas := map {'movies': 1}")
    assert "m99" in world.items_of(listed)


def test_each_domain_is_mixed_by_its_own_weights(shop):
    shop.execute(
        "insert into m6.strategy_weights (policy_version, domain, segment, strategy, weight) "
        "select policy_version, 'books', '*', 'popular', 1.0 from m6.active"
    )
    listed = world.recommend(shop, "u00", f"k := 10, {EVEN}")
    assert {r["strategy"] for r in listed if r["domain"] == "books"} == {"popular"}
    assert {r["strategy"] for r in listed if r["domain"] == "movies"} != {"popular"}
    assert lists(shop, "one_list", "u00", f", {EVEN}") == lists(shop, "slates", "u00", f", {EVEN}")


def test_propensities_are_those_of_the_draws(shop):
    """Over many seeds an item stands in a slot as often as its propensities say."""
    shop.execute("create table drawn as from (select * from m6.impressions limit 0)")
    for seed in range(400):
        shop.execute(
            f"insert into drawn by name from m6.serve('u03', k := 4, {EVEN}, seed := {seed}, request := 'r{seed}', "
            "moment := timestamp '2024-08-01')"
        )
    least, most, domains_of = shop.execute(
        "select min(domain), max(domain), list(distinct rank || d) "
        "from (select d.rank, d.domain, i.domain as d from drawn as d join m6.items as i using (item_id))"
    ).fetchall()[0]
    assert (least, most, len(domains_of)) == ("books", "movies", 4)  # the weights' domain is the slot's own
    first = world.rows(
        shop,
        "select item_id, count(*) / 400, any_value(propensity), count(distinct propensity) from drawn "
        "where rank = 1 group by item_id",
    )
    for _, share, propensity, values in first:
        assert values == 1
        assert abs(share - propensity) < 4 * np.sqrt(propensity * (1 - propensity) / 400) + 1e-9
    assert sum(row[2] for row in first) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("quotas := map {'movies': 0.0}", "above 0"),
        ("quotas := map {'movies': null::double}", "above 0"),
        ("quotas := map {}", "expected 1 to 50"),
        ("quotas := map {'movies': 1}, in_domain := 'books'", "expected one of them"),
    ],
)
@pytest.mark.parametrize("call", ["m6.recommend('u00', ", "m6.recommend_many('audience', "])
def test_wrong_quotas_are_refused(reader, call, options, told):
    with pytest.raises(duckdb.Error, match=told):
        world.rows(reader, f"from {call}{options})")


def test_the_plan_takes_seen_lines_last():
    domain, place = plan(np.asarray([[3, 2]]), np.asarray([[1, 2]]), np.asarray([3.0, 1.0]), 6)
    assert domain.tolist() == [[0, 1, 1, 0, 0, -1]]
    assert place.tolist() == [[0, 0, 1, 1, 2, -1]]
