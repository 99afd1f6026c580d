"""People as items: who blocked or was blocked is never shown, alone or in a batch; people a user may know, in SQL."""

from __future__ import annotations

import polars as pl
import pytest
import shop_world as world
from test_single_user import lists

import m6rec_udf as m6
from m6rec_udf import models

PEOPLE = [f"u{n:02d}" for n in range(40)]
TIES = [("u00", "u01"), ("u01", "u02"), ("u01", "u03"), ("u00", "u04"), ("u04", "u03"), ("u05", "u00"), ("u06", "u01")]


@pytest.fixture(scope="module")
def town(tmp_path_factory, shop_frames):
    """The shop, whose users are items as well, with follows among them and blocks."""
    con = world.connect(tmp_path_factory.mktemp("town") / "town.duckdb")
    m6.load(con, **shop_frames)
    world.rules(con)
    m6.load(
        con,
        items=con.sql(
            "select user_id as item_id, 'people' as domain, user_id as title from m6.users where user_id < 'u40'"
        ),
        events=con.sql(
            "select 'u' || lpad(cast(n % 60 as varchar), 2, '0') as user_id, "
            "'u' || lpad(cast((n * 7 + n // 60) % 40 as varchar), 2, '0') as item_id, 'follow' as event_type, "
            "timestamp '2024-06-01' + to_hours(cast(n as integer)) as happened_at from range(400) t(n)"
        ),
        relations=pl.DataFrame(TIES, schema=["user_id", "other_user_id"], orient="row"),
    )
    m6.build(con)
    yield con
    con.close()


def persons(con, user):
    return set(world.items_of(world.recommend(con, user, "in_domain := 'people', k := 100, exclude_seen := false")))


def test_nobody_meets_themselves(town):
    assert persons(town, "u03") == set(PEOPLE) - {"u03"}


def test_a_block_keeps_both_apart_from_the_next_query_on(town):
    town.execute("insert into m6.relations values ('u10', 'u11', 'blocks', 1.0)")
    assert persons(town, "u10") == set(PEOPLE) - {"u10", "u11"}
    assert persons(town, "u11") == set(PEOPLE) - {"u10", "u11"}
    served = world.rows(town, "select item_id from m6.serve('u11', in_domain := 'people', k := 100, seed := 1)")
    assert ("u10",) not in served


@pytest.mark.parametrize(
    "options",
    [
        "",
        ", in_domain := 'people', k := 60",
        ", exclude_seen := false, k := 30",
        ", quotas := map {'people': 1, 'movies': 1}, draw_seed := 3",
    ],
)
def test_one_list_is_the_list_of_the_batch_body_across_blocks(town, options):
    town.execute(
        "insert or ignore into m6.relations values ('u20', 'u21', 'blocks', 1.0), ('u22', 'u20', 'blocks', 1.0)"
    )
    for user in ("u20", "u21", "u22", "u50", "nobody"):
        batch = lists(town, "slates", user, options)
        assert lists(town, "one_list", user, options) == batch
        barred = {"u20": {"u20", "u21", "u22"}, "u21": {"u20", "u21"}, "u22": {"u20", "u22"}}.get(user, {user})
        assert not {row[0] for row in batch} & barred


def test_a_person_who_came_after_the_build_is_kept_out_too(town):
    town.execute("insert or ignore into m6.items (item_id, domain, title) values ('u55', 'people', 'new')")
    town.execute("insert or ignore into m6.relations values ('u30', 'u55', 'blocks', 1.0)")
    for user, is_there in (("u30", False), ("u31", True), ("u55", False)):
        for macro in ("one_list", "slates"):
            found = [row[0] for row in lists(town, macro, user, ", in_domain := 'people', k := 200")]
            assert ("u55" in found) == is_there
    town.execute("delete from m6.items where item_id = 'u55'")


def test_an_item_that_is_no_person_may_have_the_id_of_a_user(shop):
    shop.execute("insert into m6.relations values ('u00', 'i20', 'blocks', 1.0)")
    listed = world.items_of(world.recommend(shop, "u00", "k := 100, exclude_seen := false"))
    assert "i20" in listed


def test_people_a_user_may_know(town):
    found = world.rows(town, "select person_id, common_friends, follows_user from m6.people('u00')")
    assert found[0] == ("u03", 2, False)  # through u01 and u04
    assert ("u05", 0, True) in found  # follows u00 already
    assert {row[0] for row in found} == {"u02", "u03", "u05", "u06"}
    town.execute("begin")
    town.execute("insert into m6.relations values ('u03', 'u00', 'blocks', 1.0)")
    assert {row[0] for row in world.rows(town, "from m6.people('u00')")} == {"u02", "u05", "u06"}
    town.execute("rollback")


