"""Option tuning: a map learned over a frozen encoder in one place, used in another that has no behaviour.

    python benchmarks/domains/option_tuning.py --from grocery --to grocery     (departments apart)
    python benchmarks/domains/option_tuning.py --from movielens --to ml-100k --path FOLDER
    python benchmarks/domains/option_tuning.py --from grocery --to online-retail --path FOLDER     (or back)

From ``grocery`` to ``grocery``: behaviour with the products of the Grocery department teaches the map; all other
departments are where it is used, and no event of theirs is read by it. Films: learned from MovieLens, used on MovieLens
100K, films whose title is in both left out of what is learned. Between Complete Journey and Online Retail II: all
products, of Complete Journey those bought at least 5 times.

In the second place a person is the mean of the text vectors of what they liked first (four fifths of it); targets are
what they liked later and not before. Ranked by cosine alone: no popularity, no behaviour. ``--slice validation`` takes
half of the people, by a hash of their name, ``test`` the other half; share and ridge were chosen on the first.
``--fine-tune`` compares the contrastive fine-tune of the encoder, learned from the same behaviour.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import polars as pl

import m6rec_udf as m6
from m6rec_udf import datasets
from m6rec_udf.embed import as_encoder, embed_texts, unit

K = 20


def places(given: argparse.Namespace) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Frames of where it is learned and of where it is used."""
    if given.source == given.to == "grocery":
        data = bought_often()
        first = pl.col("tags").list.contains("Grocery")
        parts = [data["items"].filter(first), data["items"].filter(~first.fill_null(value=False))]
        return tuple({"items": part, "events": data["events"].join(part, on="item_id", how="semi")} for part in parts)  # type: ignore[return-value]
    if {given.source, given.to} == {"grocery", "online-retail"}:
        both = {"grocery": bought_often(), "online-retail": datasets.online_retail(given.path)}
        return both[given.source], both[given.to]
    one, other = datasets.movielens(), datasets.movielens_100k(given.path)
    plain = lambda title: re.sub(r"[^a-z]|\(.*?\)|^the |, the", "", title.lower())  # noqa: E731
    known = {plain(title) for title in other["items"]["title"].to_list()}
    titles = one["items"].filter(pl.col("title").is_not_null())
    new = titles.filter(~pl.col("title").map_elements(plain, return_dtype=pl.String).is_in(list(known)))
    return {"items": new, "events": one["events"].join(new, on="item_id", how="semi")}, other


def bought_often() -> dict[str, pl.DataFrame]:
    """Complete Journey, products bought at least 5 times."""
    data = datasets.grocery()
    often = data["events"].group_by("item_id").agg(n=pl.len()).filter(pl.col("n") >= 5)
    return {name: data[name].join(often, on="item_id", how="semi") for name in ("items", "events")}


def liked(events: pl.DataFrame) -> pl.DataFrame:
    """What people liked, in time."""
    if "rating" in events["event_type"].unique():
        events = events.filter(pl.col("value") >= 4)
    return events.filter(pl.col("event_type") != "return").sort("happened_at", "user_id", "item_id")


