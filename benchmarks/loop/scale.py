"""Seconds of one reweighting on a log of 1,000,000 impressions and 100,000 feedback rows, all inside the window.

python benchmarks/loop/scale.py
python benchmarks/loop/scale.py --impressions 200000 --feedback 20000 --threads 1
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import real
from world import SEGMENTS, SLOTS, Ints, World, draw

import m6rec_udf as m6
from m6rec_udf.reweight import DEFAULTS

PERIODS = DEFAULTS["window"]


def fill(con: duckdb.DuckDBPyConnection, world: World, *, impressions: int, feedback: int) -> None:
    """Insert drawn lists spread over the window, and feedback to some of them."""
    lists = real.read_lists(con)
    count = impressions // SLOTS
    rng = np.random.default_rng([world.seed, 41])
    users: Ints = rng.integers(0, len(lists.heads), count)
    stored = dict(
        con.execute(
            "select s.bit, w.weight from m6.strategy_weights as w inner join m6.strategies as s using (strategy)"
        ).fetchall()
    )
    weights = np.broadcast_to(np.array([stored[bit] for bit in lists.bits]), (count, len(lists.bits)))
    items, drawn, supporters, propensity = draw(lists.heads[users], weights, rng.random((count, SLOTS)))
    bits = np.array(lists.bits, np.uint64)
    row = np.repeat(np.arange(count), SLOTS)
    shown = pl.DataFrame(
        {
            "list": row,
            "rank": np.tile(np.arange(1, SLOTS + 1, dtype=np.int32), count),
            "user": users[row],
            "item": items.ravel(),
            "bit": bits[drawn.ravel()],
            "supporters": (supporters.reshape(-1, len(bits)).astype(np.uint64) << bits).sum(axis=1).astype(np.uint64),
            "propensity": propensity.ravel(),
            "segment": np.array(SEGMENTS)[world.segment[users]][row],
            "period": (row * PERIODS // count),
        }
    )
    con.register("shown_frame", shown)
    con.execute(
        """insert into m6.impressions by name
        select 'r' || list || '-' || rank as impression_id, 'r' || list as request_id, 'v' || list as user_id,
            'i' || lpad(cast(item as varchar), 3, '0') as item_id, rank, s.strategy, supporters,
            $eligible::ubigint as eligible, propensity, 1 as seed, 1 as policy_version, 1 as model_version,
            '*' as domain, segment, $start + to_days(cast(period as integer)) as shown_at
        from shown_frame as f inner join m6.strategies as s on f.bit = s.bit""",
        {"eligible": sum(1 << bit for bit in lists.bits), "start": real.moment(0, 9)},
    )
    con.unregister("shown_frame")
    con.execute(
        """insert into m6.feedback by name
        with chosen as (
            select impression_id, shown_at, row_number() over (order by hash(impression_id), impression_id) as n
            from m6.impressions
        )
        select 'f' || n as feedback_id, impression_id,
            case when n % 10 < 7 then 'click' when n % 10 < 9 then 'purchase' else 'dismiss' end as event_type,
            shown_at + interval 1 minute as happened_at, shown_at + interval 1 minute as ingested_at
        from chosen where n <= $feedback""",
        {"feedback": feedback},
    )


def main() -> None:
    """Build, fill, reweight, print the seconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--impressions", type=int, default=1_000_000)
    parser.add_argument("--feedback", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(0)
        con = real.build(world, Path(folder))
        con.execute(f"set threads = {given.threads}")
        fill(con, world, impressions=given.impressions, feedback=given.feedback)
        shown = con.execute("select count(*) from m6.impressions").fetchall()[0][0]
        answered = con.execute("select count(*) from m6.feedback").fetchall()[0][0]
        start = time.perf_counter()
        result = m6.reweight(con, period="1d", as_of=real.moment(PERIODS - 1, 23))
        seconds = time.perf_counter() - start
        con.close()
    print(f"{shown:,} impressions, {answered:,} feedback rows, {given.threads} threads")
    print(f"one reweighting: {seconds:.1f} s, status {result['status']}")


if __name__ == "__main__":
    main()
