"""Does ``satisfaction`` mean what it says? What a build promised for a window, beside what the window brought."""

from __future__ import annotations

from datetime import datetime

import duckdb

from m6rec_udf.backtest import remove_version
from m6rec_udf.builder import build
from m6rec_udf.errors import ParameterError
from m6rec_udf.evaluate import default_as_of
from m6rec_udf.query import one
from m6rec_udf.training import WINDOW_SHARE

MAX_USERS = 20_000


def calibration(
    con: duckdb.DuckDBPyConnection,
    *,
    as_of: datetime | None = None,
    until: datetime | None = None,
    test_share: float = 0.1,
    k: int = 10,
    bins: int = 10,
    seed: int = 0,
    version: int | None = None,
) -> duckdb.DuckDBPyRelation:
    """Calibration of satisfaction on the behaviour after a moment: one row per group with its error.

    The promises are those of a build as of the split, the outcome is y of what the user did with the item after it
    (the satisfaction function in force; 0 where nothing happened). Users are those with any behaviour after the
    split: for people who stay away nothing can be told. Two temporary tables stay on the connection,
    ``eval_predictions`` (all candidates) and ``eval_shown_predictions`` (the k shown by ``recommend``), so that
    ``from m6.calibration(predictions := 'eval_shown_predictions')`` prints the reliability table.

    Args:
        con: a dressed connection with data.
        as_of: the split (UTC); None leaves ``test_share`` of the events for the window.
        until: end of the window (UTC); default: the last behaviour. A build promises what a window of its own length
            brings (``own_window``): a longer one brings more.
        test_share: share of the events after the split.
        k: length of the lists.
        bins: bins of equal count.
        seed: seed of the build.
        version: a build as of ``as_of`` to judge; None: one is made and removed again.

    Returns:
        A relation of (candidates, group_kind, group_name, n, ece, largest_gap, predicted, observed) with
        ``candidates`` in (``all``, ``shown``); domains and segments of at least 1,000 rows.

    Raises:
        ParameterError: nothing happened after the split.
    """
    moment = as_of or default_as_of(con, test_share=test_share)
    number = build(con, as_of=moment, seed=seed, activate=False).model_version if version is None else version
    try:
        _predictions(con, moment, until, number, k)
    finally:
        if version is None:
            remove_version(con, number)
    return con.sql(
        "select 'all' as candidates, * from m6.calibration_error(predictions := 'eval_predictions', bins := $bins) "
        "union all select 'shown', * "
        "from m6.calibration_error(predictions := 'eval_shown_predictions', bins := $bins) order by all",
        params={"bins": bins},
    )


def own_window(con: duckdb.DuckDBPyConnection, as_of: datetime) -> datetime:
    """End of the window after a moment that holds as many events as the windows a build as of it learns from."""
    before = one(con, "select count(*) from m6.behaviour where happened_at <= $1", [as_of])[0]
    found = one(
        con,
        "select happened_at from m6.behaviour where happened_at > $1 order by happened_at limit 1 offset $2",
        [as_of, max(int(before * WINDOW_SHARE) - 1, 0)],
    )[0]
    last = found or one(con, "select max(happened_at) from m6.behaviour")[0] or as_of
    assert isinstance(last, datetime)
    return last


def _predictions(con: duckdb.DuckDBPyConnection, as_of: datetime, until: datetime | None, version: int, k: int) -> None:
    """Fill ``eval_predictions`` and ``eval_shown_predictions``."""
    until = until or one(con, "select max(happened_at) from m6.behaviour where happened_at > $1", [as_of])[0]
    if until is None or until <= as_of:
        raise ParameterError(f"nothing happened after {as_of}, expected behaviour to judge by", "pass an earlier as_of")
    users = [
        row[0]
        for row in con.execute(
            "select user_id from (select distinct user_id from m6.behaviour where happened_at > $1 "
            "and happened_at <= $2) order by md5(user_id), user_id limit $3",
            [as_of, until, MAX_USERS],
        ).fetchall()
    ]
    bound = {"users": users, "k": k, "as_of": as_of, "until": until, "version": version}
    con.execute(
        "create or replace temp table eval_predictions as "
        "select c.user_id, c.item_id, c.domain, c.segment, c.satisfaction, coalesce(o.outcome, 0.0) as outcome "
        "from m6.candidates($users, k := $k, until := $as_of, version := $version) as c "
        "left join m6.later_satisfaction($as_of, $until) as o on c.user_id = o.user_id and c.item_id = o.item_id "
        "where not c.is_seen or c.supporters > 0",
        bound,
    )
    con.execute(
        "create or replace temp table eval_shown_predictions as "
        "select s.user_id, s.item_id, s.domain, s.segment, s.satisfaction, coalesce(o.outcome, 0.0) as outcome "
        "from m6.slates($users, k := $k, until := $as_of, version := $version) as s "
        "left join m6.later_satisfaction($as_of, $until) as o on s.user_id = o.user_id and s.item_id = o.item_id "
        "where s.strategy <> 'seen'",
        bound,
    )
