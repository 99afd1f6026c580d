"""Zero-shot: a catalogue with texts and no events. What will people like next?

    python benchmarks/domains/zero_shot.py --data movielens
    python benchmarks/domains/zero_shot.py --data online-retail --path FOLDER
    python benchmarks/domains/zero_shot.py --data grocery

The file holds items (and profiles) and not one event. Behaviour is used twice, outside of the file: what a person
liked earlier becomes the question (a sentence with the titles of the last five, the last item, a profile), what they
liked later, and had not touched before, is the answer looked for.

``--split own`` (the default): earlier is the first 80 % of a person's own behaviour, and a fifth of the items, drawn by
the seed, is ``new``: no question and no count of popularity contains them. ``--split global``: earlier is the first
90 % of the log, ``new`` are the items nobody had touched by then.

``all``: every item. ``new``: only those, where a popularity list knows nothing about the items themselves; it ranks
them by the popularity of their category. Random: the mean over all orders, exactly.
``--likelihood`` adds the causal language model on ``--users`` people: it orders the 100 items the encoder finds.
Settings are looked at on the slice before the split only (``--slice validation``).
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import duckdb
import numpy as np
import polars as pl

import m6rec_udf as m6
from m6rec_udf import datasets

K = 20
SAID = 5


def load_data(name: str, path: str | None) -> dict[str, pl.DataFrame]:
    """Frames of one data set, items with a title."""
    if name == "online-retail":
        found = datasets.online_retail(path or "")
    else:
        found = datasets.movielens() if name == "movielens" else datasets.grocery()
    found["items"] = found["items"].filter(pl.col("title").is_not_null())
    return found


class Split:
    """What people liked before and after a moment."""

    def __init__(self, data: dict[str, pl.DataFrame], by: str, *, validation: bool, users: int, seed: int) -> None:
        events = data["events"].join(data["items"].select("item_id"), on="item_id", how="semi")
        if "rating" in events["event_type"].unique():
            events = events.with_columns(liked=pl.col("value") >= 4.0)
        else:
            events = events.with_columns(liked=pl.col("event_type") == "purchase")
        pairs = ["user_id", "item_id"]
        events = events.sort("happened_at", *pairs)
        items = data["items"]
        if by == "global":
            before, after, new = self._global(events, items, validation=validation)
            wanted = after
        else:
            before, after, new = self._own(events, items, validation=validation, seed=seed)
            wanted = pl.concat([after, new])
            new = pl.Series(self.all_new)
        self.popular = before.group_by("item_id").agg(n=pl.col("user_id").n_unique())
        liked = before.filter("liked").group_by(pairs).agg(pl.col("happened_at").max()).sort("happened_at", "item_id")
        self.seen = _lists(before.select(pairs).unique().sort(pairs))
        self.liked = _lists(liked)
        targets = (
            wanted.filter("liked").select(pairs).unique().join(before.select(pairs).unique(), on=pairs, how="anti")
        )
        everybody = _lists(targets.sort(pairs))
        people = sorted(user for user in everybody if user in self.liked)
        rng = np.random.default_rng(seed)
        self.people = sorted(rng.choice(people, min(users, len(people)), replace=False).tolist())
        self.targets = {user: set(everybody[user]) for user in self.people}
        self.new = sorted(new.to_list())

    def _global(
        self, events: pl.DataFrame, items: pl.DataFrame, *, validation: bool
    ) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series]:
        cut = events["happened_at"].quantile(0.9, "higher")
        if validation:
            events = events.filter(pl.col("happened_at") <= cut)
            cut = events["happened_at"].quantile(0.9, "higher")
        before, after = (events.filter(when) for when in (pl.col("happened_at") <= cut, pl.col("happened_at") > cut))
        if "created_at" in items.columns:
            items = items.filter(pl.col("created_at").is_null() | (pl.col("created_at") <= cut))
        self.catalogue = items["item_id"].to_list()
        return before, after, items.join(before, on="item_id", how="anti")["item_id"]

    def _own(
        self, events: pl.DataFrame, items: pl.DataFrame, *, validation: bool, seed: int
    ) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Behaviour before, after, and with new items; validation: of the earlier part, with other new items."""
        self.catalogue = items["item_id"].to_list()
        order = np.random.default_rng(seed).permutation(sorted(self.catalogue))
        fifth = len(order) // 5
        place = pl.int_range(pl.len()).over("user_id") / pl.len().over("user_id")
        if validation:
            events = events.filter(~pl.col("item_id").is_in(order[:fifth].tolist())).filter(place < 0.8)
            order = order[fifth:]
            self.catalogue = sorted(order.tolist())
        is_new = pl.col("item_id").is_in(order[:fifth].tolist())
        new = items.select("item_id").filter(is_new).join(events, on="item_id", how="left").select(events.columns)
        self.all_new = sorted(order[:fifth].tolist())
        old = events.filter(~is_new).with_columns(place=place)
        before, after = (old.filter(when).drop("place") for when in (pl.col("place") < 0.8, pl.col("place") >= 0.8))
        return before, after, new.drop_nulls("user_id")


