"""Users new to a domain: their events in one domain are hidden, their history elsewhere serves it.

    python benchmarks/domains/cross_domain.py
    python benchmarks/domains/cross_domain.py --encoder static --validation
    python benchmarks/domains/cross_domain.py --data online-retail --path online_retail_ii
    python benchmarks/domains/cross_domain.py --data movielens
    python benchmarks/domains/cross_domain.py --data ml-100k --path FOLDER

Domains of one file: the eleven largest departments of Complete Journey, families of products of Online Retail II by a
word of their title, or films by their first genre. Of the people with behaviour in a domain in the test slice (the last
tenth of the events) a fifth is new to it: all they had done there before is hidden from the build and from the
baselines. Nobody is new to more than one domain. Asked is `recommend(user, in_domain := domain)`; targets are what they
bought in the domain after the split. Most people of MovieLens come once: there a fifth is new by having all they ever
rated in the domain hidden, everybody is asked at their last rating elsewhere, and targets are what they rated with four
stars or more. ``--validation`` leaves the test alone: it ends where the test slice begins; of MovieLens, it hides
another fifth and what the test hides stays hidden. Baselines see the same events and count purchases or such ratings;
the half-life of the domain's recently-popular list is chosen per domain on the slice before the split, on everybody who
bought there. Means over people with 95 % bootstrap intervals, differences paired.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))

import duckdb
import numpy as np
import polars as pl
import scipy.sparse as sp

import m6rec_udf as m6
from m6rec_udf import datasets
from m6rec_udf.calibration import calibration
from m6rec_udf.collaborative import ease

DOMAINS = 11
HIDDEN_SHARE = 0.2
HALF_LIVES_DAYS = (2, 4, 7, 14, 30, 60, 120, 10_000)
COLUMNS = ("user_id", "item_id", "rank")
MOST_ITEMS = 6000
LEAST_RATINGS = 1000  # of a genre that is a domain
FAMILIES = {  # the first that a word of the title stands in
    "christmas": "christmas advent xmas reindeer",
    "bags": "bag bags lunchbag shopper",
    "candles": "candle candles holder t-light lantern incense",
    "kitchen": "mug bowl plate plates tea teapot cake baking jar tin kitchen cutlery apron egg",
    "jewellery": "necklace bracelet earrings ring brooch jewellery",
    "stationery": "card cards paper wrap wrapping notebook pen pencil pencils sticker stickers ribbon",
    "garden": "garden flower flowers plant herb watering",
    "children": "children childrens doll toy baby girl boy dolly",
}


def by_department() -> dict[str, pl.DataFrame]:
    """Complete Journey with the eleven largest departments as domains; the rest is left out."""
    data = datasets.grocery()
    departments = data["items"].select("item_id", domain=pl.col("tags").list.first())
    lines = data["events"].join(departments, on="item_id")
    largest = lines.group_by("domain").len().sort("len", "domain", descending=[True, False]).head(DOMAINS)["domain"]
    items = (
        data["items"].drop("domain").join(departments.filter(pl.col("domain").is_in(largest.implode())), on="item_id")
    )
    return {**data, "items": items, "events": data["events"].join(items, on="item_id", how="semi")}


def by_genre(data: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Films with their first genre as domain, of the genres with at least 1,000 ratings."""
    items = data["items"].with_columns(domain=pl.col("tags").list.first())
    counted = data["events"].join(items.select("item_id", "domain"), on="item_id").group_by("domain").len()
    large = counted.filter((pl.col("len") >= LEAST_RATINGS) & pl.col("domain").is_not_null())["domain"]
    items = items.filter(pl.col("domain").is_in(large.implode()))
    return {**data, "items": items, "events": data["events"].join(items, on="item_id", how="semi")}


