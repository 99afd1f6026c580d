"""A new domain is rows, not code: five lines add one to a file, and history elsewhere serves it at once."""

from __future__ import annotations

import shop_world as world

import m6rec_udf as m6

FUNDS = (
    "select 'f' || n as item_id, 'finance' as domain, 'fund ' || n as title, 'theme ' || n % 3 as category "
    "from range(12) t(n)"
)
HELD = (
    "select 'u' || lpad(cast(n % 40 as varchar), 2, '0') as user_id, 'f' || (n % 4 + 4 * (n // 40 % 3)) as item_id, "
    "'hold' as event_type, 30.0 * (n % 7) as value, timestamp '2024-06-01' + to_hours(cast(n as integer)) "
    "as happened_at from range(200) t(n)"
)


def test_five_lines_add_a_domain(shop):
    m6.load(shop, event_types=shop.sql("select 'hold' as event_type, 0.8 as interest, 0.9 as satisfaction"))
    m6.load(shop, items=shop.sql(FUNDS))
    m6.load(shop, events=shop.sql(HELD))
    m6.build(shop)
    new = world.recommend(shop, "u45", "in_domain := 'finance', k := 5")  # has never held a fund
    assert len(new) == 5
    assert {row["domain"] for row in new} == {"finance"}
    assert any(row["reason"] and "because" in row["reason"] for row in new)
    mixed = world.recommend(shop, "u45", "quotas := map {'finance': 1, 'movies': 1, 'books': 2}, k := 8")
    assert [row["domain"] for row in mixed].count("finance") == 2


def test_its_satisfaction_is_graded_by_its_own_kind_of_event(shop):
    shop.execute("insert into m6.event_types values ('hold', 0.8, 0.5, 0.0, 90.0, 'days', 'kept the fund')")
    m6.load(shop, items=shop.sql(FUNDS), events=shop.sql(HELD))
    graded = world.rows(
        shop,
        "select distinct e.value, round(b.satisfaction, 3) from m6.behaviour as b inner join m6.events as e "
        "on b.user_id = e.user_id and b.item_id = e.item_id and b.happened_at = e.happened_at "
        "where e.event_type = 'hold' order by 1",
    )
    assert graded == [(30.0 * n, round(min(1.0, n / 3), 3)) for n in range(7)]


def test_a_satisfaction_function_may_read_the_domain(tmp_path, shop_frames):
    """sat_by_domain.sql: in books only a purchase satisfies, elsewhere as graded."""
    folder = tmp_path / "project" / "sql" / "satisfaction"
    folder.mkdir(parents=True)
    (folder / "sat_by_domain.sql").write_text(
        "-- one row per behaviour: in books only a purchase satisfies\n"
        "select b.user_id, b.item_id, b.event_type, b.value, b.interest,\n"
        "    case when i.domain = 'books' and b.event_type <> 'purchase' then 0.0 else b.satisfaction end "
        "as satisfaction,\n"
        "    b.happened_at\n"
        "from stg_behaviour as b left join m6.items as i on b.item_id = i.item_id\n"
    )
    con = world.connect(tmp_path / "shop.duckdb", project=tmp_path / "project")
    try:
        m6.load(con, **shop_frames)
        m6.build(con, satisfaction="by_domain")
        found = world.rows(
            con,
            "select i.domain, max(b.satisfaction) from m6.behaviour as b "
            "inner join m6.items as i on b.item_id = i.item_id "
            "where b.event_type <> 'purchase' group by i.domain order by i.domain",
        )
        assert found == [("books", 0.0), ("movies", 1.0)]
        assert len(world.recommend(con, "u01", "in_domain := 'books'")) == 10
    finally:
        con.close()
