"""Probability of a click: calibrated, better than the mean where there is something to learn, the mean where not."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import CorruptError, ParameterError, SchemaError, UnknownNameError
from m6rec_udf.probability import Encoding, Probability, learned


def log(rows: int, seed: int, *, strength: float = 1.5) -> pl.DataFrame:
    """Impressions whose clicks depend on the place of the ad and on a price; generated."""
    rng = np.random.default_rng(seed)
    place, price = rng.integers(0, 4, rows), rng.normal(size=rows)
    odds = -3.0 + strength * (place == 2) + strength * 0.6 * price
    return pl.DataFrame(
        {
            "outcome": (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(float),
            "happened_at": [datetime(2024, 1, 1) + timedelta(seconds=n) for n in range(rows)],
            "place": [("top", "side", "middle", "foot")[p] for p in place],
            "price": price,
        }
    )


def loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def test_it_learns_and_means_what_it_says():
    train, test = log(8000, 1), log(20000, 2)
    p, y = learned(train)(test), test["outcome"].to_numpy()
    assert loss(p, y) < 0.93 * loss(np.full(len(y), y.mean()), y)
    parts = np.array_split(np.argsort(p), 10)
    assert sum(abs(p[a].mean() - y[a].mean()) * len(a) for a in parts) / len(y) < 0.01


def test_without_anything_to_learn_it_is_the_mean():
    train, test = log(6000, 3, strength=0.0), log(6000, 4, strength=0.0)
    p = learned(train)(test)
    assert p.std() < 0.3 * p.mean()
    assert p.mean() == pytest.approx(train["outcome"].mean(), rel=0.1)


def test_the_order_of_the_rows_does_not_matter():
    con = duckdb.connect()
    con.register("given", log(3000, 5).to_arrow())
    con.execute("create table shown as from given; create table mixed as from shown order by hash(price)")
    con.execute("create table ads as select 'a' || n as item_id, 'top' as place, n * 0.1 as price from range(20) t(n)")
    one = m6.probabilities(con, "shown", "ads").pl()
    two = m6.probabilities(con, "mixed", "ads").pl()
    assert one.columns == ["item_id", "place", "price", "probability"]
    np.testing.assert_allclose(one["probability"].to_numpy(), two["probability"].to_numpy(), atol=1e-9)


def test_what_is_missing_is_said():
    con = duckdb.connect()
    con.register("given", log(300, 6).to_arrow())
    con.execute("create table shown as from given; create table ads as select 'top' as place")
    with pytest.raises(SchemaError, match="no column price"):
        m6.probabilities(con, "shown", "ads")
    with pytest.raises(SchemaError, match="expected outcome"):
        m6.probabilities(con, "ads", "ads")
    con.execute("create table quiet as select * replace (0.0 as outcome) from shown")
    with pytest.raises(ParameterError, match="both kinds"):
        m6.probabilities(con, "quiet", "shown")
    with pytest.raises(ParameterError, match="neither a log nor a model"):
        m6.probabilities(con, None, "shown")


def test_a_missing_number_counts_as_the_mean_of_those_that_are_there():
    frame = pl.DataFrame({"price": [10.0, None, 20.0, float("nan")], "nothing": [None, None, None, None]})
    encoding = Encoding.of(frame.with_columns(pl.col("nothing").cast(pl.Float64)), ["price", "nothing"])
    assert encoding.mean == {"price": (15.0, 5.0), "nothing": (0.0, 1.0)}
    assert encoding(frame).tolist() == [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_a_model_survives_as_bytes(strength):
    train, test = log(8000, 7, strength=strength), log(500, 8)
    if strength:  # what no line foresees, so that there are trees
        odd = (train["price"].to_numpy() * 2).astype(int) % 2 == 0
        train = train.with_columns(outcome=pl.when(pl.Series(odd)).then(1.0).otherwise("outcome"))
    found = learned(train)
    assert bool(found.trees) == bool(strength)
    again = Probability.from_bytes(found.to_bytes())
    np.testing.assert_array_equal(again(test), found(test))
    assert again.to_bytes() == found.to_bytes()


def test_a_model_stays_in_the_file_under_its_name(tmp_path):
    con = m6.connect(tmp_path / "ads.duckdb", encoder=HashEncoder(8))
    con.register("given", log(3000, 9).to_arrow())
    con.execute("create table shown as from given")
    con.execute("create table ads as select 'a' || n as item_id, 'top' as place, n * 0.1 as price from range(20) t(n)")
    con.unregister("given")
    first = m6.probabilities(con, "shown", "ads", model="click").pl()
    con.execute("drop table shown")
    con.close()
    con = m6.connect(tmp_path / "ads.duckdb", encoder=HashEncoder(8))
    assert m6.probabilities(con, None, "ads", model="click").pl().equals(first)
    rows = con.execute("select name, learned_from, rows, outcomes > 0 from m6.probability_models").fetchall()
    assert rows == [("click", "shown", 3000, True)]
    with pytest.raises(UnknownNameError, match="no probability model 'conversion', expected one of click"):
        m6.probabilities(con, None, "ads", model="conversion")
    con.execute("create table bare as select 'top' as place")
    with pytest.raises(SchemaError, match="no column price, expected the features of the model 'click'"):
        m6.probabilities(con, None, "bare", model="click")
    con.execute("update m6.probability_models set content = content || '\\x20'::blob")
    with pytest.raises(CorruptError, match="does not match its hash"):
        m6.probabilities(con, None, "ads", model="click")
    con.close()


def test_learning_again_takes_the_place_of_what_a_name_held(tmp_path):
    con = m6.connect(tmp_path / "ads.duckdb", encoder=HashEncoder(8))
    for seed in (1, 2):
        con.register("given", log(1000, seed).to_arrow())
        con.execute("create or replace table shown as from given")
        latest = m6.probabilities(con, "shown", "shown", model="click").pl()
    assert m6.probabilities(con, None, "shown", model="click").pl().equals(latest)
    assert con.execute("select count(*) from m6.probability_models").fetchall() == [(1,)]
    con.close()
