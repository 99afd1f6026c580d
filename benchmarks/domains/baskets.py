"""Complete the basket: one line of an invoice is hidden, the others are the basket so far.

    python benchmarks/domains/baskets.py --path online_retail_ii
    python benchmarks/domains/baskets.py --path online_retail_ii --validation
    python benchmarks/domains/baskets.py --data grocery --encoder static

Online Retail II or Complete Journey. A basket is what one customer bought at one moment; those of the last tenth of the
events with at least 3 products known before the split are asked about, 4,000 of them at most (2,000 of Complete
Journey); the hidden product is drawn with a seed. Everybody sees the events up to the split and ranks the whole
catalogue without the basket. Every baseline has its settings chosen on the slice before the split (``--validation``
prints that slice). Means over baskets with 95 % bootstrap intervals; differences are paired.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))

import common  # noqa: F401 - holds BLAS to one thread
import duckdb
import numpy as np
import polars as pl
import scipy.sparse as sp
from cross_domain import interval

import m6rec_udf as m6
from m6rec_udf import datasets

MOST_BASKETS = 4000
K = 10
HALF_LIVES_DAYS = (3.5, 7, 14, 30, 90, 10_000)
RIDGES = (5.0, 20.0, 50.0, 200.0)
MOST_ITEMS = 6000  # of the closed form: the most popular ones


class Baskets:
    """Baskets up to a moment as a matrix, and the questions after it."""

    def __init__(self, events: pl.DataFrame, split: datetime, seed: int, most: int = MOST_BASKETS) -> None:
        bought = events.filter(pl.col("event_type") == "purchase").select("user_id", "item_id", "happened_at").unique()
        bought = bought.sort("user_id", "happened_at", "item_id")
        before, after = bought.filter(pl.col("happened_at") <= split), bought.filter(pl.col("happened_at") > split)
        self.split = split
        self.items = before["item_id"].unique().sort().to_list()
        code = pl.DataFrame({"item_id": self.items, "code": np.arange(len(self.items))})
        before = before.join(code, on="item_id").with_columns(
            basket=pl.struct("user_id", "happened_at").rank("dense").cast(pl.Int64) - 1
        )
        size = int(before["basket"].max()) + 1  # type: ignore[arg-type]
        cells = (before["basket"].to_numpy(), before["code"].to_numpy())
        self.x = sp.csr_matrix((np.ones(len(before)), cells), (size, len(self.items)))
        age = ((pl.lit(split) - pl.col("happened_at")).dt.total_seconds() / 86400).alias("age")
        self.age, self.code = before.select(age)["age"].to_numpy(), before["code"].to_numpy()
        asked = after.join(code, on="item_id").group_by("user_id", "happened_at", maintain_order=True).agg("code")
        asked = asked.filter(pl.col("code").list.len() >= 3)
        generator = np.random.default_rng(seed)
        if len(asked) > most:
            asked = asked[np.sort(generator.choice(len(asked), most, replace=False))]
        self.users, self.moments = asked["user_id"].to_list(), asked["happened_at"].to_list()
        codes = [np.sort(np.asarray(own)) for own in asked["code"].to_list()]
        hidden = [int(generator.integers(len(own))) for own in codes]
        self.target = np.asarray([own[at] for own, at in zip(codes, hidden, strict=True)])
        self.given = [np.delete(own, at) for own, at in zip(codes, hidden, strict=True)]
        row = np.repeat(np.arange(len(self.given)), [len(own) for own in self.given])
        cells = (row, np.concatenate(self.given))
        self.q = sp.csr_matrix((np.ones(len(row)), cells), (len(self.given), len(self.items)))

    def popular(self, half_life: float) -> np.ndarray:
        """Decayed number of baskets of every item."""
        return np.bincount(self.code, 0.5 ** (self.age / half_life), len(self.items))


def ranks(scores: np.ndarray, baskets: Baskets, start: int) -> np.ndarray:
    """Rank of the hidden item of each basket from ``start`` on, from 1; ties by item."""
    rows = np.arange(len(scores))
    block = baskets.q[start : start + len(scores)].tocoo()
    scores[block.row, block.col] = -np.inf
    target = baskets.target[start : start + len(scores)]
    own = scores[rows, target][:, None]
    earlier = np.arange(scores.shape[1]) < target[:, None]
    return 1 + (scores > own).sum(1) + ((scores == own) & earlier).sum(1)


def gains(rank: np.ndarray) -> np.ndarray:
    """NDCG@10 of one target each."""
    return np.where(rank <= K, 1 / np.log2(rank + 1), 0.0)


def scored(baskets: Baskets, weights: Any, prior: np.ndarray, share: float) -> np.ndarray:
    """Ranks by the sum of the weights of the basket's items, times popularity to a power."""
    out = []
    factor = (prior + 1e-3) ** share
    for start in range(0, baskets.q.shape[0], 500):
        block = baskets.q[start : start + 500] @ weights
        block = block.toarray() if sp.issparse(block) else np.asarray(block)
        out.append(ranks(np.maximum(block, 0) * factor + 1e-12 * prior, baskets, start))
    return np.concatenate(out)


def cosine(x: sp.csr_matrix) -> sp.csr_matrix:
    """Cosines of items over baskets."""
    together = (x.T @ x).tocsr()
    count = together.diagonal()
    together.setdiag(0)
    scale = sp.diags(1 / np.sqrt(np.maximum(count, 1) + 5))
    return (scale @ together @ scale).tocsr()


