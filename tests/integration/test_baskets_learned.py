"""m6.complete_basket where baskets are usual: learned from what was taken together before."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf import arrays, basket_learning
from m6rec_udf.registry import context_of

START = datetime(2024, 1, 1)
DISHES, SIZE, STAPLES, CUSTOMERS = 12, 4, 12, 80
DAYS = 100


def dish(n: int) -> list[str]:
    return [f"d{n:02d}-{part}" for part in range(SIZE)]


STAPLE = [f"s{n:02d}" for n in range(STAPLES)]


def staple_of(customer: int) -> str:
    return STAPLE[customer % STAPLES]


def frames(seed: int = 0, later: int = 0) -> dict[str, pl.DataFrame]:
    """Baskets of the most of one dish, and often the customer's own staple; ``later``: seed of those after day 80."""
    rows = []
    for customer in range(CUSTOMERS):
        for visit in range(20):
            rng = np.random.default_rng([seed, customer, visit])
            when = START + timedelta(days=float(rng.uniform(0, DAYS)))
            if when > START + timedelta(days=80):
                rng = np.random.default_rng([later, customer, visit, 1])
            items = rng.choice(dish(int(rng.integers(DISHES))), 3, replace=False).tolist()
            if rng.random() < 0.7:
                items.append(staple_of(customer))
            rows += [(f"c{customer:02d}", item, "purchase", when) for item in items]
    items = [item for n in range(DISHES) for item in dish(n)] + STAPLE + ["never bought"]
    return {
        "items": pl.DataFrame({"item_id": items, "title": items, "is_available": [i != "d00-3" for i in items]}),
        "events": pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "happened_at"], orient="row"),
    }


@pytest.fixture(scope="module")
def market_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("market") / "market.duckdb"
    world.fill(path, frames()).close()
    return path


@pytest.fixture
def market(tmp_path, market_file):
    con = world.connect(shutil.copy(market_file, tmp_path / "market.duckdb"))
    yield con
    con.close()


def completed(con: duckdb.DuckDBPyConnection, items: list[str], options: str = "") -> list[tuple]:
    return world.rows(
        con,
        "select item_id, rank, round(score, 9), round(satisfaction, 9), because_item_id "
        f"from m6.complete_basket({items}{options})",
    )


def items_of(con: duckdb.DuckDBPyConnection, items: list[str], options: str = "") -> list[str]:
    return [item for item, *_ in completed(con, items, options)]


def decision(con: duckdb.DuckDBPyConnection) -> str:
    return world.rows(
        con, "select value from m6.decisions where name = 'complete_basket' order by model_version desc limit 1"
    )[0][0]


def weights(con: duckdb.DuckDBPyConnection):
    version = world.rows(con, "select model_version from m6.active")[0][0]
    return arrays.of_version(context_of(con), version).baskets


def test_what_was_taken_together_comes_first(market):
    assert decision(market).startswith("closed form")
    for n in range(1, DISHES):
        assert set(items_of(market, dish(n)[:2])[:2]) == set(dish(n)[2:])
    first = completed(market, dish(3)[:2])[0]
    assert first[4] in dish(3)[:2]


def test_a_customer_is_offered_what_it_takes(market):
    alone = items_of(market, dish(5)[:3], ", k := 100")
    for customer in range(STAPLES):
        known = items_of(market, dish(5)[:3], f", for_user := 'c{customer:02d}', k := 100")
        place, without = (found.index(staple_of(customer)) for found in (known, alone))
        assert place <= min(without, 2)
        assert place < without or without <= 1
    strangers = completed(market, dish(5)[:3], ", for_user := 'nobody'")
    assert strangers == completed(market, dish(5)[:3])


@pytest.mark.parametrize("options", ["", ", among := 'picked'", ", among := 'picked', boosts := 'margin'", ", k := 3"])
def test_a_basket_alone_is_a_basket_of_many(market, options):
    """Beside baskets of customers, and one of which nothing is known."""
    market.execute("create or replace table picked as select item_id from m6.items where item_id not like '%-1'")
    market.execute("create or replace table margin as select item_id, 1.0 + length(item_id) as boost from m6.items")
    baskets = {
        "a": (None, dish(1)[:2]),
        "b": ("c07", [*dish(2)[:3], "no such item"]),
        "c": ("c08", ["no such item"]),
        "d": ("c07", dish(1)[:2]),
        "e": (None, []),
    }
    market.execute("create table open_baskets (basket varchar, user_id varchar, items varchar[])")
    market.executemany("insert into open_baskets values (?, ?, ?)", [[b, *row] for b, row in baskets.items()])
    columns = "item_id, rank, round(score, 9), round(satisfaction, 9), because_item_id"
    for basket, (user, items) in baskets.items():
        many = world.rows(
            market, f"select {columns} from m6.complete_baskets('open_baskets'{options}) where basket = '{basket}'"
        )
        written = f"{items}::varchar[]" if not items else str(items)
        who = f", for_user := '{user}'" if user else ""
        one = world.rows(market, f"select {columns} from m6.complete_basket({written}{who}{options})")
        assert one == many
        assert len(one) == (3 if "k :=" in options else 10)


