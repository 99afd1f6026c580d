"""The map over a frozen encoder as a file: learned in one place, an encoder in another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder, as_encoder
from m6rec_udf.errors import CorruptError, NotBuiltError, ParameterError
from m6rec_udf.text_map import TextMap


def test_it_travels_as_a_file_and_is_an_encoder(reader, tmp_path):
    learned = m6.learn_text_map(reader, in_domain=None)
    learned.save(tmp_path / "taste.npz")
    read = TextMap.load(tmp_path / "taste.npz", base=HashEncoder(32))
    assert read.name == learned.name
    assert read.about == learned.about
    texts = ["cooking about topic1", "drama", ""]
    np.testing.assert_array_equal(read.encode(texts), learned.encode(texts))
    assert read.encode(texts).shape == (3, read.dimension)
    with m6.connect(tmp_path / "second.duckdb", encoder=read) as con:
        m6.load(con, items=shop_world.frames()["items"])
        m6.build(con)
        assert con.execute("select distinct encoder from m6.item_vectors").fetchall() == [(read.name,)]
        assert len(con.execute("from m6.search_items('cooking')").fetchall()) == 10


def test_it_is_the_ridge_regression_from_text_to_factors(reader):
    """Solved here from the tables of the build, with another solver."""
    learned = m6.learn_text_map(reader, ridge=5.0)
    rows = reader.execute(
        "select t.vector, f.factors from m6.item_text_vectors as t "
        "inner join m6.item_factors as f on t.item_idx = f.item_idx "
        "inner join m6.feat_item_activity as a on t.item_idx = a.item_idx where a.users >= 3 order by t.item_idx"
    ).fetchall()
    t, f = (np.array(side, np.float64) for side in zip(*rows, strict=True))
    some = np.linalg.norm(f, axis=1) > 0
    t, f = t[some] - t[some].mean(0), f[some] / np.linalg.norm(f[some], axis=1, keepdims=True)
    stacked = np.concatenate([t, np.sqrt(5.0) * np.eye(t.shape[1])])
    expected = np.linalg.lstsq(stacked, np.concatenate([f, np.zeros((t.shape[1], f.shape[1]))]), rcond=None)[0]
    np.testing.assert_allclose(learned.weights, expected, atol=1e-4)


def test_what_people_like_together_comes_nearer(reader):
    """Items of one category, liked by the same people, move together."""
    items = [row for row in reader.execute("select item_id, item_text from m6.stg_items").fetchall()]
    kind = {item: shop_world.category_of(int(item[1:])) for item, _ in items}
    learned = m6.learn_text_map(reader, share=1.0)

    def apart(vectors: np.ndarray) -> float:
        cosine = vectors @ vectors.T
        same = np.array([[kind[a] == kind[b] for b, _ in items] for a, _ in items])
        np.fill_diagonal(same, val=False)
        return float(cosine[same].mean() - cosine[~same].mean())

    texts = [text for _, text in items]
    assert apart(learned.encode(texts)) > apart(HashEncoder(32).encode(texts))


def test_the_encoder_is_found_by_the_name_in_the_file(tmp_path):
    for given in ("static", "multilingual", "all-MiniLM-L6-v2"):
        weights = np.zeros((384, 2), np.float32)
        TextMap(weights, weights[:, 0], base=given, about={"encoder": as_encoder(given).name}).save(tmp_path / "m.npz")
        assert TextMap.load(tmp_path / "m.npz").base.name == as_encoder(given).name


def test_share_zero_is_the_frozen_encoder(reader):
    learned = m6.learn_text_map(reader, share=0.0)
    texts = ["cooking about topic1", "drama and history"]
    own = learned.encode(texts)
    frozen = HashEncoder(32).encode(texts)
    np.testing.assert_allclose(own @ own.T, frozen @ frozen.T, atol=1e-6)


def test_what_does_not_fit_is_refused(reader, tmp_path):
    with pytest.raises(ParameterError, match="a share in"):
        m6.learn_text_map(reader, share=1.5)
    reader.execute("create or replace temp table three as select 'i01' as item_id")
    with pytest.raises(ParameterError, match="expected 50"):
        m6.learn_text_map(reader, among="three")
    learned = m6.learn_text_map(reader)
    learned.save(tmp_path / "map.npz")
    with pytest.raises(ParameterError, match="learned with the encoder 'hash-32'"):
        TextMap.load(tmp_path / "map.npz", base=HashEncoder(16))
    with pytest.raises(ParameterError, match="of 16 dimensions"):
        learned.mapped(np.zeros((2, 16), np.float32))
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(CorruptError, match="no text map"):
        TextMap.load(Path(tmp_path / "no.npz"))
    with m6.connect(tmp_path / "empty.duckdb", encoder=HashEncoder(32)) as con, pytest.raises(NotBuiltError):
        m6.learn_text_map(con)
