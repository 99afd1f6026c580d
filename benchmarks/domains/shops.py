"""Shops: what a week's promotions and coupons add, what `satisfaction * margin` earns, what returns change.

    python benchmarks/domains/shops.py --what promotions
    python benchmarks/domains/shops.py --what margin --path online_retail_ii
    python benchmarks/domains/shops.py --what returns --path online_retail_ii

Everything before the test slice of the other benchmarks (the last tenth of the events), which is not touched.

``promotions``: Complete Journey. Asked when week 46 begins (6 November 2017), from the weeks before; targets are what a
household bought in that week. Promotions of a week are known when it begins: a view of (item_id, boost) for each store
lifts what is on display or in the mailer there, for the households that shop there most (last 13 weeks), and one for
each set of campaigns lifts what the household has coupons for. By how much is chosen on week 43, where the 300 best
lines of each household are put in the order of satisfaction times the lift.

``margin``, ``returns``: Online Retail II up to the test slice, the last tenth of that is asked about. Margin: 40 % of
the price. Captured is the margin of those of the ten that the customer then bought, each once. Returns: one build with
returns counted, one without, of the first year, the only one whose returns are in the file.

NDCG@10 over everything bought, bought before or not. Means over users with 95 % bootstrap intervals; differences are
paired.
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
from cross_domain import interval, ndcg

import m6rec_udf as m6
from m6rec_udf import datasets

K = 10
WEEKS = {"chosen on": 43, "measured on": 46}
LIFTS = (1.0, 1.05, 1.1, 1.25, 1.5, 2.0)
DEEP = 300
LAST_RETURNS = datetime(2010, 12, 1)
KINDS = {
    "mailer": pl.col("in_mailer"),
    "display": pl.col("on_display"),
    "mailer or display": pl.col("in_mailer") | pl.col("on_display"),
}


def lists(con: duckdb.DuckDBPyConnection, users: list[str], boosts: str = "m6.no_boosts", k: int = K) -> pl.DataFrame:
    """(user_id, item_id, rank, satisfaction) of ten items each."""
    return con.sql(
        "select user_id, item_id, cast(rank as bigint) as rank, satisfaction "
        "from m6.slates($users, k := $k, boosts := $boosts)",
        params={"users": users, "k": k, "boosts": boosts},
    ).pl()


def built(data: dict[str, pl.DataFrame], events: pl.DataFrame, as_of: datetime, encoder: str | None) -> Any:
    """A file in memory with what had happened by then."""
    begin = time.process_time()
    con = m6.connect(":memory:", encoder=encoder)
    m6.load(con, **{**data, "events": events})
    m6.build(con, as_of=as_of)
    print(f"built in {time.process_time() - begin:.0f} s of processor time", flush=True)
    return con


def grouped(con: duckdb.DuckDBPyConnection, users: pl.DataFrame, by: str, lifted: dict[str, pl.DataFrame]) -> Any:
    """Lists where each group of users has a view of boosts of its own; ``lifted``: (item_id, boost) by group."""
    parts = []
    for (group,), own in users.group_by(by, maintain_order=True):
        ids = own["user_id"].to_list()
        if str(group) not in lifted:
            parts.append(lists(con, ids))
            continue
        con.register("lifted_frame", lifted[str(group)].to_arrow())
        con.execute("create or replace table lifted as from lifted_frame")
        con.unregister("lifted_frame")
        parts.append(lists(con, ids, "lifted"))
    return pl.concat(parts)


class Week:
    """Households asked when a week begins, what they bought in it, what was on promotion where they shop."""

    def __init__(self, week: int, encoder: str | None) -> None:
        data, context = datasets.grocery(), datasets.grocery_context(week)
        visits = context["visits"].filter(pl.col("week") < week)
        moment = visits["happened_at"].max()
        events = data["events"]
        end = context["visits"].filter(pl.col("week") == week)["happened_at"].max()
        before = events.filter(pl.col("happened_at") <= moment)
        bought = events.filter((pl.col("happened_at") > moment) & (pl.col("happened_at") <= end))
        self.targets = bought.select("user_id", "item_id").unique()
        known = before.select("user_id").unique()
        self.users = self.targets.select("user_id").unique().join(known, on="user_id", how="semi").sort("user_id")
        count = visits.filter(pl.col("week") >= week - 13).group_by("user_id", "store_id").len()
        store = count.sort("len", "store_id", descending=[True, False]).unique("user_id", keep="first")
        self.stores = self.users.join(store, on="user_id", how="left", maintain_order="left").fill_null("none")
        open_ = context["campaigns"].filter((pl.col("starts_at") <= moment) & (pl.col("ends_at") > moment))
        sets = open_.sort("campaign_id").group_by("user_id").agg(campaigns=pl.col("campaign_id").str.join(","))
        self.campaigns = self.users.join(sets, on="user_id", how="left", maintain_order="left").fill_null("none")
        self.promotions, self.coupons = context["promotions"], context["coupons"]
        self.con = built(data, before, moment, encoder)  # type: ignore[arg-type]

    def gain(self, found: pl.DataFrame) -> np.ndarray:
        """NDCG@10 of each household."""
        return ndcg(found, self.targets, self.users, K)

    def plain(self, k: int = K) -> pl.DataFrame:
        return lists(self.con, self.users["user_id"].to_list(), k=k)

    def promoted(self, kind: str) -> pl.DataFrame:
        """(user_id, item_id): what the kind of promotion names for each household."""
        if kind == "coupons":
            own = self.campaigns.with_columns(campaign_id=pl.col("campaigns").str.split(",")).explode("campaign_id")
            return own.join(self.coupons, on="campaign_id").select("user_id", "item_id").unique()
        chosen = self.promotions.filter(KINDS[kind]).select("store_id", "item_id").unique()
        return self.stores.select("user_id", "store_id").join(chosen, on="store_id").select("user_id", "item_id")

    def asked(self, kind: str) -> np.ndarray:
        """Households that the kind of promotion can reach."""
        group = self.campaigns["campaigns"] if kind == "coupons" else self.stores["store_id"]
        return (group != "none").to_numpy()

    def lifted(self, kind: str, lift: float) -> pl.DataFrame:
        """Lists with a boost of ``lift`` for what the kind of promotion names."""
        boost = pl.lit(lift).alias("boost")
        if kind == "coupons":
            parts = {
                campaigns: self.coupons.filter(pl.col("campaign_id").is_in(campaigns.split(",")))
                .select("item_id", boost)
                .unique()
                for campaigns in self.campaigns["campaigns"].unique()
                if campaigns != "none"
            }
            return grouped(self.con, self.campaigns, "campaigns", parts)
        chosen = self.promotions.filter(KINDS[kind]).select("store_id", "item_id", boost).unique()
        by_store = chosen.partition_by("store_id", as_dict=True, include_key=False)
        return grouped(self.con, self.stores, "store_id", {str(key[0]): own for key, own in by_store.items()})


def chosen_lifts(week: Week) -> dict[str, float]:
    """The lift of each kind of promotion with the best NDCG@10 on this week."""
    deep = week.plain(DEEP)
    bought = week.targets.with_columns(bought=pl.lit(1.0))
    best = {}
    for kind in (*KINDS, "coupons"):
        marked = week.promoted(kind).with_columns(is_promoted=pl.lit(value=True))
        lines = deep.join(marked, on=["user_id", "item_id"], how="left").join(
            bought, on=["user_id", "item_id"], how="left"
        )
        lines = lines.with_columns(pl.col("is_promoted").fill_null(value=False), pl.col("bought").fill_null(0.0))
        asked, found = week.asked(kind), {}
        for lift in LIFTS:
            score = (pl.col("satisfaction") * pl.when("is_promoted").then(lift).otherwise(1.0)).round(9)
            ranked = lines.with_columns(score=score).sort(
                "user_id", "score", "item_id", descending=[False, True, False]
            )
            ranked = ranked.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id")).filter(pl.col("rank") <= K)
            found[lift] = float(week.gain(ranked)[asked].mean())
        best[kind] = max(found, key=lambda lift: (found[lift], -lift))
        rates = (
            lines.filter(pl.col("rank") <= 50)
            .group_by("is_promoted")
            .agg(pl.len(), told=pl.col("satisfaction").mean(), bought=pl.col("bought").mean())
        )
        print(f"{kind}: " + ", ".join(f"times {lift:g} {value:.4f}" for lift, value in found.items()))
        for is_promoted, n, told, share in rates.sort("is_promoted").iter_rows():
            name = "promoted" if is_promoted else "others"
            print(f"  {name} among the 50 best: {n:,} lines, satisfaction {told:.4f}, bought {share:.4f}", flush=True)
    return best


def promotions(given: argparse.Namespace) -> None:
    """Choose on one week, measure on another."""
    best: dict[str, float] = {}
    for about, number in WEEKS.items():
        week = Week(number, given.encoder)
        if not best:
            print(f"week {number} ({about})")
            best = chosen_lifts(week)
            week.con.close()
            continue
        plain = week.plain()
        base = week.gain(plain)
        print(f"\nweek {number} ({about}): {len(week.users):,} households, NDCG@{K} {interval(base)}", flush=True)
        for kind, lift in best.items():
            asked = week.asked(kind)
            gain = week.gain(week.lifted(kind, lift if lift > 1 else LIFTS[2]))
            shown = f"{kind}, times {lift:g}" if lift > 1 else f"{kind}, times {LIFTS[2]:g} (none was chosen)"
            print(
                f"| {shown} | {asked.sum():,} | {interval(gain[asked])} | {interval((gain - base)[asked])} |",
                flush=True,
            )
        promoted = week.promoted("mailer or display")
        hits = plain.join(week.targets, on=["user_id", "item_id"], how="semi")
        for name, frame in (("list lines", plain), ("hits", hits), ("all bought", week.targets)):
            share = len(frame.join(promoted, on=["user_id", "item_id"], how="semi")) / len(frame)
            print(f"{name}: {share:.3f} on promotion at the household's store")


class Gifts:
    """Online Retail II before a moment (default: the test slice), split once more."""

    def __init__(self, path: str, until: datetime | None = None) -> None:
        self.data = datasets.online_retail(path)
        events = self.data["events"]
        events = events.filter(pl.col("happened_at") <= (until or events["happened_at"].quantile(0.9, "higher")))
        self.split: Any = events["happened_at"].quantile(0.9, "higher")
        self.before = events.filter(pl.col("happened_at") <= self.split)
        self.after = events.filter(pl.col("happened_at") > self.split)
        bought = self.after.filter(pl.col("event_type") == "purchase").select("user_id", "item_id").unique()
        known = self.before.select("user_id").unique()
        self.users = bought.select("user_id").unique().join(known, on="user_id", how="semi").sort("user_id")
        self.targets = bought.join(self.users, on="user_id", how="semi")

    def mean_of(self, found: pl.DataFrame, value: pl.DataFrame) -> np.ndarray:
        """Sum of ``value`` (item_id, value) over each user's list; 0 where there is none."""
        summed = found.join(value, on="item_id").group_by("user_id").agg(pl.col("value").sum())
        return self.users.join(summed, on="user_id", how="left", maintain_order="left")["value"].fill_null(0).to_numpy()


