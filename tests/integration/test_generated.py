"""Texts about recommendations: templates, and a model's only where it keeps to the evidence."""

from __future__ import annotations

import numpy as np
import pytest
from shop_world import recommend, rows

import m6rec_udf as m6
from m6rec_udf.errors import ParameterError, UnknownNameError
from m6rec_udf.grounding import strays

USER = "u05"


class Says:
    """A model that says one thing, made from the prompt it gets."""

    def __init__(self, say) -> None:
        self.say, self.prompts = say, []

    def complete(self, prompt: str, *, most_tokens: int = 60) -> str:
        self.prompts.append(prompt)
        return self.say(prompt)

    def log_likelihood(self, prompt, continuations):
        return np.zeros(len(continuations))


def evidence(con, user, item):
    return [name for (name,) in rows(con, "select name from m6.explain(?, ?) where part = 'evidence'", [user, item])]


@pytest.fixture
def item(reader) -> str:
    """An item of the user's list with evidence."""
    return next(
        line["item_id"] for line in recommend(reader, USER, "k := 20") if evidence(reader, USER, line["item_id"])
    )


def title_of(con, item):
    return rows(con, "select title from m6.items where item_id = ?", [item])[0][0]


def other_title(con, known):
    return next(t for (t,) in rows(con, "select title from m6.items order by item_id desc") if t not in known)


def test_without_a_model_the_sentence_is_that_of_explain(reader, item):
    found = m6.explain_in_words(reader, USER, item)
    sentence = rows(reader, "select name from m6.explain(?, ?) where part = 'sentence'", [USER, item])[0][0]
    assert found.by == "template"
    assert found.text == f'"{title_of(reader, item)}": {sentence}'
    assert set(evidence(reader, USER, item)) <= set(found.titles)


def test_a_model_that_keeps_to_the_evidence_is_heard(reader, item):
    known = evidence(reader, USER, item)
    model = Says(lambda prompt: f'Since you liked "{known[0]}", this goes well with it. And now for something else.')
    found = m6.explain_in_words(reader, USER, item, model=model)
    assert found.by == "model"
    assert found.text == f'Since you liked "{known[0]}", this goes well with it.'
    assert all(name in model.prompts[0] for name in known)


@pytest.mark.parametrize(
    "say",
    [
        lambda known, other: f"You liked {known} and {other}.",  # an item of the catalogue that is no evidence
        lambda known, other: f'You liked {known}, so you will like "The Lost Voyage".',  # an invented title in quotes
        lambda known, other: f"You liked {known}, and 93 of 100 people agree.",  # a number nobody gave
        lambda known, other: "You have good taste.",  # names nothing
        lambda known, other: "",
        lambda known, other: f"You liked {known} and so you will also like",  # cut off
        lambda known, other: f'You liked "{known}" and "{known}".',
    ],
)
def test_a_model_that_strays_is_not_heard(reader, item, say):
    known = evidence(reader, USER, item)
    other = other_title(reader, [*known, title_of(reader, item)])
    found = m6.explain_in_words(reader, USER, item, model=Says(lambda prompt: say(known[0], other)))
    assert found.by == "template"
    assert found.strayed
    assert found.text == m6.explain_in_words(reader, USER, item).text


def test_every_title_in_an_explanation_is_evidence_whatever_the_model_says(reader):
    """A model that throws in a title of the catalogue at random: no explanation ever names one that is not evidence."""
    titles = [title for (title,) in rows(reader, "select title from m6.items order by item_id")]
    rng = np.random.default_rng(0)
    heard = 0
    for user in ("u00", "u05", "u17", "u33"):
        for line in recommend(reader, user, "k := 6"):
            known = [*evidence(reader, user, line["item_id"]), title_of(reader, line["item_id"])]
            model = Says(
                lambda prompt, known=known: f"You liked {rng.choice([*known, *known, *titles[:20]])}, so here it is."
            )
            found = m6.explain_in_words(reader, user, line["item_id"], model=model)
            named = [title for title in titles if strays(reader, found.text, []).count(f"title {title!r}")]
            assert set(named) <= set(known)
            heard += found.by == "model"
    assert heard > 0


def test_without_evidence_the_model_is_not_asked(reader):
    model = Says(lambda prompt: "never")
    found = m6.explain_in_words(reader, "nobody", "i03", model=model)
    assert found.by == "template"
    assert model.prompts == []