def test_nobody_is_known_through_somebody_whom_everybody_knows(town):
    town.execute("begin")
    town.execute("insert into m6.relations select 'fan' || n, 'star', 'follows', 1.0 from range(499) t(n)")
    town.execute("insert into m6.relations values ('u33', 'star', 'follows', 1.0)")
    assert len(world.rows(town, "from m6.people('u33', k := 1000)")) == 499
    town.execute("insert into m6.relations values ('fan of a friend', 'star', 'follows', 1.0)")
    assert world.rows(town, "from m6.people('u33', k := 1000)") == []
    assert len(world.rows(town, "from m6.people('star', k := 1000)")) == 501  # followers count as before
    town.execute("rollback")


def test_common_groups_count(shop):
    m6.load(
        shop,
        items=pl.DataFrame({"item_id": ["choir", "chess"], "domain": ["groups"] * 2}),
        events=shop.sql(
            "select * from (values ('a', 'choir'), ('b', 'choir'), ('b', 'chess'), ('a', 'chess'), ('c', 'chess')) "
            "as t(user_id, item_id) cross join (select 'follow' as event_type, timestamp '2024-06-01' as happened_at)"
        ),
    )
    assert world.rows(shop, "select person_id, common_groups from m6.people('a')") == [("b", 2), ("c", 1)]


@pytest.fixture(scope="module")
def club(tmp_path_factory, shop_frames):
    """The shop, whose users are persons and tied to others, with groups, blocks, and no behaviour towards persons."""
    con = world.connect(tmp_path_factory.mktemp("club") / "club.duckdb")
    ties = [(f"u{n:02d}", f"u{(n * step) % 40:02d}", kind) for n in range(50) for step, kind in
            ((3, "follows"), (7, "friend"), (3, "friend"), (11, "blocks")) if n % 5 or kind != "blocks"]  # fmt: skip
    ties += [(f"fan{n}", "u12", "follows") for n in range(501)]  # through a hub nobody is known
    m6.load(con, **shop_frames)
    m6.load(
        con,
        items=con.sql(
            "select user_id as item_id, 'people' as domain, user_id as title from m6.users union all "
            "select unnest(['choir', 'chess', 'chat']), 'groups', null"
        ),
        events=con.sql(
            "select 'u' || lpad(cast(n as varchar), 2, '0') as user_id, (['choir', 'chess', 'chat'])[1 + n % 3] as "
            "item_id, case when n % 7 = 0 then 'dismiss' else 'follow' end as event_type, "
            "timestamp '2024-06-01' as happened_at from range(0, 60, 2) t(n)"
        ),
        relations=pl.DataFrame(
            sorted({tie for tie in ties if tie[0] != tie[1]}), schema=["user_id", "other_user_id", "kind"], orient="row"
        ),
    )
    m6.build(con)
    yield con
    con.close()


def test_the_strategy_social_scores_people_as_m6_people_does(club):
    con = club.cursor()
    con.execute("set search_path = 'm6'")
    con.execute("create or replace temp table candidate_users as select user_idx from stg_users")
    [(as_of,)] = con.execute("select max(as_of) from m6.models").fetchall()
    models.run(con, models.collect()["cand_social"], {"as_of": as_of, "span_days": 200.0}, temporary=True)
    proposed: dict[str, dict[str, float]] = {}
    for user, person, score in con.execute(
        "select u.user_id, i.item_id, c.raw_score from cand_social as c inner join stg_users as u using (user_idx) "
        "inner join stg_items as i using (item_idx) where i.domain = 'people'"
    ).fetchall():
        proposed.setdefault(user, {})[person] = score
    con.close()
    assert len(proposed) > 40
    persons = {item for (item,) in world.rows(club, "select item_id from m6.items where domain = 'people'")}
    for user in world.USERS:
        rows = world.rows(club, "select person_id, raw_score from m6.people($1, k := 1000)", [user])
        assert proposed.get(user, {}) == pytest.approx({p: score for p, score in rows if p in persons})


def test_a_list_of_people_near_in_the_graph_lifted_by_it(club):
    bit = "select bit from m6.strategies where strategy = 'social'"
    for user in ("u01", "u13", "u26"):
        known = dict(world.rows(club, "select person_id, raw_score from m6.people($1, k := 100)", [user]))
        known = {person: score for person, score in known.items() if person < "u50"}  # the others are no items
        proposed = world.rows(
            club, f"select item_id from m6.extra_candidates where user_id = ? and bit = ({bit})", [user]
        )
        assert set(known) <= {item for (item,) in proposed}
        listed = world.rows(
            club,
            "with near as (select person_id as item_id, raw_score as boost from m6.people($1, k := 100)) "
            "select item_id, score, satisfaction "
            "from m6.recommend($1, in_domain := 'people', k := 5, among := 'near', boosts := 'near')",
            [user],
        )
        assert len(listed) == 5
        for item, score, satisfaction in listed:
            assert score == pytest.approx(satisfaction * known[item])


def test_without_persons_as_items_nobody_is_proposed(shop):
    m6.load(shop, relations=pl.DataFrame(TIES, schema=["user_id", "other_user_id"], orient="row"))
    m6.build(shop)
    proposed = world.rows(shop, "select distinct item_id from m6.extra_candidates")
    assert proposed
    assert all(item.startswith("i") for (item,) in proposed)
