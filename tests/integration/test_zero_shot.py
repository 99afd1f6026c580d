"""A catalogue with texts and no events: lists from a sentence, an item, a profile, and by a language model."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import polars as pl
import pytest
import shop_world
from shop_world import rows

import m6rec_udf as m6
from m6rec_udf.errors import ParameterError
from m6rec_udf.zero_shot import ANYBODY, LIKED


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Items and profiles, built without one event."""
    con = shop_world.connect(tmp_path_factory.mktemp("zero") / "catalogue.duckdb")
    users = pl.DataFrame({"user_id": ["cook", "mute", "blank"], "profile": ["cooking", None, "  "]})
    m6.load(con, items=shop_world.frames()["items"], users=users)
    m6.build(con)
    yield con
    con.close()


def category(con: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    query = f"select i.category from {sql} as l join m6.items as i using (item_id) order by rank"
    return [row[0] for row in rows(con, query)]


@pytest.mark.parametrize(
    "sql",
    [
        "m6.recommend_for_text('I like cooking')",
        "m6.similar_items('i43')",
        "m6.recommend_by_profile('cook')",
        "m6.search_items('cooking')",
    ],
)
def test_a_catalogue_without_events_answers_by_what_texts_say(catalogue, sql):
    found = category(catalogue, sql)
    assert len(found) == 10
    assert found[:5].count("cooking") >= 4  # a quarter of the items; 20 by chance


@pytest.mark.parametrize("user", ["mute", "blank", "nobody"])
def test_without_a_profile_there_is_no_list_by_profile(catalogue, user):
    assert rows(catalogue, "from m6.recommend_by_profile(?)", [user]) == []


def test_a_profile_does_not_bring_what_the_user_knows(shop):
    shop.execute("update m6.users set profile = 'cooking' where user_id = 'u00'")
    seen = {row[0] for row in rows(shop, "select item_id from m6.behaviour where user_id = 'u00'")}
    found = [row[0] for row in rows(shop, "from m6.recommend_by_profile('u00', k := 1000)")]
    assert seen.isdisjoint(found)
    assert len(found) == len(set(shop_world.ITEMS) - seen - {"i07"})  # i07 is not available


def test_domain_and_among_hold(catalogue):
    catalogue.execute("create or replace table few as select item_id from m6.items where price < 20")
    found = rows(
        catalogue,
        "select i.domain, i.price from m6.recommend_by_profile('cook', k := 50, in_domain := 'books', among := 'few') "
        "join m6.items as i using (item_id)",
    )
    assert found
    assert all(domain == "books" and price < 20 for domain, price in found)


class Reader:
    """A stand-in for a language model: titles with an even number are likely, all the more after what was liked."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def complete(self, prompt: str, *, most_tokens: int = 60) -> str:
        return ""

    def log_likelihood(self, prompt, continuations):
        self.prompts.append(prompt)
        number = np.array([int(title.split()[-1]) for title in continuations])
        return -number / 100.0 + np.where(number % 2 == 0, 1.0, 0.0) * (prompt != ANYBODY)


def test_the_language_model_orders_what_the_encoder_finds(catalogue):
    reader = Reader()
    found = m6.rank_by_likelihood(
        catalogue, ["Cooking number 43", "Drama"], k=8, pool=30, model=reader, in_domain="books", compared=True
    )
    near = rows(
        catalogue,
        "select item_id from m6.recommend_for_text('Cooking number 43, Drama', k := 32, in_domain := 'books')",
    )
    assert found.columns == ["item_id", "title", "rank", "score", "similarity"]
    assert set(found["item_id"]) <= {row[0] for row in near}
    assert reader.prompts == [LIKED.format(liked="Cooking number 43, Drama"), ANYBODY]
    assert "Cooking number 43" not in found["title"].to_list()
    numbers = [int(title.split()[-1]) for title in found["title"]]
    assert all(n % 2 == 0 for n in numbers)
    assert found["score"].to_list() == [1.0] * 8  # what is likely for anybody cancels
    assert found["rank"].to_list() == list(range(1, 9))
    alone = m6.rank_by_likelihood(catalogue, "Cooking", k=3, pool=30, model=reader)
    assert alone["score"].is_sorted(descending=True)
    assert alone["score"].n_unique() == 3


def test_nothing_liked_and_a_small_pool_are_refused(catalogue):
    with pytest.raises(ParameterError, match="nothing that is liked"):
        m6.rank_by_likelihood(catalogue, ["  "], model=Reader())
    with pytest.raises(ParameterError, match="a pool of 5"):
        m6.rank_by_likelihood(catalogue, "drama", k=10, pool=5, model=Reader())
    with pytest.raises(ParameterError, match="no complete"):
        m6.rank_by_likelihood(catalogue, "drama", model=object())
