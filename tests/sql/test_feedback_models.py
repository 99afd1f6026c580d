"""Given rows, expected rows: one test per idea of sql/feedback and of the views and macros over the log."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
import numpy as np
import pytest

from m6rec_udf import connection, models, resources
from m6rec_udf.errors import ParameterError, SchemaError, UnknownNameError
from m6rec_udf.models import parameter_names
from m6rec_udf.policy import policy_value
from m6rec_udf.reweight import DEFAULTS, ensure_default_policy

DAY = datetime(2024, 1, 10)
PERIOD = 19732  # of DAY, in days


@pytest.fixture
def con():
    con = duckdb.connect()
    connection.migrate(con)
    con.execute("insert into m6.strategies values ('blended', 0, true, ''), ('popular', 1, true, '')")
    live = models.live(models.with_satisfaction(models.collect(), "graded"))
    con.execute(f"create or replace view m6.behaviour as {live}")
    for name in ("shown_rewards", "impression_rewards", "strategy_weights_active"):
        con.execute(f"create view m6.{name} as {resources.read_sql('views', name)}")
    for name in ("ope_term", "ope_student", "log_value", "policy_rounds", "policy_value", "strategy_report"):
        con.execute(resources.read_sql("macros", name))
    return con


def show(
    con, key, *, request="r", user="u", item="i", rank=1, strategy="blended", at=DAY, supporters=1, propensity=0.5
):
    con.execute(
        "insert into m6.impressions (impression_id, request_id, user_id, item_id, rank, strategy, supporters, "
        "eligible, propensity, shown_at) values (?, ?, ?, ?, ?, ?, ?, 3, ?, ?)",
        [key, request, user, item, rank, strategy, supporters, propensity, at],
    )


def react(
    con, key, event="click", *, impression=None, request=None, user=None, item=None, value=None, at=DAY, seen=None
):
    con.execute(
        "insert into m6.feedback (feedback_id, impression_id, request_id, user_id, item_id, event_type, value, "
        "happened_at, ingested_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [key, impression, request, user, item, event, value, at, seen or at],
    )


def run(con, *names, as_of=DAY + timedelta(hours=12), is_cut=True, **changes):
    """Run models in order; the rows of the last one as dictionaries."""
    values = {**DEFAULTS, "period_seconds": 86400, "as_of": as_of, "is_cut": is_cut, "last_period": PERIOD, **changes}
    for name in names:
        text = resources.read_sql("feedback", name)
        con.execute(
            f"create or replace temp table {name} as {text}", {key: values[key] for key in parameter_names(text)}
        )
    cursor = con.execute(f"from {names[-1]}")
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


LOG = ("fb_impressions", "fb_matches", "fb_reactions", "fb_arrivals", "fb_late_values", "fb_log")


def test_feedback_is_matched_by_id_then_request_then_user(con):
    show(con, "old", request="r1", at=DAY - timedelta(hours=3))
    show(con, "new", request="r2", at=DAY - timedelta(hours=1))
    react(con, "named", impression="old")
    react(con, "by_request", request="r1", item="i")
    react(con, "by_user", user="u", item="i")
    react(con, "wrong_id_but_user", impression="gone", user="u", item="i")
    react(con, "unknown", impression="gone")
    react(con, "too_late", user="u", item="i", at=DAY + timedelta(days=2))
    react(con, "before", user="u", item="i", at=DAY - timedelta(hours=4))
    rows = run(con, "fb_matches", as_of=DAY + timedelta(days=3))
    assert {row["feedback_id"]: (row["impression_id"], row["matched_by"]) for row in rows} == {
        "named": ("old", "exact"),
        "by_request": ("old", "inferred"),
        "by_user": ("new", "inferred"),
        "wrong_id_but_user": ("new", "inferred"),
        "unknown": (None, "unmatched"),
        "too_late": (None, "unmatched"),
        "before": (None, "unmatched"),
    }


def test_what_is_ingested_later_is_not_read_when_as_of_is_given(con):
    show(con, "a")
    react(con, "late", impression="a", seen=DAY + timedelta(days=2))
    assert run(con, "fb_matches") == []
    assert len(run(con, "fb_matches", is_cut=False)) == 1


def test_grades_follow_event_types_and_count_once(con):
    show(con, "a")
    react(con, "c1", impression="a")
    react(con, "c2", impression="a")
    react(con, "r", "rating", impression="a", value=4.0)
    react(con, "r9", "rating", impression="a", value=99.0, at=DAY - timedelta(hours=1))
    react(con, "d", "dismiss", impression="a")
    rows = {row["event_type"]: row for row in run(con, *LOG[:3])}
    assert {name: row["value"] for name, row in rows.items()} == {"click": 0.2, "rating": 1.0, "dismiss": -0.2}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "click": "click",
        "rating": "late",
        "dismiss": "negative",
    }


def test_rewards_come_from_the_satisfaction_function_in_force(con):
    live = models.live(models.with_satisfaction(models.collect(), "purchase"))
    con.execute(f"create or replace view m6.behaviour as {live}")
    show(con, "1")
    show(con, "2", item="j", rank=2)
    react(con, "a", impression="1", seen=DAY + timedelta(hours=1))
    react(con, "b", "purchase", impression="2", value=20.0)
    values = {(r["impression_id"], r["event_type"]): r["value"] for r in run(con, *LOG[:3])}
    assert values == {("1", "click"): 0.0, ("2", "purchase"): 1.0}
    rewards = dict(con.execute("select impression_id, reward from m6.impression_rewards").fetchall())
    assert rewards == {"1": 0.0, "2": 1.0}


def test_reward_without_a_click_is_direct_and_dismissal_costs(con):
    show(con, "bought", rank=1)
    show(con, "ignored", rank=2)
    show(con, "dismissed", rank=3)
    react(con, "p", "purchase", impression="bought")
    react(con, "d", "dismiss", impression="dismissed")
    rows = {row["impression_id"]: row["reward"] for row in run(con, *LOG)}
    assert rows == {"bought": 1.0, "ignored": 0.0, "dismissed": -0.2}


def test_late_value_of_a_click_is_corrected_for_what_has_not_arrived(con):
    """Half of the purchases come a day late: clicks of the last day count half."""
    for age in (1, 0):
        for n in range(400):
            key = f"{age}-{n}"
            at = DAY - timedelta(days=age)
            show(con, key, request=key, at=at)
            react(con, f"c{key}", impression=key, at=at)
            if n < 50 or (age == 1 and n < 100):
                react(con, f"p{key}", "purchase", impression=key, at=at + timedelta(days=n >= 50))
    arrived = {row["age"]: row["arrived"] for row in run(con, *LOG[:4])}
    assert arrived[1] == 1.0
    assert arrived[0] == pytest.approx(1 - 50 / 100)
    value = run(con, *LOG[:5])[0]["value"]
    assert value == pytest.approx(150 / (400 + 400 * 0.5))
    rewards = {row["is_clicked"]: row["reward"] for row in run(con, *LOG)}
    assert rewards == {True: pytest.approx(0.2 + value)}


def test_baseline_is_the_mean_of_the_slot(con):
    for n in range(4):
        show(con, f"a{n}", request=f"r{n}", rank=1)
        show(con, f"b{n}", request=f"r{n}", rank=2)
    react(con, "f", impression="a0")
    rows = run(con, *LOG)
    assert sum(row["advantage"] for row in rows) == pytest.approx(0.0)
    assert {row["impression_id"]: row["advantage"] for row in rows}["a1"] == pytest.approx(-0.05)


def test_statistics_against_numpy(con):
    rng = np.random.default_rng(0)
    for n in range(60):
        show(con, f"a{n}", user=f"u{n}", supporters=int(rng.integers(1, 4)), propensity=float(rng.uniform(0.1, 1)))
        if rng.random() < 0.4:
            react(con, f"f{n}", impression=f"a{n}")
    log = run(con, *LOG)
    found = run(con, "fb_statistics")
    for strategy, bit in (("blended", 0), ("popular", 1)):
        pick = [row for row in log if row["supporters"] >> bit & 1]
        u = np.array([1 / row["propensity"] for row in pick])
        y = np.array([row["advantage"] for row in pick])
        want = [u.sum(), (u**2).sum(), (u * y).sum(), (u**2 * y).sum(), (u**2 * y**2).sum()]
        got = [sum(r[k] for r in found if r["strategy"] == strategy) for k in ("s1", "s2", "sy", "s2y", "s2yy")]
        np.testing.assert_allclose(got, want, atol=1e-8)


def test_gate_and_evidence_against_numpy(con):
    rng = np.random.default_rng(1)
    for n in range(200):
        show(
            con,
            f"a{n}",
            request=f"r{n // 2}",
            user=f"u{n // 2}",
            rank=n % 2 + 1,
            supporters=int(rng.integers(1, 3)),
            propensity=0.5,
        )
        if rng.random() < 0.4:
            react(con, f"f{n}", impression=f"a{n}")
    con.execute("update m6.impressions set policy_version = 7")
    log = run(con, *LOG)
    con.execute(
        "create temp table fb_policies as select '*' as domain, '*' as segment, fold, step, bit, "
        "case when step = -1 then 0.5 when bit = 0 then 0.5 + 0.2 * step else 0.5 - 0.2 * step end as weight "
        "from (select unnest([0, 1, 2, 3]) as fold), (select unnest([-1.0, 0.0, 0.5, 1.0]) as step), "
        "(select unnest([0, 1]) as bit)"
    )
    delta, value = {}, {}
    for row in log:
        p = 0.7 if row["supporters"] == 1 else 0.3
        request = row["request_id"]
        delta[request] = delta.get(request, 0) + (p - 0.5) / 0.5 * row["advantage"]
        value[request] = value.get(request, 0) + p / 0.5 * row["reward"]
    d = np.array(list(delta.values()))
    full = next(row for row in run(con, "fb_memory", "fb_gate") if row["step"] == 1.0)
    assert full["lists"] == 100
    assert full["delta"] == pytest.approx(d.mean(), abs=1e-9)
    assert full["std_error"] == pytest.approx(d.std(ddof=1) / 10, abs=1e-9)
    assert full["value"] == pytest.approx(np.mean(list(value.values())), abs=1e-9)
    assert full["largest_ratio"] == pytest.approx(1.4)
    con.execute("update fb_policies set weight = case when bit = 0 then 0.7 else 0.3 end where step = 0.0")
    evidence = next(row for row in run(con, "fb_evidence", current_version=7) if row["domain"] == "")
    con.execute(resources.read_sql("macros", "ope_radius"))
    radius = con.execute("select m6.ope_radius(100, ?, 0.05, 3000)", [float(d.std(ddof=1))]).fetchall()[0][0]
    assert (evidence["n"], evidence["delta"]) == (100, pytest.approx(d.mean(), abs=1e-9))
    assert evidence["low"] == pytest.approx(d.mean() - radius, abs=1e-9)
    assert evidence["high"] == pytest.approx(d.mean() + radius, abs=1e-9)


def test_what_came_before_a_fall_of_the_reward_counts_little(con):
    rng = np.random.default_rng(5)
    for age, rate in ((4, 0.6), (3, 0.6), (2, 0.6), (1, 0.1), (0, 0.5)):
        for n in range(200):
            key = f"{age}-{n}"
            show(con, key, request=key, user=f"u{n}", at=DAY - timedelta(days=age))
            if rng.random() < rate:
                react(con, f"f{key}", impression=key, at=DAY - timedelta(days=age))
    run(con, *LOG)
    rows = {PERIOD - row["period"]: row for row in run(con, "fb_memory")}
    assert [age for age, row in rows.items() if row["has_fallen"]] == [1]
    assert [rows[age]["memory"] for age in (4, 3, 2, 1, 0)] == [DEFAULTS["forget"]] * 3 + [1.0, 1.0]
    few = {row["period"]: row for row in run(con, "fb_memory", min_lists=201)}
    assert not any(row["has_fallen"] for row in few.values()), "too few lists to say"


def test_the_gate_weighs_periods_by_memory(con):
    for age, clicked in ((1, "a"), (0, "b")):
        for n in range(60):
            for rank, name in ((1, "a"), (2, "b")):
                key = f"{age}-{n}-{rank}"
                supporters = 1 if name == "a" else 2
                show(con, key, request=f"{age}-{n}", user=f"u{n}", rank=rank, supporters=supporters,
                     at=DAY - timedelta(days=age))  # fmt: skip
                if name == clicked and n % 2:
                    react(con, f"f{key}", impression=key, at=DAY - timedelta(days=age))
    run(con, *LOG, "fb_memory")
    con.execute(
        "create temp table fb_policies as select '*' as domain, '*' as segment, fold, step, bit, "
        "case when step = -1 then 0.5 when bit = 0 then 0.5 - 0.4 * step else 0.5 + 0.4 * step end as weight "
        "from (select unnest([0, 1, 2, 3]) as fold), (select unnest([-1.0, 0.0, 1.0]) as step), "
        "(select unnest([0, 1]) as bit)"
    )
    values = []
    for memory in (1.0, 0.0001):
        con.execute("update fb_memory set memory = ? where period < ?", [memory, PERIOD])
        values.append(next(row["value"] for row in run(con, "fb_gate") if row["step"] == 1.0))
    assert values[0] == pytest.approx((0.2 * 0.2 * 0.5 + 1.8 * 0.2 * 0.5) / 2)
    assert values[1] == pytest.approx(1.8 * 0.2 * 0.5, abs=1e-3), "only the last period counts"


def test_a_loss_of_all_together_brings_the_losing_groups_back(con):
    con.execute("create temp table fb_checks (domain varchar, segment varchar, reason varchar)")
    con.execute(
        "create temp table fb_gate as select '*' as domain, segment, step, 500 as lists, 0.01 as delta, "
        "0.001 as std_error, 1.0 as value, 1.0 as current_value, 2.0 as largest_ratio "
        "from (select unnest(['lost', 'losing', 'gaining']) as segment), (select unnest([0.0, 1.0]) as step)"
    )
    con.execute(
        "create temp table fb_evidence as select * from (values ('*', 'lost', 500, -0.3, -0.4, -0.2), "
        "('*', 'losing', 500, -0.1, -0.2, 0.1), ('*', 'gaining', 500, 0.1, -0.1, 0.2), "
        "('', '', 1500, -0.1, -0.2, -0.01)) as t (domain, segment, n, delta, low, high)"
    )
    found = {row["segment"]: (row["status"], row["step"]) for row in run(con, "fb_decisions")}
    back = ("rolled_back", 0.0)
    assert found == {"lost": back, "losing": back, "gaining": ("accepted", 1.0)}
    con.execute("update fb_evidence set high = 0.01 where domain = ''")
    found = {row["segment"]: (row["status"], row["step"]) for row in run(con, "fb_decisions")}
    assert found == {"lost": back, "losing": ("accepted", 1.0), "gaining": ("accepted", 1.0)}


def logged(con, lists=500):
    """Two slots per list under the default weights, 'popular' clicked three times as often."""
    version = ensure_default_policy(con)
    con.execute("update m6.strategy_weights set weight = 0.5")
    rng = np.random.default_rng(2)
    for n in range(lists):
        for rank in (1, 2):
            bit = int(rng.integers(0, 2))
            name = ("blended", "popular")[bit]
            show(con, f"{n}-{rank}", request=f"{n}", user=f"u{n}", rank=rank, strategy=name, supporters=1 << bit)
            if rng.random() < (0.6 if bit else 0.2):
                react(con, f"f{n}-{rank}", impression=f"{n}-{rank}")
    con.execute("update m6.impressions set policy_version = ?", [version])
    con.execute("insert into m6.policy_versions (policy_version, status) values (2, 'candidate'), (3, 'shadow')")
    con.execute(
        "insert into m6.strategy_weights (policy_version, strategy, weight) "
        "values (2, 'blended', 0.2), (2, 'popular', 0.8)"
    )


def test_policy_value_finds_the_value(con):
    logged(con)
    rows = {row[0]: row for row in policy_value(con, 2).fetchall()}
    want = 0.2 * (0.2 * 0.2 + 0.8 * 0.6)
    for name in ("ips", "snips", "dr", "sndr", "switch_dr", "dros", "sgdr", "dm"):
        assert rows[name][1] == pytest.approx(want, abs=0.02), name
        assert rows[name][8] == "ok"
    for name in ("slot_ratio", "rips", "sn_rips", "sips"):
        assert rows[name][1] == pytest.approx(2 * want, abs=0.04), name
    active = {row[0]: row for row in policy_value(con, "active").fetchall()}
    total = con.execute("select avg(reward) from m6.impression_rewards").fetchall()[0][0]
    assert active["ips"][1] == pytest.approx(total)
    assert active["ips"][7] == pytest.approx(1.0)


def test_errors_of_policy_value_are_clustered_by_user(con):
    logged(con)
    con.execute("update m6.impressions set user_id = 'u' || hash(request_id) % 40")
    rows = con.execute("select user_id, ratio * reward from m6.policy_rounds('2') order by all").fetchall()
    users = sorted({user for user, _ in rows})
    value = np.mean([term for _, term in rows])
    sums = np.array([sum(term - value for user, term in rows if user == u) for u in users])
    want = np.sqrt(len(users) / (len(users) - 1) * (sums**2).sum()) / len(rows)
    found = {row[0]: row for row in policy_value(con, 2).fetchall()}
    assert found["ips"][2] == pytest.approx(want)


def test_policy_value_refuses_thin_support(con):
    logged(con, lists=60)
    rows = policy_value(con, 2).fetchall()
    refused = [row for row in rows if row[0] != "dm" and row[8] == "insufficient_support"]
    assert len(refused) == len(rows) - 1 - sum(row[8] == "ok" and row[0] != "dm" for row in rows)
    assert all(row[1] is None and "at least 200 needed" in row[9] for row in refused)
    assert refused


def test_policy_value_knows_its_names(con):
    ensure_default_policy(con)
    with pytest.raises(UnknownNameError, match="expected candidate"):
        policy_value(con, "best")
    with pytest.raises(UnknownNameError, match="no table or view my_log"):
        policy_value(con, log="my_log")
    with pytest.raises(ParameterError):
        policy_value(con, log="x; drop table y")
    con.execute("create table my_log as select 1 as reward")
    with pytest.raises(SchemaError, match="lacks propensity, target_propensity"):
        policy_value(con, log="my_log")


def test_strategy_report(con):
    logged(con, lists=100)
    rows = {row[2]: row for row in con.execute("from m6.strategy_report()").fetchall()}
    assert set(rows) == {"blended", "popular"}
    assert rows["popular"][3] == 0.5
    assert sum(row[4] for row in rows.values()) == 200
    assert sum(row[8] for row in rows.values()) == pytest.approx(1.0)
    assert rows["popular"][6] < rows["popular"][5] < rows["popular"][7]
    assert rows["popular"][5] > rows["blended"][5]