class Second:
    """The place where the map is used: texts, what people liked first, what later."""

    def __init__(self, data: dict[str, pl.DataFrame], people: int, part: str, seed: int) -> None:
        with tempfile.TemporaryDirectory() as own, m6.connect(Path(own) / "texts.duckdb", encoder="static") as con:
            m6.load(con, items=data["items"])
            m6.build(con)
            # item texts as a build renders them
            rows = con.execute("select item_id, item_text from m6.stg_items order by item_idx").fetchall()
        self.ids = {item: at for at, (item, _) in enumerate(rows)}
        self.texts = [text or "" for _, text in rows]
        own = liked(data["events"]).group_by("user_id", maintain_order=True).agg("item_id")
        half = "01234567" if part == "validation" else "89abcdef"
        self.people: list[tuple[np.ndarray, set[int]]] = []
        names = [n for n in own["user_id"].to_list() if hashlib.sha256(n.encode()).hexdigest()[0] in half]
        chosen = set(np.random.default_rng(seed).permutation(sorted(names))[: 2 * people].tolist())
        for user, items in own.iter_rows():
            order = [self.ids[item] for item in items]
            cut = max(1, int(0.8 * len(order)))
            wanted = set(order[cut:]) - set(order[:cut])
            if user in chosen and wanted:
                self.people.append((np.asarray(order[:cut]), wanted))
        self.people = self.people[:people]

    def recall(self, vectors: np.ndarray) -> np.ndarray:
        """recall@20 of each person by cosine."""
        found = []
        for before, wanted in self.people:
            score = vectors @ unit(vectors[before].mean(0)[None])[0]
            score[before] = -np.inf
            best = np.argpartition(-score, K)[:K]
            found.append(len(wanted & set(best.tolist())) / len(wanted))
        return np.asarray(found)


def interval(values: np.ndarray, seed: int = 0) -> str:
    """Mean and its 95 % bootstrap interval over people."""
    means = np.random.default_rng(seed).choice(values, (1000, len(values))).mean(1)
    return f"{values.mean():+.4f} ({np.quantile(means, 0.025):+.4f} to {np.quantile(means, 0.975):+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", required=True, choices=("grocery", "movielens", "online-retail"))
    parser.add_argument("--to", required=True, choices=("grocery", "ml-100k", "online-retail"))
    parser.add_argument("--path", help="folder of ml-100k or Online Retail II")
    parser.add_argument("--vectors", help="a DuckDB file with text vectors that are taken over")
    parser.add_argument("--encoder")
    parser.add_argument("--slice", default="test", choices=("test", "validation"))
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--fine-tune", action="store_true")
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if {given.source, given.to} not in ({"grocery"}, {"movielens", "ml-100k"}, {"grocery", "online-retail"}):
        parser.error(f"--from {given.source} --to {given.to} is not measured, see --help for the pairs")
    first, second = places(given)
    encoder = as_encoder(given.encoder)
    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(Path(folder) / "first.duckdb", encoder=given.encoder)
        if given.vectors:
            con.execute(f"attach '{given.vectors}' as other (read_only)")
            con.execute("insert into m6.text_vectors from other.m6.text_vectors on conflict do nothing")
        place = Second(second, given.people, given.slice, given.seed)
        m6.load(con, **first)
        m6.build(con)
        frozen, _ = embed_texts(con, encoder, place.texts)
        base = place.recall(frozen)
        chance = np.mean([K / (len(place.texts) - len(set(before.tolist()))) for before, _ in place.people])
        print(
            f"learned from {len(first['items'])} items, used on {len(place.texts)}, {len(base)} people, {given.slice}"
        )
        print(f"random {chance:.4f}\nfrozen encoder {interval(base)}")
        trials = [(share, ridge) for share in (0.25, 0.5, 0.75) for ridge in (1.0, 3.0, 30.0)]
        for share, ridge in trials if given.slice == "validation" else [(None, None)]:
            options: dict[str, Any] = {} if share is None else {"share": share, "ridge": ridge}
            learned = m6.learn_text_map(con, **options)
            found = place.recall(learned.mapped(frozen))
            name = f"with the map, share {learned.share:g}, ridge {learned.about['ridge']:g}"
            print(f"{name}: {interval(found)}, gain {interval(found - base)}", flush=True)
        if given.fine_tune:
            begin = time.process_time()
            path = Path(folder) / "tuned"
            m6.fine_tune(con, path, pairs=given.pairs, seed=given.seed)
            seconds = time.process_time() - begin
            tuned = as_encoder(str(path)).encode(place.texts)
            found = place.recall(tuned)
            print(
                f"fine-tuned on {given.pairs} pairs ({seconds:.0f} s): {interval(found)}, gain {interval(found - base)}"
            )
        con.close()


if __name__ == "__main__":
    main()