def _lists(frame: pl.DataFrame) -> dict[str, list[str]]:
    grouped = frame.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(zip(grouped["user_id"].to_list(), grouped["item_id"].to_list(), strict=True))


def recall(lists: dict[str, list[str]], targets: dict[str, set[str]]) -> np.ndarray:
    """Recall@20 of each person with a target."""
    return np.asarray(
        [len(set(lists.get(user, [])[:K]) & wanted) / len(wanted) for user, wanted in targets.items() if wanted]
    )


def interval(values: np.ndarray, seed: int = 0) -> str:
    """Mean and its 95 % bootstrap interval over people."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (1000, len(values))).mean(1)
    return f"{values.mean():.4f} ({np.quantile(means, 0.025):.4f} to {np.quantile(means, 0.975):.4f})"


def ask(con: duckdb.DuckDBPyConnection, split: Split, sql: str, said: dict[str, Any], among: str) -> dict[str, Any]:
    """The best items of every person that are new to them."""
    lists = {}
    for user, question in said.items():
        seen = set(split.seen[user])
        rows = con.execute(
            f"select item_id from {sql} order by rank", {"q": question, "k": K + len(seen), "among": among}
        ).fetchall()
        lists[user] = [item for (item,) in rows if item not in seen]
    return lists


def profiles(data: dict[str, pl.DataFrame], split: Split) -> dict[str, str]:
    """Profiles that say something: of households as the data has them, of film lovers the genres they liked most."""
    if "users" in data and "profile" in data["users"].columns:
        own = dict(zip(data["users"]["user_id"].to_list(), data["users"]["profile"].to_list(), strict=True))
        return {user: own[user] for user in split.people if own.get(user)}
    if "tags" not in data["items"].columns:
        return {}
    tags = dict(zip(data["items"]["item_id"].to_list(), data["items"]["tags"].to_list(), strict=True))
    found = {}
    for user in split.people:
        counts: dict[str, int] = {}
        for item in split.liked[user]:
            for tag in tags[item] or []:
                counts[tag] = counts.get(tag, 0) + 1
        best = sorted(counts, key=lambda tag: (-counts[tag], tag))[:3]
        if best:
            found[user] = "likes " + ", ".join(best)
    return found


def popularity(data: dict[str, pl.DataFrame], split: Split, among: list[str]) -> list[str]:
    """Items by popularity before the split; new ones by that of their category."""
    items = data["items"].join(split.popular, on="item_id", how="left").with_columns(pl.col("n").fill_null(0))
    if "category" in items.columns:
        items = items.with_columns(of_category=pl.col("n").sum().over("category"))
    else:
        items = items.with_columns(of_category=pl.lit(0))
    order = items.filter(pl.col("item_id").is_in(among)).sort(
        ["n", "of_category", "item_id"], descending=[True, True, False]
    )
    return order["item_id"].to_list()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, choices=("movielens", "online-retail", "grocery"))
    parser.add_argument("--path", help="folder of online-retail")
    parser.add_argument("--keep", help="a DuckDB file with the catalogue, kept for the next run")
    parser.add_argument("--split", default="own", choices=("own", "global"))
    parser.add_argument("--slice", default="test", choices=("test", "validation"))
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--likelihood", action="store_true")
    parser.add_argument("--encoder")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = load_data(given.data, given.path)
    split = Split(data, given.split, validation=given.slice == "validation", users=given.users, seed=given.seed)
    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(given.keep or Path(folder) / "catalogue.duckdb", encoder=given.encoder)
        if not con.execute("select count(*) from m6.items").fetchall()[0][0]:
            m6.load(con, items=data["items"], **({"users": data["users"]} if "users" in data else {}))
            m6.build(con)
        report(con, data, split, given)
        con.close()


def report(
    con: duckdb.DuckDBPyConnection, data: dict[str, pl.DataFrame], split: Split, given: argparse.Namespace
) -> None:
    """Print a line per question and list."""
    title = dict(zip(data["items"]["item_id"].to_list(), data["items"]["title"].to_list(), strict=True))
    liked = {user: [title[item] for item in split.liked[user][-SAID:]] for user in split.people}
    questions: dict[str, tuple[str, dict[str, Any]]] = {
        "sentence": (
            "m6.recommend_for_text($q, k := $k, among := $among)",
            {user: "I like " + ", ".join(names) for user, names in liked.items()},
        ),
        "one item": (
            "m6.similar_items($q, k := $k, among := $among)",
            {user: split.liked[user][-1] for user in split.people},
        ),
        "profile": ("m6.recommend_for_text($q, k := $k, among := $among)", profiles(data, split)),
    }
    con.execute("create or replace table zs_all as select unnest(?) as item_id", [split.catalogue])
    con.execute("create or replace table zs_new as select unnest(?) as item_id", [split.new])
    print(f"{given.data}, {given.slice}: {given.split} split, {len(split.people)} people, no event in the file")
    for name, among in (("all", split.catalogue), ("new", split.new)):
        inside = set(among)
        targets = {user: wanted & inside for user, wanted in split.targets.items()}
        targets = {user: wanted for user, wanted in targets.items() if wanted}
        seen = {user: set(split.seen[user]) for user in targets}
        print(f"\n{name}: {len(among)} items, {len(targets)} people with a target")
        if not targets:
            continue
        chance = {user: min(1.0, K / max(1, len(inside - seen[user] if name == "all" else inside))) for user in targets}
        random = float(np.mean(list(chance.values())))
        print(f"  random                {random:.4f}")
        order = popularity(data, split, among)
        best = {user: list(islice((i for i in order if i not in seen[user]), K)) for user in targets}
        print(f"  popularity            {interval(recall(best, targets))}")
        for question, (sql, said) in questions.items():
            mine = {user: said[user] for user in targets if user in said}
            if not mine:
                continue
            begin = time.process_time()
            found = recall(ask(con, split, sql, mine, f"zs_{name}"), {user: targets[user] for user in mine})
            seconds = time.process_time() - begin
            base = float(np.mean([chance[user] for user in mine]))
            popular = recall(best, {user: targets[user] for user in mine}).mean()
            print(
                f"  {question:<21} {interval(found)}  {found.mean() / base:5.1f} x random, popularity of the same "
                f"{len(mine)} people {popular:.4f}, {1000 * seconds / len(mine):.0f} ms each",
                flush=True,
            )
        if given.likelihood:
            likelihood(con, split, liked, targets, f"zs_{name}", given)


def likelihood(
    con: duckdb.DuckDBPyConnection,
    split: Split,
    liked: dict[str, list[str]],
    targets: dict[str, set[str]],
    among: str,
    given: argparse.Namespace,
) -> None:
    """The language model over the items the encoder finds, and the encoder over the same."""
    from m6rec_udf.language_model import LanguageModel

    model = LanguageModel()
    begin = time.process_time()
    kinds = {"likelihood": False} | ({"over that of anybody": True} if given.slice == "validation" else {})
    found: dict[str, dict[str, list[str]]] = {name: {} for name in ("encoder", *kinds, "both")}
    for user in targets:
        con.execute("create or replace temp table zs_seen as select unnest(?) as item_id", [split.seen[user]])
        con.execute(f"create or replace table zs_pool as from {among} anti join zs_seen using (item_id)")
        for name, compared in kinds.items():
            ranked = m6.rank_by_likelihood(
                con, liked[user], k=100, pool=100, among="zs_pool", model=model, compared=compared
            )
            found[name][user] = ranked["item_id"].to_list()
        near = ranked.sort(["similarity", "item_id"], descending=[True, False])["item_id"].to_list()
        found["encoder"][user] = near
        places = {item: at + near.index(item) for at, item in enumerate(found["likelihood"][user])}
        found["both"][user] = sorted(places, key=lambda item: (places[item], item))
    pool = {user: set(items) & targets[user] for user, items in found["encoder"].items()}
    reached = np.mean([len(pool[user]) / len(targets[user]) for user in targets])
    seconds = (time.process_time() - begin) / max(1, len(targets))
    print(f"  the 100 nearest hold {reached:.4f} of the targets; {seconds:.1f} s of processor time each")
    for name, lists in found.items():
        print(f"    by {name:<21} {interval(recall(lists, targets))}")


if __name__ == "__main__":
    main()
