"""m6.complete_basket: what goes with the items of a basket; alone and in a batch, never what is in it."""

from __future__ import annotations

import duckdb
import pytest
import shop_world as world

BASKET = "['i02', 'i04', 'i06']"


def basket(con: duckdb.DuckDBPyConnection, options: str = "") -> list[tuple]:
    return world.rows(con, f"select item_id, rank, round(satisfaction, 6) from m6.complete_basket({BASKET}{options})")


def test_it_gives_k_items_that_are_not_in_the_basket(reader):
    for options in ("", ", for_user := 'u01'", ", for_user := 'nobody'"):
        found = basket(reader, options)
        assert [rank for _, rank, _ in found] == list(range(1, 11))
        assert not {item for item, _, _ in found} & {"i02", "i04", "i06", "i07"}  # i07 is not available


def test_the_basket_decides(reader):
    """Dramas are even numbers below 40, cooking odd ones from 40 on: baskets of one kind bring more of it."""
    drama = [item for item, *_ in basket(reader)]
    cooking = [r[0] for r in world.rows(reader, "select item_id from m6.complete_basket(['i43', 'i45', 'i47'])")]
    kinds = dict(world.rows(reader, "select item_id, category from m6.items"))
    assert sum(kinds[i] == "drama" for i in drama) > sum(kinds[i] == "drama" for i in cooking)
    assert sum(kinds[i] == "cooking" for i in cooking) > sum(kinds[i] == "cooking" for i in drama)


@pytest.mark.parametrize("options", ["", ", in_domain := 'movies'", ", among := 'picked', boosts := 'margin'"])
def test_a_basket_alone_is_a_basket_of_many(shop, options):
    shop.execute(
        "create table open_baskets as from (values ('a', null, ['i02', 'i04', 'i06']), ('b', 'u01', ['i43', 'i43']), "
        "('c', 'u01', ['i02', 'i04', 'i06'])) as t(basket, user_id, items)"
    )
    rows = "select item_id, rank, round(satisfaction, 6) from m6.complete_baskets('open_baskets'{}) where basket = '{}'"
    assert world.rows(shop, rows.format(options, "a")) == basket(shop, options)
    assert world.rows(shop, rows.format(options, "c")) == basket(shop, f", for_user := 'u01'{options}")


def test_unknown_items_and_an_empty_basket_fall_back(reader):
    for items in ("[]::varchar[]", "['no such item']"):
        assert len(world.rows(reader, f"from m6.complete_basket({items}, k := 5)")) == 5