def test_an_item_is_described_from_its_own_columns(reader, item):
    plain = m6.describe_item(reader, item, for_user=USER)
    title = title_of(reader, item)
    category, brand = rows(reader, "select category, brand from m6.items where item_id = ?", [item])[0]
    assert plain.text.startswith(f'"{title}", {category}, by {brand}, for somebody who liked "')
    assert m6.describe_item(reader, item).text == f'"{title}", {category}, by {brand}'
    told = m6.describe_item(reader, item, model=Says(lambda prompt: f"{title} is worth an evening."))
    assert (told.by, told.text) == ("model", f"{title} is worth an evening.")
    assert m6.describe_item(reader, item, model=Says(lambda prompt: f"{title}, made in 1987.")).by == "template"


def test_an_unknown_item_is_named(reader):
    with pytest.raises(UnknownNameError, match="no item 'i999'"):
        m6.explain_in_words(reader, USER, "i999")


def test_a_turn_becomes_filters_and_a_query(reader):
    turn = m6.chat(reader, "Please show me something about cooking under 20 dollars, no comedy, in books")
    assert turn.query == "about cooking"
    assert (turn.filters.at_most, turn.filters.domain, turn.filters.without) == (20.0, "books", ("comedy",))
    assert len(turn.items) == 5
    assert turn.items["price"].max() <= 20
    assert set(turn.items["domain"]) == {"books"}
    for title in turn.items["title"]:
        assert f'"{title}"' in turn.reply
        assert "comedy" not in title.lower()


def test_the_next_turn_keeps_what_was_said_and_shows_others(reader):
    first = m6.chat(reader, "cooking under 30")
    second = m6.chat(reader, "something else, at least 10", before=first)
    assert second.query == "cooking"
    assert (second.filters.at_least, second.filters.at_most) == (10.0, 30.0)
    assert set(second.items["item_id"]).isdisjoint(first.items["item_id"])
    third = m6.chat(reader, "more", before=second)
    assert set(third.items["item_id"]).isdisjoint([*first.items["item_id"], *second.items["item_id"]])


@pytest.mark.parametrize(
    ("said", "low", "high", "query"),
    [
        ("cooking between 5 and 15", 5.0, 15.0, "cooking"),
        ("cooking cheaper than $9.50", None, 9.5, "cooking"),
        ("请推荐20元以下的 cooking", None, 20.0, "的 cooking"),
        ("I am looking for cooking above 12 euros", 12.0, None, "cooking"),
    ],
)
def test_bounds_of_the_price_in_words(reader, said, low, high, query):
    turn = m6.chat(reader, said, k=3)
    assert (turn.filters.at_least, turn.filters.at_most, turn.query) == (low, high, query)


def test_what_is_unwanted_is_left_out_in_both_languages(reader):
    for said in ("drama without history", "drama 不要history"):
        found = m6.chat(reader, said, k=50).items["title"].to_list()
        assert found
        assert not any("history" in title.lower() for title in found)


def test_a_known_person_does_not_see_what_they_know_and_gets_the_list_where_nothing_is_asked(reader):
    seen = {row[0] for row in rows(reader, "select item_id from m6.behaviour where user_id = ?", [USER])}
    asked = m6.chat(reader, "cooking", for_user=USER, k=20)
    assert set(asked.items["item_id"]).isdisjoint(seen)
    silent = m6.chat(reader, "please recommend something", for_user=USER, k=5)
    assert silent.query == ""
    assert len(silent.items) == 5
    assert set(silent.items["item_id"]).isdisjoint(seen)


def test_nothing_fits_is_said_and_nothing_invented(reader):
    turn = m6.chat(reader, "cooking under 0.01", model=Says(lambda prompt: 'Try "The Lost Voyage"!'))
    assert len(turn.items) == 0
    assert turn.reply == 'Nothing in the catalogue fits: for "cooking", up to 0.01.'
    with pytest.raises(ParameterError, match="empty turn"):
        m6.chat(reader, "   ")


def test_a_reply_names_only_what_was_found(reader):
    honest = m6.chat(reader, "cooking", model=Says(lambda p: "How about this: " + p.split('"')[1] + "?"))
    assert honest.by == "model"
    assert any(title in honest.reply for title in honest.items["title"])
    other = other_title(reader, honest.items["title"].to_list())
    liar = m6.chat(reader, "cooking", model=Says(lambda p: f"{p.split(chr(34))[1]} or rather {other}."))
    assert liar.by == "template"
    assert other not in liar.reply


def test_a_read_only_file_can_be_talked_to(shop_file):
    import shop_world

    con = shop_world.connect(shop_file, read_only=True)
    assert len(m6.chat(con, "cooking").items) == 5
    con.close()