def closed_form(x: sp.csr_matrix, ridge: float) -> Any:
    """EASE (Steck 2019) over baskets instead of users; of the most popular items where there are many."""
    head = np.sort(np.argsort(-np.asarray(x.sum(0)).ravel(), kind="stable")[:MOST_ITEMS])
    gram = (x[:, head].T @ x[:, head]).toarray()
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    if len(head) == x.shape[1]:
        return weights
    row, column = np.repeat(head, len(head)), np.tile(head, len(head))
    return sp.csr_matrix((weights.ravel(), (row, column)), (x.shape[1], x.shape[1]))


def methods(baskets: Baskets, chosen: dict[str, Any] | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Ranks of every baseline; with the settings given, else the best on these baskets."""
    best: dict[str, tuple[float, Any, np.ndarray]] = {}

    def tried(name: str, setting: Any, rank: np.ndarray) -> None:
        value = float(gains(rank).mean())
        if name not in best or value > best[name][0]:
            best[name] = value, setting, rank

    zero = sp.csr_matrix((len(baskets.items), len(baskets.items)))
    near = cosine(baskets.x)
    for half_life in HALF_LIVES_DAYS if chosen is None else (chosen["recently popular"],):
        tried("recently popular", half_life, scored(baskets, zero, baskets.popular(half_life), 1.0))
    grid = [(h, s) for h in HALF_LIVES_DAYS for s in (0.0, 0.25, 0.5)] if chosen is None else [chosen["basket cosine"]]
    for half_life, share in grid:
        tried("basket cosine", (half_life, share), scored(baskets, near, baskets.popular(half_life), share))
    grid = [(r, h, s) for r in RIDGES for h in (7, 30) for s in (0.0, 0.25, 0.5)]
    weights: dict[float, np.ndarray] = {}
    for ridge, half_life, share in grid if chosen is None else [chosen["EASE over baskets"]]:
        if ridge not in weights:
            weights = {ridge: closed_form(baskets.x, ridge)}
        rank = scored(baskets, weights[ridge], baskets.popular(half_life), share)
        tried("EASE over baskets", (ridge, half_life, share), rank)
    return {name: rank for name, (_, _, rank) in best.items()}, {name: s for name, (_, s, _) in best.items()}


def complete(con: duckdb.DuckDBPyConnection, baskets: Baskets, *, with_user: bool) -> np.ndarray:
    """Ranks of m6.complete_basket; 10,000 where the hidden item is not in the list."""
    out = np.full(len(baskets.given), 10_000)
    con.execute("create or replace temp table asked_baskets (basket bigint, user_id varchar, items varchar[])")
    rows = [
        (at, user if with_user else None, [baskets.items[c] for c in own])
        for at, (user, own) in enumerate(zip(baskets.users, baskets.given, strict=True))
    ]
    frame = pl.DataFrame(
        rows, schema=["basket", "user_id", "items"], orient="row", schema_overrides={"user_id": pl.String}
    )
    con.register("asked_frame", frame.to_arrow())
    con.execute("insert into asked_baskets from asked_frame")
    found = con.execute("select basket, item_id, rank from m6.complete_baskets('asked_baskets', k := 10)").fetchall()
    code = {item: at for at, item in enumerate(baskets.items)}
    for basket, item, rank in found:
        if code.get(item) == baskets.target[int(basket)]:
            out[int(basket)] = rank
    return out


def main() -> None:
    """Load, build as of the split, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("online-retail", "grocery"), default="online-retail")
    parser.add_argument("--path", help="folder of Online Retail II")
    parser.add_argument("--encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--no-m6rec", action="store_true", help="baselines alone")
    parser.add_argument("--keep", help="keep the built file under this name; it is used where it is there")
    given = parser.parse_args()
    if given.data == "online-retail" and not given.path:
        parser.error("online-retail needs --path, the folder of Online Retail II")
    data = datasets.grocery() if given.data == "grocery" else datasets.online_retail(given.path)
    most = MOST_BASKETS if given.data == "online-retail" else 2000
    events = data["events"]
    split = events["happened_at"].quantile(0.9, "higher")
    past = events.filter(pl.col("happened_at") <= split)
    earlier = past["happened_at"].quantile(0.9, "higher")
    _, chosen = methods(Baskets(past, earlier, given.seed, most), None)  # type: ignore[arg-type]
    print("chosen on the slice before the split:", chosen, flush=True)
    if given.validation:
        events, split = past, earlier
    baskets = Baskets(events, split, given.seed, most)  # type: ignore[arg-type]
    found, _ = methods(baskets, chosen)
    if not given.no_m6rec:
        con = m6.connect(given.keep or ":memory:", encoder=given.encoder)
        if not con.execute("select model_version from m6.active").fetchall()[0][0]:
            m6.load(con, **{**data, "events": events})
            m6.build(con, as_of=split, seed=given.seed)  # type: ignore[arg-type]
            con.execute("delete from m6.events where happened_at > ?", [split])
        begin = time.process_time()
        found = {
            "m6.complete_baskets": complete(con, baskets, with_user=False),
            "m6.complete_baskets, customer known": complete(con, baskets, with_user=True),
            **found,
        }
        print(f"asked in {time.process_time() - begin:.0f} s of processor time")
    print(f"\n{len(baskets.target):,} baskets, NDCG@10 (one hidden product each) and hit rate@10")
    for name, rank in found.items():
        print(f"| {name} | {interval(gains(rank))} | {interval((rank <= K).astype(float))} |")
    names = list(found)
    for first in names[: 1 if given.no_m6rec else 2]:
        for name in names[names.index(first) + 1 :]:
            print(f"| {first} - {name} | {interval(gains(found[first]) - gains(found[name]))} |")


if __name__ == "__main__":
    main()