def margin(given: argparse.Namespace) -> None:
    """Satisfaction alone, satisfaction * margin, and the square root of the margin between them."""
    gifts = Gifts(given.path)
    con = built(gifts.data, gifts.before, gifts.split, given.encoder)
    con.execute("create table margin as select item_id, 0.4 * price as boost from m6.items where price is not null")
    con.execute("create table root_of_margin as select item_id, sqrt(boost) as boost from margin")
    value = con.sql("select item_id, boost as value from margin").pl()
    ids = gifts.users["user_id"].to_list()
    found = {
        "satisfaction": lists(con, ids),
        "satisfaction * margin": lists(con, ids, "margin"),
        "satisfaction * sqrt(margin)": lists(con, ids, "root_of_margin"),
    }
    ideal = gifts.targets.join(value, on="item_id").with_columns(
        place=pl.col("value").rank("ordinal", descending=True).over("user_id")
    )
    most = float(ideal.filter(pl.col("place") <= K)["value"].sum()) / len(gifts.users)
    print(f"\n{len(gifts.users):,} customers; the ten best of what they bought hold a margin of {most:.2f} each")
    print("| ordered by | margin captured | of it per hit | NDCG@10 | margin less satisfaction's | NDCG less it |")
    base: tuple[np.ndarray, np.ndarray] | None = None
    for name, rows in found.items():
        hits = rows.join(gifts.targets, on=["user_id", "item_id"], how="semi")
        captured, gain = gifts.mean_of(hits, value), ndcg(rows, gifts.targets, gifts.users, K)
        base = base or (captured, gain)
        print(
            f"| {name} | {interval(captured)} | {captured.sum() / max(1, len(hits)):.2f} | {interval(gain)} "
            f"| {interval(captured - base[0])} | {interval(gain - base[1])} |"
        )
    told = con.sql(
        "select sum(satisfaction * 0.4 * price) as expected from m6.slates($users, k := $k, boosts := 'margin') "
        "inner join m6.items using (item_id)",
        params={"users": ids, "k": K},
    ).fetchall()[0][0]
    print(f"expected margin of the list by satisfaction * margin: {told / len(ids):.2f} each")