def test_never_what_is_in_the_basket_or_not_available(market):
    everything = items_of(market, dish(0)[:2], ", k := 100")
    there = world.rows(market, "select count(*) from m6.items where is_available")[0][0]
    assert len(everything) == len(set(everything)) == there - 2
    assert not set(everything) & {*dish(0)[:2], "d00-3"}
    market.execute("create table few as from (values ('s01'), ('d04-1'), ('never bought')) as t(item_id)")
    assert set(items_of(market, dish(4)[2:], ", among := 'few'")) == {"s01", "d04-1", "never bought"}
    assert items_of(market, dish(4)[2:], ", among := 'few'")[0] == "d04-1"


def test_an_unknown_item_says_nothing(market):
    assert items_of(market, [*dish(6)[:2], "no such item"]) == items_of(market, dish(6)[:2])
    for options in ("", ", for_user := 'c01'"):
        assert len(items_of(market, ["never bought"], options)) == 10


def test_satisfaction_is_a_probability_and_boosts_multiply_it(market):
    every = completed(market, dish(7)[:2], ", k := 100, for_user := 'c03'")
    assert all(0 <= chance <= 1 for *_, chance, _ in every)
    assert 0.9 < sum(chance for *_, chance, _ in every) < 1 + 1e-6
    market.execute("create table twice as select 's05' as item_id, 50.0 as boost")
    options = ", k := 100, for_user := 'c03', boosts := 'twice'"
    boosted = {row[0]: row for row in completed(market, dish(7)[:2], options)}
    plain = {row[0]: row for row in every}
    assert boosted["s05"][3] == plain["s05"][3]
    assert boosted["s05"][2] == pytest.approx(50 * plain["s05"][2], abs=1e-7)
    assert boosted["s05"][1] < plain["s05"][1]


def test_a_shorter_list_is_the_front_of_a_longer_one(market):
    for options in ("", ", for_user := 'c11'"):
        assert items_of(market, dish(8)[:2], f"{options}, k := 3") == items_of(market, dish(8)[:2], options)[:3]


def test_nothing_of_the_future_is_learned(tmp_path):
    moment = START + timedelta(days=80)
    found = []
    for later in (1, 2):
        con = world.fill(tmp_path / f"{later}.duckdb", frames(later=later), as_of=moment)
        con.execute("delete from m6.events where happened_at > ?", [moment])
        found.append([completed(con, dish(n)[:2], who) for n in range(3) for who in ("", ", for_user := 'c02'")])
        con.close()
    assert found[0] == found[1]


def test_the_order_of_the_rows_does_not_matter(market, tmp_path):
    data = frames()
    data["events"] = data["events"].sample(fraction=1.0, shuffle=True, seed=3)
    con = world.fill(tmp_path / "shuffled.duckdb", data)
    assert abs(weights(con) - weights(market)).max() < 1e-6
    assert completed(con, dish(2)[:2], ", for_user := 'c02'") == completed(market, dish(2)[:2], ", for_user := 'c02'")
    con.close()


def test_a_rebuild_takes_it_over(market):
    before = {n: completed(market, dish(n)[:2]) for n in range(4)}
    hashes = "select content_hash from m6.artefact_names where name = 'baskets.data' order by model_version"
    m6.build(market)
    assert len(set(world.rows(market, hashes))) == 1
    market.execute("insert into m6.items (item_id, title) values ('a-first', 'in front of all others')")
    m6.build(market)
    assert "closed form" in decision(market)
    assert world.rows(market, "select value from m6.decisions where name = 'item_models' order by all")[-1:] == [
        ("taken over",)
    ]
    assert len(world.rows(market, "from m6.artefact_names where name = 'baskets.data'")) == 3
    for n, rows in before.items():
        after = completed(market, dish(n)[:2])
        assert [row[0] for row in after[:2]] == [row[0] for row in rows[:2]]
        assert weights(market).shape[0] == len(world.rows(market, "from m6.items"))


def test_data_without_baskets_learns_none(reader):
    assert decision(reader) == "as what comes next"
    assert weights(reader).nnz == 0


def test_few_baskets_are_not_learned_from(tmp_path, monkeypatch):
    monkeypatch.setattr(basket_learning, "LEAST_QUESTIONS", 10_000)
    con = world.fill(tmp_path / "few.duckdb", frames())
    assert decision(con) == "as what comes next"
    assert len(items_of(con, dish(1)[:2])) == 10
    con.close()
