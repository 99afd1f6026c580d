"""Named vector columns: sound, pictures, anything with vectors joins text, candidates and search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import shop_world
from shop_world import ITEMS, recommend, rows

import m6rec_udf as m6
from m6rec_udf.arrays import of_version
from m6rec_udf.errors import EncoderError, ParameterError, SchemaError, UnknownNameError
from m6rec_udf.registry import context_of
from m6rec_udf.vector_columns import block_centre, block_norms, shared_cosines


class Loudness:
    """Reads a file with one number; likeness is nearness of the numbers. Questions in words are numbers too."""

    name = "loudness"
    dimension = 4

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, entries: list[str]) -> np.ndarray:
        self.asked += entries
        return self._of([Path(entry).read_text() for entry in entries])

    def encode_text(self, texts: list[str]) -> np.ndarray:
        return self._of(texts)

    def _of(self, numbers: list[str]) -> np.ndarray:
        angle = np.array([float(number) for number in numbers], np.float32)[:, None]
        return np.concatenate([np.cos(angle), np.sin(angle), 0 * angle, 0 * angle], axis=1)


@pytest.fixture
def sounds(shop, tmp_path):
    """The shop, where even items have a file with a number that says their category; i00's is missing on the disk."""
    for n in range(0, 80, 2):
        path = tmp_path / f"{n}.txt"
        if n:
            path.write_text(f"{0.1 + shop_world.category_of(n)}")
        shop.execute("update m6.items set image_path = ? where item_id = ?", [str(path), ITEMS[n]])
    return shop


def test_a_column_joins_the_vectors_of_items(sounds):
    encoder = Loudness()
    m6.add_vectors(sounds, "sound", encoder=encoder, weight=3.0)
    m6.build(sounds)
    assert rows(
        sounds, "select value, reason from m6.decisions where name = 'vectors_sound' order by model_version desc"
    )[0] == (
        "loudness",
        "39 of 80 items have one, weight 3; from image_path",
    )
    vector = {item: np.array(own) for item, own in rows(sounds, "select item_id, vector from m6.item_vectors")}
    assert {len(own) for own in vector.values()} == {36}
    with_both, text_only = vector["i02"], vector["i01"]
    assert np.linalg.norm(with_both) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(with_both[32:]) == pytest.approx(np.sqrt(3 / 4), abs=1e-6)  # weights 1 and 3
    assert np.linalg.norm(text_only[32:]) == 0
    assert np.linalg.norm(vector["i00"][32:]) == 0  # its file is not there
    kinds = rows(sounds, "select i.category from m6.similar_items('i02', k := 9) join m6.items as i using (item_id)")
    assert len(kinds) == 9


def test_what_was_encoded_once_is_not_asked_again(sounds, tmp_path):
    encoder = Loudness()
    m6.add_vectors(sounds, "sound", encoder=encoder)
    m6.build(sounds)
    n_contents = len({shop_world.category_of(n) for n in range(2, 80, 2)})
    assert len(encoder.asked) == n_contents  # files of the same content are one
    m6.build(sounds)
    assert len(encoder.asked) == n_contents
    before = rows(sounds, "select vector from m6.item_vectors where item_id = 'i02'")
    (tmp_path / "2.txt").write_text("2.9")
    m6.build(sounds)
    assert encoder.asked[n_contents:] == [str(tmp_path / "2.txt")]
    assert rows(sounds, "select vector from m6.item_vectors where item_id = 'i02'") != before


def test_a_process_without_the_encoder_builds_until_something_is_new(sounds, shop_file, tmp_path):
    m6.add_vectors(sounds, "sound", encoder=Loudness())
    m6.build(sounds)
    sounds.close()
    con = shop_world.connect(shop_file)
    m6.build(con)
    number = rows(con, "select model_version from m6.active")
    (tmp_path / "4.txt").write_text("1.234")
    with pytest.raises(EncoderError, match="not given in this process"):
        m6.build(con)
    assert rows(con, "select model_version from m6.active") == number  # the version before stays in force
    with pytest.raises(Exception, match="cannot be asked in words"):
        rows(con, "from m6.search_items('1.0', in_column := 'sound')")
    assert len(rows(con, "from m6.search_items('cooking')")) == 10  # the text alone
    con.close()


def test_a_question_goes_to_the_columns_that_read_words(sounds):
    m6.add_vectors(sounds, "sound", encoder=Loudness())
    m6.build(sounds)
    found = rows(
        sounds,
        "select i.item_id, i.category, s.score from m6.search_items('2.1', k := 15, in_column := 'sound') as s "
        "join m6.items as i using (item_id) order by rank",
    )
    assert {category for _, category, _ in found} == {"history"}
    assert found[0][2] == pytest.approx(1.0, abs=1e-5)
    by_text = rows(sounds, "select item_id from m6.search_items('cooking', in_column := 'text')")
    m6.drop_vectors(sounds, "sound")
    m6.build(sounds)
    assert rows(sounds, "select item_id from m6.search_items('cooking')") == by_text
    with pytest.raises(Exception, match="no vector column 'sound'"):
        rows(sounds, "from m6.search_items('2.1', in_column := 'sound')")


