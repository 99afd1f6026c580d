"""Pictures through sentence-transformers: a CLIP of random weights, made here, goes the way of a real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shop_world
import tiny_clip
from shop_world import ITEMS, rows

import m6rec_udf as m6
from m6rec_udf.errors import EncoderError
from m6rec_udf.pictures import PictureEncoder

Image = pytest.importorskip("PIL.Image", reason="make extras-test installs it")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def pictured(shop, tmp_path):
    """Every third item has a picture of its category's colour; one file is no picture."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (4, 3))
    for n in range(0, 80, 3):
        path = tmp_path / f"{n}.png"
        noise = rng.integers(-10, 10, (40, 40, 3))
        pixels = np.clip(colours[shop_world.category_of(n)] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        shop.execute("update m6.items set image_path = ? where item_id = ?", [str(path), ITEMS[n]])
    (tmp_path / "0.png").write_text("this is no picture")
    return shop


def test_pictures_join_the_items_and_are_embedded_once(pictured, clip, monkeypatch):
    m6.add_vectors(pictured, "picture", encoder=clip)
    m6.build(pictured)
    assert (
        "26 of 80 items have one"
        in rows(pictured, "select reason from m6.decisions where name = 'vectors_picture' order by model_version desc")[
            0
        ][0]
    )
    vectors = dict(rows(pictured, "select item_id, vector from m6.item_vectors"))
    assert {len(own) for own in vectors.values()} == {32 + 24}
    assert not np.any(np.array(vectors["i01"])[32:])
    assert np.any(np.array(vectors["i03"])[32:])
    monkeypatch.setattr(PictureEncoder, "encode", None)  # a second build has nothing to embed
    m6.build(pictured)


def test_a_question_in_words_reads_the_pictures(pictured, clip):
    m6.add_vectors(pictured, "picture", encoder=clip)
    m6.build(pictured)
    words = PictureEncoder(str(clip)).encode_text(["red dress"])[0]
    pictures = {
        item: np.array(own)[32:] * np.sqrt(2)
        for item, own in rows(pictured, "select item_id, vector from m6.item_vectors")
    }
    expected = sorted(
        ((float(words @ own), item) for item, own in pictures.items() if own.any()), key=lambda pair: -pair[0]
    )
    found = rows(pictured, "select item_id, score from m6.search_items('red dress', k := 26, in_column := 'picture')")
    np.testing.assert_allclose([score for _, score in found], [score for score, _ in expected], atol=1e-5)
    assert {item for item, _ in found} == {item for _, item in expected}
    assert len(rows(pictured, "from m6.search_items('red dress', k := 50)")) == 50  # text and pictures together


def test_a_later_process_finds_the_model_by_its_name(pictured, clip, shop_file):
    m6.add_vectors(pictured, "picture", encoder=str(clip))
    m6.build(pictured)
    before = rows(pictured, "from m6.search_items('red dress', in_column := 'picture')")
    pictured.close()
    con = shop_world.connect(shop_file)
    assert rows(con, "from m6.search_items('red dress', in_column := 'picture')") == before
    con.close()


def test_one_picture_alone_has_the_vector_it_has_in_a_batch(clip, tmp_path):
    rng = np.random.default_rng(1)
    paths = [str(tmp_path / f"{n}.png") for n in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (50, 30, 3)).astype(np.uint8)).save(path)
    encoder = PictureEncoder(str(clip))
    together = encoder.encode(paths)
    np.testing.assert_allclose(encoder.encode(paths[2:3]), together[2:3], atol=1e-5)


def test_a_model_that_is_not_there_is_named(pictured):
    m6.add_vectors(pictured, "picture", encoder="/nowhere/at/all")
    with pytest.raises(EncoderError, match="could not be loaded"):
        m6.build(pictured)
