"""What a rebuild costs in quality: lists of a version that took over what was learned beside those of a full build.

    python benchmarks/quality/rebuild.py --data grocery
    python benchmarks/quality/rebuild.py --data online-retail --path FOLDER --growth 1 4 --encoder static

For each growth in per cent: a build as of the moment that leaves so many of the events out, a rebuild as of the
beginning of the validation slice (never the test), and a full build as of the same moment. NDCG@10 on the slice, means
over users, the difference paired with its 95 % interval.
"""

from __future__ import annotations

from datetime import datetime

import common
import duckdb
import numpy as np

import m6rec_udf as m6
from m6rec_udf.evaluate import validate, validation_as_of
from m6rec_udf.intervals import bootstrap


def moment_before(con: duckdb.DuckDBPyConnection, until: datetime, share: float) -> datetime:
    """The moment up to which all but a share of the events up to ``until`` happened."""
    sql = "select quantile_disc(happened_at, ?) from m6.events where happened_at <= ?"
    return con.execute(sql, [1 - share, until]).fetchall()[0][0]


def compare(con: duckdb.DuckDBPyConnection, as_of: datetime, growth: float, seed: int, *, repeats: bool) -> None:
    """Build, rebuild, build in full, print."""
    m6.build(con, as_of=moment_before(con, as_of, growth / (100 + growth)), seed=seed, retrain=True)
    rebuilt = m6.build(con, as_of=as_of, seed=seed)
    kinds = {name: value for name, value, _ in rebuilt.decisions if name == "item_models"}
    why = next((why for name, _, why in rebuilt.decisions if name == "item_models"), "learned again")
    full = m6.build(con, as_of=as_of, seed=seed, retrain=True, activate=False)
    versions = {"rebuilt": rebuilt.model_version, "full": full.model_version}
    lists = {
        name: common.Built({as_of: number}, seed=seed, exclude_seen=None if repeats else True)
        for name, number in versions.items()
    }
    means = validate(con, lists, repeats=repeats)
    rows = con.execute(
        "pivot (select method, user_id, ndcg from eval_user_metrics) on method in ('rebuilt', 'full') "
        "using any_value(ndcg) order by user_id"
    ).fetchnumpy()
    difference = np.asarray(rows["rebuilt"]) - np.asarray(rows["full"])
    low, high = bootstrap(difference[:, None], seed=seed)
    seconds = {name: sum(report.seconds.values()) for name, report in (("rebuilt", rebuilt), ("full", full))}
    print(f"growth {growth:g} %, {len(difference):,} users, {kinds.get('item_models', 'not taken over')}: {why}")
    for name, mean in means.items():
        print(f"NDCG@10 {name} {mean:.4f}, built in {seconds[name]:.1f} s")
    print(f"difference {difference.mean():+.4f} ({low[0]:+.4f} to {high[0]:+.4f})", flush=True)


def main() -> None:
    """Parse the arguments, run."""
    parser = common.arguments(__doc__)
    parser.add_argument("--growth", type=float, nargs="+", default=[1.0, 4.0], help="per cent of new events")
    parser.add_argument("--repeats", action="store_true", help="liked items that were known before count too")
    given = parser.parse_args()
    with common.database(given) as con:
        as_of = validation_as_of(con)
        for growth in given.growth:
            compare(con, as_of, growth, given.seed, repeats=given.repeats)


if __name__ == "__main__":
    main()