def by_family(data: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Products with FAMILIES as domains; the rest is left out."""
    word = pl.col("title").str.to_lowercase().str.split(" ")
    family = pl.coalesce(
        pl.when(word.list.set_intersection(pl.lit(words.split(" "))).list.len() > 0).then(pl.lit(name))
        for name, words in FAMILIES.items()
    )
    items = data["items"].with_columns(domain=family).drop_nulls("domain")
    return {**data, "items": items, "events": data["events"].join(items, on="item_id", how="semi")}


def domains_of(name: str, path: str | None) -> dict[str, pl.DataFrame]:
    """A data set with its domains."""
    if name == "grocery":
        return by_department()
    if name == "movielens":
        return by_genre(datasets.movielens())
    if path is None:
        raise SystemExit(f"{name} needs --path, the folder of its files")
    return by_genre(datasets.movielens_100k(path)) if name == "ml-100k" else by_family(datasets.online_retail(path))


def successes(events: pl.DataFrame) -> pl.DataFrame:
    """Purchases, and ratings with four stars or more."""
    kind = pl.col("event_type")
    return events.filter((kind == "purchase") | ((kind == "rating") & (pl.col("value") >= 4)))


def newcomers(tested: pl.DataFrame, seed: int) -> pl.DataFrame:
    """(user_id, domain): a fifth of the users tested in each domain, nobody in two."""
    shuffled = (
        tested.select("user_id", "domain")
        .unique()
        .sort("user_id", "domain")
        .sample(fraction=1.0, shuffle=True, seed=seed)
    )
    wanted = (
        shuffled.group_by("domain").len().with_columns(wanted=(pl.col("len") * HIDDEN_SHARE).round().cast(pl.Int64))
    )
    left = dict(wanted.select("domain", "wanted").iter_rows())
    taken: dict[str, str] = {}
    for user, domain in shuffled.iter_rows():  # the smallest domains choose first
        if user not in taken and left[domain] > 0:
            taken[user] = domain
            left[domain] -= 1
    return pl.DataFrame({"user_id": list(taken), "domain": list(taken.values())})


def ndcg(lists: pl.DataFrame, targets: pl.DataFrame, users: pl.DataFrame, k: int) -> np.ndarray:
    """NDCG@k of each of the users, in their order."""
    hits = lists.join(targets, on=["user_id", "item_id"], how="semi")
    gain = hits.group_by("user_id").agg(dcg=(1 / (pl.col("rank") + 1).log(2)).sum())
    best = targets.group_by("user_id").agg(n=pl.len().clip(upper_bound=k))
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    table = users.join(best, on="user_id", how="left", maintain_order="left")
    table = table.join(gain, on="user_id", how="left", maintain_order="left")
    return table["dcg"].fill_null(0.0).to_numpy() / ideal[table["n"].to_numpy()]


def trend(events: pl.DataFrame, as_of: datetime, half_life: float, k: int) -> pl.DataFrame:
    """(domain, item_id, rank): the k items of each domain with most decayed behaviour."""
    age = (pl.lit(as_of) - pl.col("happened_at")).dt.total_seconds() / 86400
    scored = events.group_by("domain", "item_id").agg(score=(0.5 ** (age / half_life)).sum())
    ranked = scored.sort("score", "item_id", descending=[True, False])
    return ranked.with_columns(rank=pl.int_range(1, pl.len() + 1).over("domain")).filter(pl.col("rank") <= k)


def chosen_half_lives(events: pl.DataFrame, as_of: datetime, k: int) -> dict[str, float]:
    """Half-life of each domain's recently-popular list: the best one on the last tenth of the events."""
    cut = events["happened_at"].quantile(0.9, "higher")
    before, after = events.filter(pl.col("happened_at") <= cut), events.filter(pl.col("happened_at") > cut)
    best: dict[str, tuple[float, float]] = {}
    for half_life in HALF_LIVES_DAYS:
        top = trend(before, cut, half_life, k)  # type: ignore[arg-type]
        for (domain,), bought in after.group_by("domain"):
            targets = bought.select("user_id", "item_id").unique()
            users = targets.select("user_id").unique().sort("user_id")
            lists = users.join(top.filter(pl.col("domain") == domain), how="cross")
            value = float(ndcg(lists, targets, users, k).mean())
            if value > best.get(str(domain), (-1.0, 0.0))[0]:
                best[str(domain)] = value, half_life
    return {domain: half_life for domain, (_, half_life) in best.items()}


def closed_form(liked: pl.DataFrame, new: pl.DataFrame, items: pl.DataFrame, k: int) -> pl.DataFrame:
    """EASE (Steck 2019) over users and the 6,000 most popular items, lambda 0.2 per user; ties by popularity."""
    counted = liked.group_by("item_id").len().sort("len", "item_id", descending=[True, False]).head(MOST_ITEMS)
    known = counted.join(items.select("item_id", "domain"), on="item_id", maintain_order="left")
    people = pl.concat([liked.select("user_id"), new.select("user_id")]).unique().sort("user_id").with_row_index("row")
    pairs = liked.select("user_id", "item_id").unique().join(people, on="user_id")
    pairs = pairs.join(known.with_row_index("column"), on="item_id")
    cells = (pairs["row"].to_numpy().astype(int), pairs["column"].to_numpy().astype(int))
    x = sp.csr_matrix((np.ones(len(pairs), np.float32), cells), (len(people), len(known)))
    weights = ease(x, 0.2 * len(people))
    rows = new.join(people, on="user_id", maintain_order="left")["row"].to_numpy().astype(int)
    names, popularity = known["item_id"].to_numpy(), known["len"].to_numpy()
    parts = []
    for domain in new["domain"].unique().sort():
        inside = np.flatnonzero((known["domain"] == domain).to_numpy())
        users = new.filter(pl.col("domain") == domain)["user_id"].to_numpy()
        scores = (x[rows[(new["domain"] == domain).to_numpy()]] @ weights)[:, inside] + 1e-9 * popularity[inside]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        depth = best.shape[1]
        parts.append(
            pl.DataFrame(
                {
                    "user_id": np.repeat(users, depth),
                    "item_id": names[inside[best.ravel()]],
                    "rank": np.tile(np.arange(1, depth + 1), len(users)),
                }
            )
        )
    return pl.concat(parts)


def interval(values: np.ndarray, seed: int = 0) -> str:
    """Mean and 95 % percentile bootstrap over users."""
    draws = np.random.default_rng(seed).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.4f} ({low:.4f} to {high:.4f})"


