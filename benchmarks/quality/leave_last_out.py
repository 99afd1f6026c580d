"""Leave-last-out: everybody's last event is the target, the rest of the log may be learned from, later times too.

    python benchmarks/quality/leave_last_out.py --path unpacked/recbole/dataset_example/ml-100k

The protocol of the sequence models' literature. Equal times are shuffled with a seed before the last event is named:
in file order it would be read off the file. Settings of the peers are chosen on the event before the last. m6rec
builds on the log without the last events and is asked twice: at the moment of each user's last event (``until``), as
it would be while the user is there, and at the end of the log, as a letter to everybody would. The peers know no time.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from importlib import import_module
from typing import Any

import common
import duckdb
import peers
import polars as pl
import pyarrow as pa

import m6rec_udf as m6

evaluation = import_module("m6rec_udf.evaluate")
baselines = import_module("m6rec_udf.baselines")


def name_last(con: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Tables ``last_events`` and ``events_before_last`` of (user_id, item_id): an item counts when first met."""
    for table, place in (("last_events", 1), ("events_before_last", 2)):
        con.execute(
            f"create or replace temp table {table} as with firsts as (select user_id, item_id, min(happened_at) as "
            "happened_at from m6.events e join m6.event_types t using (event_type) where t.interest > 0 "
            "group by user_id, item_id) select user_id, item_id from firsts qualify row_number() over "
            "(partition by user_id order by happened_at desc, md5(user_id || '/' || item_id || '/' || $1::varchar), "
            "item_id) = $2 and count(*) over (partition by user_id) >= 3",
            [seed, place],
        )
    con.execute(
        "create or replace temp table last_moments as select user_id, min(e.happened_at) as happened_at "
        "from m6.events e join m6.event_types t using (event_type) semi join last_events using (user_id, item_id) "
        "where t.interest > 0 group by user_id"
    )
    con.execute("create or replace temp table last_two as from last_events union all from events_before_last")


def tuned(con: duckdb.DuckDBPyConnection, names: list[str], k: int, budget: float) -> dict[str, Any]:
    """Peers with their best settings, and the baselines, on the event before the last.

    Any event can be the last, liked or not, so settings that learn from all of them come first.
    """

    def judge(todo: dict[str, Any]) -> dict[str, float]:
        rows = evaluation.score(con, todo, "events_before_last", hidden="last_two", k=k)
        found = {row[0]: float(row[3] or 0.0) for row in rows if row[1] == "all" and row[2] == f"ndcg@{k}"}
        return dict.fromkeys(todo, 0.0) | found

    others: dict[str, Any] = peers.tune(con, names, budget=budget, k=k, judge=judge, least_y=(0.0, 0.75))
    for name in ("popular", "item_item"):
        choices = baselines.grid(name, span_days=1.0, levels=(0.0, 0.75))
        scores = judge({str(j): baselines.recommender(name, choice) for j, choice in enumerate(choices)})
        best = choices[int(max(scores, key=lambda j: scores[j]))]
        others[name] = baselines.recommender(name, best)
    return others


class Own:
    """m6rec's lists after one build on what is left in ``m6.events``, for questions of either kind."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.version: int | None = None

    def lists(self, con: duckdb.DuckDBPyConnection, users: list[str], k: int, until: datetime | None) -> pa.Table:
        """Lists of users who are asked at one moment; None: the end of the log."""
        if self.version is None:
            begin = time.perf_counter()
            self.version = m6.build(con, seed=self.seed, activate=False).model_version
            print(f"built in {time.perf_counter() - begin:.0f} s", flush=True)
        return con.sql(
            "select user_id, item_id, rank from m6.slates($users, k := $k, exclude_seen := true, version := $version, "
            "until := coalesce($until, timestamp 'infinity'))",
            params={"users": users, "k": k, "version": self.version, "until": until},
        ).to_arrow_table()

    def at_the_end(self, con: duckdb.DuckDBPyConnection, as_of: Any, users: Any, k: int) -> pa.Table:
        """Everybody at the end of the log."""
        return self.lists(con, users["user_id"].to_pylist(), k, None)

    def in_the_visit(self, con: duckdb.DuckDBPyConnection, as_of: Any, users: Any, k: int) -> pa.Table:
        """Everybody at the moment of their last event."""
        con.register("asked", users)
        moments = con.execute(
            "select happened_at, list(user_id order by user_id) from last_moments semi join asked using (user_id) "
            "group by happened_at order by happened_at"
        ).fetchall()
        con.unregister("asked")
        return pa.concat_tables([self.lists(con, names, k, moment) for moment, names in moments])


def figures(con: duckdb.DuckDBPyConnection, given: argparse.Namespace) -> pl.DataFrame:
    """Tune, delete the last events, build, score everybody once; prints the table."""
    names = [] if given.no_peers else peers.chosen(given.peers)
    name_last(con, given.seed)
    others = {} if given.no_peers else tuned(con, names, given.k, given.budget)
    con.execute("delete from m6.events where (user_id, item_id) in (select (user_id, item_id) from last_events)")
    own = Own(given.seed)
    methods = {"m6rec": own.in_the_visit, "m6rec at the end": own.at_the_end, **others}
    found = common.frame(evaluation.score(con, methods, "last_events", k=given.k, seed=given.seed))
    print("\n## leave-last-out\n")
    common.show(found, f"ndcg@{given.k}", [f"{m}@{given.k}" for m in ("hit_rate", "mrr", "coverage", "novelty")])
    return found


def main() -> None:
    """Load, score, print."""
    parser = common.arguments(__doc__ or "", data="ml-100k")
    parser.add_argument("--budget", type=float, default=60, help="processor seconds to tune each peer in")
    common.add_peers(parser)
    given = parser.parse_args()
    with common.database(given) as con:
        figures(con, given)


if __name__ == "__main__":
    main()
