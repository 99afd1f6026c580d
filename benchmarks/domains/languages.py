"""Languages: does a question in one language find items written in another?

    python benchmarks/domains/languages.py                      (the default encoder: English)
    python benchmarks/domains/languages.py --encoder multilingual   (pip install 'm6rec[languages]')

Forty items and forty questions in both languages, written for this (tests/bilingual_items.py): a small sample, meant
to tell an encoder that can from one that cannot, not to rank encoders.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl

import m6rec_udf as m6

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from bilingual_items import THINGS, catalogue, questions

ASKED = (("en", "en"), ("zh", "zh"), ("en", "zh"), ("zh", "en"), ("other", "mixed"))


def ranks(encoder: str | None, asked: str, written: str) -> np.ndarray:
    """Place of the item that is asked for, from 1."""
    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(Path(folder) / "words.duckdb", encoder=encoder)
        m6.load(con, items=pl.DataFrame(catalogue(written), schema=["item_id", "title"], orient="row"))
        m6.build(con)
        found = []
        for item, question in questions(asked):
            sql = "select item_id from m6.search_items($q, k := 100) order by rank"
            found.append([row[0] for row in con.execute(sql, {"q": question}).fetchall()].index(item) + 1)
        con.close()
    return np.asarray(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder")
    given = parser.parse_args()
    print(f"encoder {given.encoder or 'all-MiniLM-L6-v2'}, {len(THINGS)} items; by chance recall@1 0.025, @5 0.125")
    print("| question | items | recall@1 | recall@5 |\n|---|---|---|---|")
    for asked, written in ASKED:
        place = ranks(given.encoder, asked, written)
        print(f"| {asked} | {written} | {np.mean(place <= 1):.3f} | {np.mean(place <= 5):.3f} |", flush=True)


if __name__ == "__main__":
    main()