def test_vectors_made_elsewhere_come_from_a_table(shop):
    """Speech, say, embedded by another program: a table of item_id and vector."""
    rng = np.random.default_rng(0)
    taste = rng.standard_normal((4, 8))
    speech = pl.DataFrame(
        {"item_id": ITEMS[:60], "vector": [taste[shop_world.category_of(n)].tolist() for n in range(60)]}
    )
    shop.register("speech_frame", speech)
    shop.execute("create table speech as from speech_frame")
    m6.add_vectors(shop, "speech", source="speech", weight=4.0)
    m6.build(shop)
    near = rows(shop, "select i.category from m6.similar_items('i42', k := 9) join m6.items as i using (item_id)")
    assert [kind for (kind,) in near] == ["history"] * 9
    with pytest.raises(Exception, match="cannot be asked in words"):
        rows(shop, "from m6.search_items('drama', in_column := 'speech')")
    shop.execute("update speech set vector = [1.0, null] where item_id = 'i03'")
    with pytest.raises(SchemaError, match="NULL inside"):
        m6.build(shop)


def test_one_user_alone_and_in_a_batch_get_the_same_with_columns(sounds):
    m6.add_vectors(sounds, "sound", encoder=Loudness())
    m6.build(sounds)
    batch = rows(
        sounds, "select user_id, item_id, score from m6.recommend_many('audience', k := 5) order by user_id, rank"
    )
    for user in {row[0] for row in batch}:
        alone = [(line["item_id"], line["score"]) for line in recommend(sounds, user, "k := 5")]
        together = [(item, score) for who, item, score in batch if who == user]
        assert [item for item, _ in alone] == [item for item, _ in together]
        np.testing.assert_allclose([s for _, s in alone], [s for _, s in together], atol=1e-6)


def test_the_semantic_strategy_reads_all_columns(sounds):
    """Its SQL file over m6.item_text_vectors, computed here by hand, is what the arrays hold."""
    m6.add_vectors(sounds, "sound", encoder=Loudness())
    m6.build(sounds)
    number = rows(sounds, "select model_version from m6.active")[0][0]
    snapshot = of_version(context_of(sounds), number)
    stored = dict(rows(sounds, "select item_idx, vector from m6.item_text_vectors"))
    np.testing.assert_allclose(np.array([stored[at] for at in range(snapshot.n)]), snapshot.text, atol=1e-7)
    assert [name for name, _, _ in snapshot.blocks] == ["text", "sound"]


def test_likeness_is_over_the_columns_that_are_asked():
    blocks = [("text", 2, 1.0), ("sound", 2, 1.0)]
    half = np.sqrt(0.5)
    content = np.array(
        [
            [half, 0, half, 0],  # both, as asked
            [1, 0, 0, 0],  # text alone
            [0, 0, 1, 0],  # sound alone
            [0, 1, 0, 0],  # another text
            [0, 0, 0, 0],  # nothing
        ],
        np.float32,
    )
    norms = block_norms(content, blocks)
    centre = block_centre(content, norms, blocks)
    np.testing.assert_allclose(centre, [2 / 3, 1 / 3, 1, 0], atol=1e-6)
    found = shared_cosines(content, norms, centre, blocks, content[0])
    np.testing.assert_allclose(found, [1, 1, (2 / 3 + 1) / 2, 0.5, -1], atol=1e-6)  # what is missing counts as the mean
    by_text = shared_cosines(content, norms, centre, blocks, np.array([1, 0], np.float32))
    np.testing.assert_allclose(by_text, [1, 1, -1, 0, -1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "text", "encoder": Loudness()}, ParameterError, "not 'text'"),
        ({"name": "Big One", "encoder": Loudness()}, ParameterError, "lower-case"),
        ({"name": "sound", "encoder": Loudness(), "weight": 0.0}, ParameterError, "above 0"),
        ({"name": "sound", "encoder": object()}, ParameterError, "no encode"),
        ({"name": "sound", "encoder": Loudness(), "source": "sound_path"}, UnknownNameError, "no column 'sound_path'"),
        ({"name": "sound", "source": "nowhere"}, UnknownNameError, "no such table"),
    ],
)
def test_a_wrong_declaration_is_refused(shop, arguments, error, message):
    with pytest.raises(error, match=message):
        m6.add_vectors(shop, **arguments)
    assert rows(shop, "from m6.vector_columns") == []


def test_a_column_that_is_not_there_cannot_be_dropped(shop):
    with pytest.raises(UnknownNameError, match="no vector column 'sound'"):
        m6.drop_vectors(shop, "sound")


def test_a_vector_of_no_length_is_refused(reader):
    with pytest.raises(Exception, match="has 0 dimensions"):
        rows(reader, "from m6.nearest_items(cast([] as float[]))")