def returns(given: argparse.Namespace) -> None:
    """The same log with returns counted as turning away, and with the rows of returns left out."""
    gifts = Gifts(given.path, LAST_RETURNS)
    kinds = pl.col("event_type")
    pairs = ["user_id", "item_id"]
    sent_back = gifts.before.filter(kinds == "return").select(pairs).unique()
    later = gifts.after.filter(kinds == "return").select(pairs).unique()
    items = gifts.before.group_by("item_id").agg(value=(kinds == "return").mean())
    ids = gifts.users["user_id"].to_list()
    found = {}
    for name, events in (("counted", gifts.before), ("left out", gifts.before.filter(kinds != "return"))):
        con = built(gifts.data, events, gifts.split, given.encoder)
        found[name] = lists(con, ids)
        con.close()
    with_returns = gifts.users.join(sent_back, on="user_id", how="semi").height
    print(f"\n{len(ids):,} customers, {with_returns:,} of them have sent something back before the split")
    print("| returns | lines the customer had sent back | lines sent back later | return rate of the items | NDCG@10 |")
    one = pl.lit(1.0).alias("value")
    each = {}
    for name, rows in found.items():
        each[name] = (
            gifts.mean_of(rows.join(sent_back, on=pairs, how="semi"), items.select("item_id", one)) / K,
            gifts.mean_of(rows.join(later, on=pairs, how="semi"), items.select("item_id", one)) / K,
            gifts.mean_of(rows, items) / K,
            ndcg(rows, gifts.targets, gifts.users, K),
        )
        print(f"| {name} | " + " | ".join(interval(own) for own in each[name]) + " |")
    gaps = (a - b for a, b in zip(each["counted"], each["left out"], strict=True))
    print("| counted less left out | " + " | ".join(interval(gap) for gap in gaps) + " |")


def main() -> None:
    """Measure one of them, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {"promotions": promotions, "margin": margin, "returns": returns}
    parser.add_argument("--what", required=True, choices=measures)
    parser.add_argument("--path", help="folder of Online Retail II")
    parser.add_argument("--encoder", default="static")
    given = parser.parse_args()
    measures[given.what](given)


if __name__ == "__main__":
    main()
