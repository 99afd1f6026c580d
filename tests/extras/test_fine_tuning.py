"""The contrastive fine-tune: pairs from behaviour, and a folder that is an encoder."""

from __future__ import annotations

import numpy as np
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf.embed import as_encoder
from m6rec_udf.errors import ParameterError
from m6rec_udf.fine_tuning import behaviour_pairs

for package in ("accelerate", "datasets"):
    pytest.importorskip(package, reason="make extras-test installs it")


def test_pairs_are_liked_together_and_do_not_depend_on_the_order_of_asking(reader):
    pairs = behaviour_pairs(reader, pairs=60)
    assert len(pairs) == 60
    assert pairs == behaviour_pairs(reader, pairs=60)
    assert pairs != behaviour_pairs(reader, pairs=60, seed=1)
    kinds = [[text.split()[0] for text in pair] for pair in pairs]
    same = np.mean([one == other for one, other in kinds])
    assert same > 0.4  # a quarter by chance
    assert all(one != other for one, other in pairs)


def test_a_short_training_brings_pairs_together(tmp_path):
    con = m6.connect(tmp_path / "tuned.duckdb")
    m6.load(con, **{name: frame for name, frame in shop_world.frames().items() if name in ("items", "events")})
    m6.build(con)
    pairs = behaviour_pairs(con, pairs=64)
    path = m6.fine_tune(con, tmp_path / "model", pairs=64, batch=16, learning_rate=1e-4)
    con.close()

    def nearness(encoder) -> float:
        one, other = (encoder.encode(list(side)) for side in zip(*pairs, strict=True))
        cosines = one @ other.T
        return float(np.mean(np.diag(cosines)[:, None] > cosines - 2 * np.eye(len(pairs))))

    assert nearness(as_encoder(str(path))) > nearness(as_encoder(None))


def test_an_encoder_that_cannot_be_trained_is_named(reader, tmp_path):
    with pytest.raises(ParameterError, match="no sentence-transformers model"):
        m6.fine_tune(reader, tmp_path / "never")
