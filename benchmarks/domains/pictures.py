"""Pictures as a second vector column, and what is lost where items lack one.

    python benchmarks/domains/pictures.py            (pip install 'm6rec[pictures]')

Real pictures, simulated people: the 1,797 handwritten digits of the UCI data set that scikit-learn carries (8 x 8
pixels) are the items, their titles say nothing. Each of 300 people likes two of the ten digits and buys 12 prints of
the first 1,200, nine in ten of them of a digit they like. The other 597 have no behaviour: which of those are shown?

``precision@10`` is the share of prints of a liked digit in ``m6.recommend`` over the new ones, 0.2 by chance;
``similar`` the share of the same digit among the 10 most similar items, 0.1 by chance. A share of all items, drawn by
the seed, has no picture; a second figure is for the new prints that have one.

Encoders: the pixels themselves (an object with ``encode``), and a CLIP of random weights (tests/tiny_clip.py). No
package that can be had here carries a trained CLIP: neither what it is worth nor questions in words are shown.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import polars as pl
from PIL import Image

import m6rec_udf as m6

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import tiny_clip

OLD, PEOPLE, BOUGHT = 1200, 300, 12
START = datetime(2024, 1, 1)


class Pixels:
    """The 64 grey values, less their mean."""

    name = "pixels"
    dimension = 64

    def encode(self, entries: list[str]) -> np.ndarray:
        """Pictures as they are, ``[n, 64]``."""
        read = [np.asarray(Image.open(entry).convert("L").resize((8, 8)), np.float32).ravel() for entry in entries]
        return np.stack(read) - np.mean(read, axis=1, keepdims=True)


def world(folder: Path, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray, np.ndarray]:
    """items, events, the digit of each item, the two digits of each person."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    kind = digits.target
    for n, picture in enumerate(digits.images):
        grey = np.uint8(np.minimum(picture * 16, 255))
        Image.fromarray(grey).resize((32, 32)).save(folder / f"{n}.png")
    items = pl.DataFrame(
        {
            "item_id": [f"p{n:04d}" for n in range(len(kind))],
            "title": ["Print"] * len(kind),
            "image_path": [str(folder / f"{n}.png") for n in range(len(kind))],
        }
    )
    liked = np.stack([rng.choice(10, 2, replace=False) for _ in range(PEOPLE)])
    rows = []
    for person in range(PEOPLE):
        weight = np.where(np.isin(kind[:OLD], liked[person]), 1.0, 0.0)
        weight = 0.9 * weight / weight.sum() + 0.1 / OLD
        for item in rng.choice(OLD, BOUGHT, replace=False, p=weight / weight.sum()):
            at = START + timedelta(minutes=int(rng.integers(0, 200 * 1440)))
            rows.append((f"u{person:03d}", f"p{item:04d}", "purchase", at))
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "happened_at"], orient="row")
    return items, events, kind, liked


def measure(
    items: pl.DataFrame,
    events: pl.DataFrame,
    kind: np.ndarray,
    liked: np.ndarray,
    encoder: Any,
    share: float,
    seed: int,
) -> list[float]:
    """precision@10 of all new prints and of those with a picture, and the share of the same digit in similar items."""
    rng = np.random.default_rng(seed + 1)
    has = rng.permutation(len(kind)) < share * len(kind)
    own = items.with_columns(image_path=pl.when(pl.Series(has)).then("image_path"))
    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(Path(folder) / "prints.duckdb", encoder=m6_stand_in())
        m6.load(con, items=own, events=events)
        if share > 0:
            m6.add_vectors(con, "picture", encoder=encoder)
        m6.build(con)
        new = np.arange(len(kind)) >= OLD
        con.execute(
            "create table everything as select unnest(?) as item_id",
            [items.filter(pl.Series(new))["item_id"].to_list()],
        )
        con.execute(
            "create table with_picture as select unnest(?) as item_id",
            [items.filter(pl.Series(new & has))["item_id"].to_list() or ["none"]],
        )
        con.execute("create table people as select distinct user_id from m6.events")
        found = []
        for among in ("everything", "with_picture"):
            rows = con.execute(
                f"select user_id, item_id from m6.recommend_many('people', k := 10, among := '{among}')"
            ).fetchall()
            hits = [kind[int(item[1:])] in liked[int(user[1:])] for user, item in rows]
            found.append(float(np.mean(hits)) if hits and (among == "everything" or share > 0) else float("nan"))
        asked = [n for n in rng.permutation(np.flatnonzero(has))[:200].tolist()]
        same = []
        for n in asked:
            near = con.execute("select item_id from m6.similar_items($i)", {"i": f"p{n:04d}"}).fetchall()
            same.append(np.mean([kind[int(item[1:])] == kind[n] for (item,) in near]))
        con.close()
    return [*found, float(np.mean(same)) if same else float("nan")]


def m6_stand_in() -> Any:
    """Titles say nothing here: no language model is needed."""
    from m6rec_udf.embed import HashEncoder

    return HashEncoder(32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        items, events, kind, liked = world(Path(folder), given.seed)
        clip = tiny_clip.save(Path(folder) / "clip")
        print("| encoder | items with a picture | precision@10, new | of them with a picture | similar |")
        print("|---|---|---|---|---|")
        for name, encoder in (("pixels", Pixels()), ("random CLIP", clip)):
            for share in (1.0, 0.75, 0.5, 0.25, 0.0) if name == "pixels" else (1.0,):
                found = measure(items, events, kind, liked, encoder, share, given.seed)
                print(f"| {name} | {share:.0%} | " + " | ".join(f"{value:.3f}" for value in found) + " |", flush=True)


if __name__ == "__main__":
    main()
