"""Invariant 4: never fewer than k, and never outside in_domain, among or availability."""

from __future__ import annotations

import duckdb
import pytest
import shop_world as world

AVAILABLE = 79  # of 80, i07 is not
UNBORN = "2024-08-01"


def see(con: duckdb.DuckDBPyConnection, user: str, where: str = "true") -> None:
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        f"select ?, item_id, 'view', timestamp '{UNBORN}' from m6.items where {where}",
        [user],
    )


def everything(con: duckdb.DuckDBPyConnection, user: str, options: str = "") -> list[dict]:
    return world.recommend(con, user, f"k := 500{', ' if options else ''}{options}")


def assert_whole(listed: list[dict]) -> None:
    """Ranks without gaps, no item twice, seen items after all others."""
    assert [row["rank"] for row in listed] == list(range(1, len(listed) + 1))
    assert len({row["item_id"] for row in listed}) == len(listed)
    last = [row["strategy"] == "seen" for row in listed]
    assert last == sorted(last)
    assert all(0 <= row["satisfaction"] <= 1 for row in listed)
    assert all(row["reason"] and row["strategy"] for row in listed)


@pytest.mark.parametrize("user", ["nobody", "u00", "u59", "", "o'brien"])
@pytest.mark.parametrize("k", [1, 10, 40, AVAILABLE])
def test_anybody_gets_k_items(reader, user, k):
    listed = world.recommend(reader, user, f"k := {k}")
    assert len(listed) == k
    assert_whole(listed)


@pytest.mark.parametrize(
    "options", ["", "exclude_seen := true", "exclude_seen := false", "diversity := 0.5", "boosts := 'margin'"]
)
def test_a_k_above_the_catalogue_gives_all_of_it(reader, options):
    for user in ("nobody", "u00"):
        listed = everything(reader, user, options)
        assert {row["item_id"] for row in listed} == set(world.ITEMS) - {"i07"}
        assert_whole(listed)


def test_seen_items_come_last_and_say_so(shop):
    known = {item for (item,) in world.rows(shop, "select distinct item_id from m6.history('u00', k := 1000)")}
    listed = everything(shop, "u00", "exclude_seen := true")
    marked = {row["item_id"] for row in listed if row["strategy"] == "seen"}
    assert marked == known - {"i07"}
    assert all("you know this one" in row["reason"] for row in listed if row["item_id"] in marked)
    assert not any("you know this one" in row["reason"] for row in listed if row["item_id"] not in marked)
    assert len({row["satisfaction"] for row in listed if row["strategy"] == "seen"}) > 1  # ranked by the model
    assert len(listed) == AVAILABLE


def test_a_user_who_has_seen_everything(shop):
    see(shop, "u00")
    for user_options in (
        "exclude_seen := true",
        "exclude_seen := true, in_domain := 'books'",
        "exclude_seen := true, diversity := 0.3",
    ):
        listed = world.recommend(shop, "u00", user_options)
        assert len(listed) == 10
        assert {row["strategy"] for row in listed} == {"seen"}
        assert_whole(listed)
    assert len(world.recommend(shop, "u00", "exclude_seen := false")) == 10
    assert len(everything(shop, "u00", "exclude_seen := true")) == AVAILABLE


@pytest.mark.parametrize("exclude_seen", ["true", "false"])
def test_a_domain_fills_up_from_the_domain(shop, exclude_seen):
    see(shop, "u01", "domain = 'books' and item_id < 'i75'")
    for user in ("u01", "nobody"):
        for domain, size in (("movies", 39), ("books", 40)):
            listed = everything(shop, user, f"in_domain := '{domain}', exclude_seen := {exclude_seen}")
            assert len(listed) == size
            assert {row["domain"] for row in listed} == {domain}
            assert_whole(listed)
    assert everything(shop, "u01", "in_domain := 'garden'") == []


@pytest.mark.parametrize("few", [["i05"], ["i05", "i77", "i19"], ["i07"], ["i07", "i05"], ["i05", "no such item"], []])
def test_among_few_items_gives_exactly_those(shop, few):
    shop.execute("create table few (item_id varchar)")
    for item in few:
        shop.execute("insert into few values (?)", [item])
    see(shop, "u02", "item_id = 'i05'")
    possible = set(few) & set(world.ITEMS) - {"i07"}
    for user in ("u02", "u40", "nobody"):
        for options in (
            "among := 'few'",
            "among := 'few', exclude_seen := true",
            "among := 'few', exclude_seen := false, diversity := 0.2",
        ):
            listed = everything(shop, user, options)
            assert {row["item_id"] for row in listed} == possible, options
            assert_whole(listed)


def test_among_and_domain_hold_together(reader):
    allowed = {
        i
        for (i,) in world.rows(
            reader, "select item_id from picked join m6.items using (item_id) where domain = 'books'"
        )
    }
    for user in ("u00", "nobody"):
        assert {
            row["item_id"] for row in everything(reader, user, "among := 'picked', in_domain := 'books'")
        } == allowed


