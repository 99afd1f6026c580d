"""What past moments teach: examples of what users did after them, and the settings of item-item.

At each of a few moments before the build's own the data is seen as it was then; what followed is the outcome.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from m6rec_udf import basket_learning, models, moment, sql_strategies, training, tuning
from m6rec_udf.event_log import read_log
from m6rec_udf.fitting import Examples, Rows, join, no_rows
from m6rec_udf.item_models import with_new_items

if TYPE_CHECKING:
    from m6rec_udf.arrays import Snapshot
    from m6rec_udf.build_state import State
    from m6rec_udf.cells import Cells


def examples(state: State, cells: Cells | None) -> Examples:
    """Training rows of the windows; the latest one is the slice that stops and calibrates."""
    until = moment.seconds(state.as_of)
    out: list[Rows] = []
    visits: list[Rows] = []
    shown: list[Rows] = []
    hidden: list[Rows] = []
    starts = [datetime.fromtimestamp(cut, UTC).replace(tzinfo=None) for cut in training.cuts(state.log)]
    lasting, read = state.lasting, sql_strategies.read_in_sql(state, past=True)
    windows = list(zip(starts, [state.as_of, *starts], strict=False))
    if "stg_events" not in state.staged:
        state.engine.run(state.con, state.found, state.bound, wanted={"stg_events"}, keep=state.staged)
        state.staged |= {"stg_events"}
    outcomes = [_outcomes(state, *window) for window in windows]
    impressions = _impressions(state, windows)
    if starts and read:  # staging is run at earlier moments
        state.staged &= {"stg_items", "stg_users"}
    domain, own = moment.codes(state.items["domains"]), state.engine.features_in_sql(state.found, past=True)
    for at, when in enumerate(starts):
        bound = moment.parameters(state.con, when, state.settings.positive_at, ask=state.engine.ask)
        state.engine.run(state.con, state.found, bound, wanted=read, keep=lasting)
        log = state.log if models.IN_FORCE in lasting else read_log(state.con)
        state.clock("features of past moments")
        learned = state.engine.item_models(state.settings, state.items, state.text, has_weights=at > 0)
        asked = training.Hidden.some(outcomes[at], domain, seed=state.seed + at)
        rest = asked.without(log, domain)
        snapshot = moment.read_snapshot(
            state.con, bound, state.items, state.text, state.settings, rest, learned=learned, own=own
        )
        snapshot.cells = cells
        if at == 0:
            x = moment.interactions(state.con, bound, snapshot.n, rest, own)
            _choose_item_item(state, snapshot, x, until)
            _choose_baskets(state, snapshot, until)
        state.clock("item models of past moments")
        extra, seed = sql_strategies.candidates_at(state, snapshot, bound), state.seed + at
        judges = outcomes[at]
        if impressions and at == 0:  # nobody both teaches and judges
            judges = judges.only(judges.user % 2 == 1)
            impressions[at] = impressions[at].only(impressions[at].user % 2 == 0)
        out.append(training.rows_of_window(snapshot, state.log, judges, seed=seed, extra=extra))
        end, among = moment.seconds(windows[at][1]), np.unique(judges.user)
        visits.append(training.rows_of_visits(snapshot, state.log, end, seed=seed, among=among))
        hidden.append(training.rows_of_hidden_domains(snapshot, state.log, judges, asked, end, seed=seed))
        if impressions:
            shown.append(training.rows_of_impressions(snapshot, state.log, impressions[at], seed=seed, extra=extra))
        state.clock("rows of past moments")
    if impressions and len(out) > 1:
        out[1], visits[1] = join([out[1], *shown]), join([visits[1], *shown])
        state.decide(
            "impression_rows",
            sum(len(rows.y) for rows in shown),
            "what serve showed, and what followed, teaches beside behaviour; weight 1 / propensity",
        )
    kept = [at for at, rows in enumerate(out) if len(rows.y)]
    if len(kept) < 2:
        return Examples(no_rows(), no_rows())
    latest, others = kept[0], kept[1:]
    return Examples(
        join([out[at] for at in others]),
        out[latest],
        join([visits[at] for at in others]),
        visits[latest],
        join([hidden[at] for at in others]),
        hidden[latest],
    )


def _choose_item_item(state: State, snapshot: Snapshot, x: Any, until: float) -> None:
    """Settle regularisation, neighbours and trend on the latest window; the snapshot follows."""
    chosen, weights, why = tuning.choose_item_item(snapshot, x, state.log, state.settings, until)
    state.settings = chosen
    snapshot.settings |= {"trend_column": chosen.trend_column, "trend_power": chosen.trend_power}
    snapshot.item_item = with_new_items(x, weights, state.text, state.items)
    state.decide_item_item(chosen, why)


def _choose_baskets(state: State, snapshot: Snapshot, until: float) -> None:
    """Settle how a basket is completed on the latest window."""
    state.settings.baskets, why = basket_learning.choose(snapshot, state.log, until, state.seed)
    state.decide_baskets(state.settings, why)


def _impressions(state: State, windows: list[tuple[datetime, datetime]]) -> list[training.Impressions]:
    """Impressions of each window; empty where too few were answered to learn from."""
    found = []
    for start, end in windows:
        bound = {"window_start": start, "window_end": end}
        state.engine.run_alone(state.con, state.found["mart_impressions"], bound)
        rows = state.con.execute(
            "select cast(dense_rank() over (order by request_id) - 1 as bigint) as request, user_idx, item_idx, "
            "rank, propensity, epoch(shown_at) as shown_at, satisfaction "
            "from mart_impressions order by request, rank, impression_id"
        ).fetchnumpy()
        whole = (rows[name].astype(np.int64) for name in ("request", "user_idx", "item_idx", "rank"))
        parts = (rows[name].astype(np.float64) for name in ("propensity", "shown_at", "satisfaction"))
        found.append(training.Impressions(*whole, *parts))
    answered = sum(window.answered for window in found)
    if answered >= training.LEAST_ANSWERS:
        return found
    if any(len(window.rank) for window in found):
        state.decide("impression_rows", 0, f"{answered} impressions answered, {training.LEAST_ANSWERS} needed")
    return []


def _outcomes(state: State, start: datetime, end: datetime) -> training.Outcomes:
    state.engine.run_alone(state.con, state.found["mart_outcomes"], {"window_start": start, "window_end": end})
    rows = state.con.execute("from mart_outcomes order by user_idx, item_idx").fetchnumpy()
    return training.Outcomes(
        rows["user_idx"].astype(np.int64),
        rows["item_idx"].astype(np.int64),
        rows["satisfaction"].astype(np.float64),
    )