def asked(con: duckdb.DuckDBPyConnection, new: pl.DataFrame, k: int, *, known: bool) -> pl.DataFrame:
    """m6rec's lists of every newcomer in the domain it is new to; ``known`` False: as if it had no history at all."""
    parts = []
    for (domain,), group in new.group_by("domain", maintain_order=True):
        ids = group["user_id"].to_list() if known else ["nobody"]
        lists = con.sql(
            "select user_id, item_id, cast(rank as bigint) as rank "
            "from m6.slates($users, k := $k, in_domain := $domain)",
            params={"users": ids, "k": k, "domain": domain},
        ).pl()
        if not known:
            lists = group.select("user_id").join(lists.drop("user_id"), how="cross")
        parts.append(lists.select(COLUMNS))
    return pl.concat(parts)


def asked_at(con: duckdb.DuckDBPyConnection, new: pl.DataFrame, seen: pl.DataFrame, k: int) -> pl.DataFrame:
    """The same of everybody at the moment of their last behaviour."""
    last = dict(seen.group_by("user_id").agg(pl.col("happened_at").max()).iter_rows())
    parts = [
        con.sql(
            "select user_id, item_id, cast(rank as bigint) as rank "
            "from m6.recommend($user, k := $k, in_domain := $domain, until := $moment)",
            params={"user": user, "k": k, "domain": domain, "moment": last[user]},
        ).pl()
        for user, domain in new.select("user_id", "domain").iter_rows()
    ]
    return pl.concat(parts).select(COLUMNS)