def test_availability_takes_effect_in_the_next_query(shop):
    before = world.recommend(shop, "u00")
    gone = world.items_of(before)[:3]
    shop.execute("update m6.items set is_available = false where item_id in (select unnest(?))", [gone])
    for listed in (
        world.recommend(shop, "u00"),
        everything(shop, "u00"),
        everything(shop, "nobody", "in_domain := 'movies'"),
    ):
        assert not set(gone) & set(world.items_of(listed))
        assert len(listed) >= 10
    served = {i for (i,) in world.rows(shop, "select item_id from m6.serve('u00', k := 500)")}
    many = {i for (i,) in world.rows(shop, "select item_id from m6.recommend_many('audience', k := 500)")}
    assert len(served) == len(many) == AVAILABLE - 3
    assert not set(gone) & (served | many)
    shop.execute("update m6.items set is_available = true where item_id in (select unnest(?))", [gone])
    assert world.recommend(shop, "u00") == before


def test_nothing_is_available(shop):
    shop.execute("update m6.items set is_available = false")
    assert world.recommend(shop, "u00") == []
    assert world.rows(shop, "from m6.recommend_many('audience')") == []


@pytest.fixture
def arrivals(shop):
    """Two items loaded after the build, one of them not available, and one more that a rule names."""
    shop.execute(
        "insert into m6.items (item_id, domain, title, is_available) values "
        "('n1', 'movies', 'Premiere', true), ('n2', 'books', 'Proof', true), ('n3', 'books', 'Withdrawn', false)"
    )
    shop.execute("create table brand_new as select item_id from m6.items where item_id like 'n%'")
    return shop


@pytest.mark.parametrize("user", ["u00", "nobody"])
def test_among_only_items_newer_than_the_build(arrivals, user):
    listed = everything(arrivals, user, "among := 'brand_new'")
    assert world.items_of(listed) == ["n1", "n2"]
    assert {row["strategy"] for row in listed} == {"new"}
    assert {row["domain"] for row in listed} == {"movies", "books"}
    assert_whole(listed)
    assert world.items_of(everything(arrivals, user, "among := 'brand_new', in_domain := 'books'")) == ["n2"]


def test_items_newer_than_the_build_only_fill_up(arrivals):
    assert not {"n1", "n2"} & set(world.items_of(world.recommend(arrivals, "u00")))
    listed = everything(arrivals, "u00", "exclude_seen := false")
    assert len(listed) == AVAILABLE + 2
    assert world.items_of(listed)[-2:] == ["n1", "n2"]
    listed = everything(arrivals, "u00", "exclude_seen := true")
    new = [row["rank"] for row in listed if row["strategy"] == "new"]
    seen = [row["rank"] for row in listed if row["strategy"] == "seen"]
    assert len(new) == 2
    assert max(new) < min(seen)
    assert_whole(listed)


def test_a_seen_item_newer_than_the_build_comes_last(arrivals):
    see(arrivals, "u00", "item_id = 'n1'")
    listed = everything(arrivals, "u00", "among := 'brand_new', exclude_seen := true")
    assert [(row["item_id"], row["strategy"]) for row in listed] == [("n2", "new"), ("n1", "seen")]


def test_new_items_in_a_batch_and_when_served(arrivals):
    many = world.rows(
        arrivals, "select user_id, item_id, rank from m6.recommend_many('audience', among := 'brand_new')"
    )
    assert sorted(many) == sorted((u, i, r) for u in [*world.USERS, *world.UNKNOWN] for i, r in (("n1", 1), ("n2", 2)))
    arrivals.execute("insert into m6.impressions by name from m6.serve('u00', among := 'brand_new')")
    shown = world.rows(arrivals, "select item_id, propensity, supporters, eligible from m6.impressions order by rank")
    assert shown == [("n1", 1.0, 0, 0), ("n2", 1.0, 0, 0)]


def test_an_item_announced_for_later_is_there_when_a_rule_names_it(shop):
    """created_at after the build's moment: not in the lists of the build, but loaded and available."""
    shop.execute("update m6.items set created_at = '2030-01-01' where item_id = 'i11'")
    import m6rec_udf as m6

    m6.build(shop)
    shop.execute("create table later as select 'i11' as item_id")
    assert world.items_of(world.recommend(shop, "nobody", "among := 'later'")) == ["i11"]


def test_disabled_strategies_shorten_no_list(shop):
    import m6rec_udf as m6

    for enabled in (["blended", "covisitation"], ["covisitation"], ["popular"], ["blended"]):
        shop.execute("update m6.strategies set is_enabled = strategy in (select unnest(?))", [enabled])
        m6.build(shop)
        for user in ("u00", "nobody"):
            listed = everything(shop, user)
            assert len(listed) == AVAILABLE, enabled
            assert_whole(listed)
            assert "new" not in {row["strategy"] for row in listed}, enabled


def test_an_empty_catalogue_and_a_file_without_events(tmp_path):
    import m6rec_udf as m6

    with world.connect(tmp_path / "bare.duckdb") as con:
        m6.load(con, items=world.frames()["items"])
        m6.build(con)
        assert len(world.recommend(con, "nobody")) == 10
