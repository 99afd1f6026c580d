"""Invariant 3: one user alone equals the same user in a batch, whatever the options."""

from __future__ import annotations

import pytest
import shop_world as world

OPTIONS = {
    "default": "",
    "twenty": "k := 20",
    "everything": "k := 100",
    "unseen": "exclude_seen := true, k := 25",
    "repeats": "exclude_seen := false",
    "domain": "in_domain := 'movies'",
    "among": "among := 'picked', k := 12",
    "boosts": "boosts := 'margin'",
    "diversity": "diversity := 0.4",
    "all at once": "k := 7, in_domain := 'books', among := 'picked', boosts := 'margin', diversity := 0.3, "
    "exclude_seen := true",
}
NUMBERS = ("score", "satisfaction", "propensity")


def dicts(con, sql: str, parameters=()) -> list[dict]:
    cursor = con.execute(sql, list(parameters))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def by_user(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["user_id"], []).append(row)
    return found


def assert_equal(alone: list[dict], batch: list[dict]) -> None:
    assert [row["item_id"] for row in alone] == [row["item_id"] for row in batch]
    for one, many in zip(alone, batch, strict=True):
        for name in one.keys() - set(NUMBERS):
            assert one[name] == many[name], name
        for name in one.keys() & set(NUMBERS):
            assert one[name] == pytest.approx(many[name], abs=1e-6), name


@pytest.fixture(scope="module")
def tail(built_file, tmp_path_factory):
    """The shop with behaviour newer than its build: of known users, of new ones, and as feedback."""
    import shutil

    con = world.connect(shutil.copy(built_file, tmp_path_factory.mktemp("tail") / "shop.duckdb"))
    con.execute(
        "insert into m6.events (user_id, item_id, event_type, happened_at) "
        "select 'u' || lpad(cast(n * 7 % 60 as varchar), 2, '0'), 'i' || lpad(cast(n * 11 % 80 as varchar), 2, '0'), "
        "case when n % 3 = 0 then 'purchase' else 'view' end, timestamp '2024-07-20' + to_hours(cast(n as integer)) "
        "from range(70) as t(n) union all select 'stranger', 'i1' || n, 'purchase', timestamp '2024-07-30' from "
        "range(4) as t(n)"
    )
    con.execute(
        "insert into m6.feedback (user_id, item_id, event_type, happened_at) "
        "select 'u' || (10 + n), 'i' || (20 + n), 'dismiss', timestamp '2024-07-28' from range(20) as t(n)"
    )
    yield con
    con.close()


@pytest.mark.parametrize("name", OPTIONS)
def test_recommend_equals_recommend_many(tail, name):
    comma = ", " if OPTIONS[name] else ""
    batch = by_user(dicts(tail, f"from m6.recommend_many('audience'{comma}{OPTIONS[name]})"))
    users = [*world.USERS, *world.UNKNOWN] if name == "default" else [*world.USERS[::4], "u11", *world.UNKNOWN]
    assert batch.keys() == {*world.USERS, *world.UNKNOWN}
    for user in users:
        assert_equal(world.recommend(tail, user, OPTIONS[name]), batch[user])


@pytest.mark.parametrize("name", ["default", "all at once", "repeats"])
def test_serve_equals_serve_many_with_the_same_seed(tail, name):
    comma = ", " if OPTIONS[name] else ""
    fixed = f"{comma}{OPTIONS[name]}, seed := 11, request := 'r', moment := timestamp '2024-08-01'"
    batch = by_user(dicts(tail, f"from m6.serve_many('audience'{fixed})"))
    assert any(len({row["strategy"] for row in listed}) > 1 for listed in batch.values())
    for user in [*world.USERS[::4], *world.UNKNOWN]:
        assert_equal(dicts(tail, f"from m6.serve(?{fixed})", [user]), batch[user])


def test_another_seed_draws_another_list(tail):
    drawn = [
        dicts(tail, f"select user_id, rank, item_id from m6.serve_many('audience', seed := {n})") for n in (1, 2, 1)
    ]
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1]


def test_the_company_in_the_batch_does_not_matter(tail):
    """More users than one Arrow batch holds (2,048) around the same users."""
    tail.execute(
        "create or replace table crowd as select 'guest' || n as user_id from range(2100) as t(n) "
        "union all from audience union all from audience"
    )
    crowd = by_user(dicts(tail, "from m6.recommend_many('crowd', k := 5)"))
    assert len(crowd) == 2100 + 62
    few = by_user(dicts(tail, "from m6.recommend_many('audience', k := 5)"))
    for user, listed in few.items():
        assert_equal(listed, crowd[user])
    guests = {tuple(row["item_id"] for row in crowd[f"guest{n}"]) for n in range(2100)}
    assert guests == {tuple(row["item_id"] for row in few["nobody"])}


def test_rows_of_one_user_are_ranked_without_gaps(tail):
    for listed in by_user(dicts(tail, "from m6.recommend_many('audience', k := 100)")).values():
        assert [row["rank"] for row in listed] == list(range(1, len(listed) + 1))
        assert len({row["item_id"] for row in listed}) == len(listed)