def main() -> None:
    """Hide, build once, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("grocery", "online-retail", "movielens", "ml-100k"), default="grocery")
    parser.add_argument("--path", help="folder of Online Retail II or MovieLens 100K")
    parser.add_argument("--encoder")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", action="store_true", help="judge without the test, see above")
    parser.add_argument("--no-m6rec", action="store_true", help="baselines alone")
    parser.add_argument("--keep", help="keep the built file under this name; it is used where it is there")
    given = parser.parse_args()
    data = domains_of(given.data, given.path)
    comes_once = given.data in ("movielens", "ml-100k")
    events = data["events"].join(data["items"].select("item_id", "domain"), on="item_id")
    if given.validation and not comes_once:
        events = events.filter(pl.col("happened_at") <= events["happened_at"].quantile(0.9, "higher"))
    split = events["happened_at"].quantile(1.0 if comes_once else 0.9, "higher")
    before, after = events.filter(pl.col("happened_at") <= split), events.filter(pl.col("happened_at") > split)
    tested = successes(
        before if comes_once else after.join(before.select("user_id").unique(), on="user_id", how="semi")
    )
    new = newcomers(tested.join(before.select("user_id", "domain").unique(), on=["user_id", "domain"]), given.seed)
    if given.validation and comes_once:  # what the test hides stays hidden, others are new
        before = before.join(new, on=["user_id", "domain"], how="anti")
        tested = tested.join(new, on=["user_id", "domain"], how="anti")
        new = newcomers(tested, given.seed + 1)
    seen = before.join(new, on=["user_id", "domain"], how="anti")
    left = seen.select("user_id").unique()
    new = new.join(left, on="user_id", how="semi").sort("domain", "user_id")
    targets = tested.join(new, on=["user_id", "domain"]).select("user_id", "item_id").unique()
    print(f"{len(new):,} people new to a domain, {len(seen):,} events seen, {len(before) - len(seen):,} hidden")
    liked = successes(seen)
    half_lives = chosen_half_lives(liked, split, given.k)  # type: ignore[arg-type]
    tops = [
        trend(liked.filter(pl.col("domain") == domain), split, half_life, given.k)  # type: ignore[arg-type]
        for domain, half_life in half_lives.items()
    ]
    methods = {
        "EASE over users": closed_form(liked, new, data["items"], given.k),
        "recently popular": new.join(pl.concat(tops), on="domain").select(COLUMNS),
        "popular": new.join(trend(liked, split, 1e6, given.k), on="domain").select(COLUMNS),  # type: ignore[arg-type]
    }
    con = None
    if not given.no_m6rec:
        con = built(given, {**data, "events": seen.drop("domain")}, split)  # type: ignore[arg-type]
        mine = {
            "m6rec": asked_at(con, new, seen, given.k) if comes_once else asked(con, new, given.k, known=True),
            "m6rec, without the history": asked(con, new, given.k, known=False),
        }
        if comes_once:
            mine["m6rec, asked at the end of the data"] = asked(con, new, given.k, known=True)
        methods = {**mine, **methods}
    users = new.select("user_id")
    value = {name: ndcg(lists, targets, users, given.k) for name, lists in methods.items()}
    print(f"\nNDCG@{given.k} of users new to a domain, {len(users):,} people")
    for name in methods:
        print(f"| {name} | {interval(value[name])} |")
    pairs = [("m6rec", other) for other in list(methods)[1:] if con is not None]
    late = "m6rec, asked at the end of the data"
    pairs += [(name, "recently popular") for name in (late, "EASE over users") if name in methods]
    for first, other in pairs:
        ratio = value[first].mean() / max(value[other].mean(), 1e-12)
        print(f"| {first} - {other} | {interval(value[first] - value[other])} | {ratio:.2f} times |")
    first = next(iter(methods))
    print(f"\n| domain | users | half-life, days | {first} | recently popular | times | difference |")
    for domain in sorted(half_lives):
        own = (new["domain"] == domain).to_numpy()
        if own.any():
            ours, theirs = value[first][own], value["recently popular"][own]
            print(
                f"| {domain} | {own.sum()} | {half_lives[domain]:g} | {ours.mean():.4f} | {theirs.mean():.4f} "
                f"| {ours.mean() / max(theirs.mean(), 1e-12):.2f} | {interval(ours - theirs)} |"
            )
    if con is None or not len(after):
        return
    m6.load(con, events=after.drop("domain"))
    calibration(con, as_of=split, version=1)  # type: ignore[arg-type]
    print("\ncalibration of all candidates, everybody active in the test slice, by domain")
    print(con.sql("from m6.calibration_error(predictions := 'eval_predictions', least_rows := 1000)").pl())


def built(given: argparse.Namespace, data: dict[str, pl.DataFrame], split: datetime) -> duckdb.DuckDBPyConnection:
    """The file, built as of the split; one that is there is used."""
    con = m6.connect(given.keep or ":memory:", encoder=given.encoder)
    if not con.execute("select model_version from m6.active").fetchall()[0][0]:
        begin = time.process_time()
        m6.load(con, **data)
        m6.build(con, as_of=split, seed=given.seed)
        print(f"loaded and built in {time.process_time() - begin:.0f} s of processor time", flush=True)
    return con


if __name__ == "__main__":
    main()
