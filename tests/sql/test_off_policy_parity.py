"""The SQL estimators against stored values (folder in M6REC_PARITY) and against numpy on generated logs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pytest

from m6rec_udf import resources
from m6rec_udf.errors import ParameterError, SchemaError
from m6rec_udf.policy import policy_value

FOLDER = os.environ.get("M6REC_PARITY")
needs_folder = pytest.mark.skipif(FOLDER is None, reason="M6REC_PARITY (folder of the stored values) is not set")
CLOSE = {"rel": 1e-9, "abs": 1e-9}


@pytest.fixture
def con():
    con = duckdb.connect()
    con.execute("create schema m6")
    formulas = ("ope_term", "ope_student", "ope_radius", "ope_bet")
    for name in (*formulas, "log_value", "slate_value", "log_rounds", "log_support"):
        con.execute(resources.read_sql("macros", name))
    return con


def expected(name="expected.json"):
    return json.loads((Path(FOLDER) / name).read_text())


def parquet(name):
    return str(Path(FOLDER) / f"{name}.parquet")


def check(con, table, stored, model):
    """Compare every stored estimator of one reward model; returns how many were compared."""
    cursor = con.execute(f"from m6.log_value('{table}')")
    names = [column[0] for column in cursor.description]
    found = {}
    for row in cursor.fetchall():
        values = dict(zip(names, row, strict=True))
        tuning = "" if values["parameter"] is None else f"[{values['parameter']:g}]"
        found[values["estimator"] + tuning] = values
    truth = stored["ground_truth_exact"] if stored["kind"] == "synthetic" else stored["ground_truth_on_policy"]
    compared = 0
    for key, want in stored["expected"].items():
        name, _, of_model = key.partition("|")
        if of_model not in ("", model):
            continue
        got = found[name]
        pairs = {
            "value": "value",
            "round_sd": "round_sd",
            "se": "std_error",
            "lcb95_normal": "lower_95",
            "lcb95_t": "lower_95_t",
        }
        for stored_name, column in pairs.items():
            assert got[column] == pytest.approx(want[stored_name], **CLOSE), (key, stored_name)
        assert abs(got["value"] - truth) / truth == pytest.approx(want["rel_error"], **CLOSE), key
        compared += 1
    return compared


@needs_folder
@pytest.mark.parametrize("model", ["smooth", "oracle"])
def test_synthetic(con, model):
    con.execute(f"create view log as from '{parquet('synthetic.log')}'")
    con.execute(f"create view policy as from '{parquet('synthetic.policy')}'")
    con.execute(
        """create table smooth as
        with ctr as (select row_id % 2 as fold, avg(reward) as ctr from log group by all),
        cells as (select row_id % 2 as fold, segment, action, sum(reward) as r, count(*) as n from log group by all)
        select f.fold, k.segment, a.action, (coalesce(r, 0) + 10 * ctr) / (coalesce(n, 0) + 10) as q
        from (select unnest([0, 1]) as fold) as f
        cross join (select distinct segment from log) as k cross join (select distinct action from log) as a
        join ctr on ctr.fold = 1 - f.fold
        left join cells as c on c.fold = 1 - f.fold and c.segment = k.segment and c.action = a.action"""
    )
    q = "s.q" if model == "smooth" else "p.q_true"
    con.execute(
        f"""create table rounds as
        select max(p.pi_e) filter (where p.action = l.action) / any_value(l.pscore) as ratio,
            any_value(l.reward) as reward, max({q}) filter (where p.action = l.action) as predicted,
            sum(p.pi_e * {q}) as expected
        from log as l join policy as p using (row_id)
        join smooth as s on s.fold = l.row_id % 2 and s.segment = l.segment and s.action = p.action
        group by l.row_id"""
    )
    assert check(con, "rounds", expected()["synthetic"], model) == 27


@needs_folder
@pytest.mark.parametrize("model", ["smooth", "logreg"])
@pytest.mark.parametrize("name", ["obd_all_random_to_bts", "obd_all_bts_to_random"])
def test_open_bandit(con, name, model):
    con.execute(f"create view log as from '{parquet(name + '.log')}'")
    con.execute(f"create view policy as from '{parquet(name + '.policy')}'")
    con.execute(
        """create table smooth as
        with ctr as (select row_id % 2 as fold, avg(reward) as ctr from log group by all),
        cells as (select row_id % 2 as fold, position, action, sum(reward) as r, count(*) as n from log group by all)
        select f.fold, p.position, p.action, p.pi_e, (coalesce(r, 0) + 100 * ctr) / (coalesce(n, 0) + 100) as q
        from (select unnest([0, 1]) as fold) as f cross join policy as p
        join ctr on ctr.fold = 1 - f.fold
        left join cells as c on c.fold = 1 - f.fold and c.position = p.position and c.action = p.action"""
    )
    q, d = ("s.q", "m.d") if model == "smooth" else ("l.q_logreg_factual", "l.dm_logreg")
    con.execute(
        f"""create table rounds as
        with m as (select fold, position, sum(pi_e * q) as d from smooth group by all)
        select s.pi_e / l.pscore as ratio, l.reward, {q} as predicted, {d} as expected
        from log as l
        join smooth as s on s.fold = l.row_id % 2 and s.position = l.position and s.action = l.action
        join m on m.fold = l.row_id % 2 and m.position = l.position"""
    )
    assert check(con, "rounds", expected()[name], model) == 27


@needs_folder
def test_slate(con):
    stored = expected()["slate"]
    con.execute(
        f"""create view slots as select slate_id as list_id, position as rank, reward,
        eval_pscore_item_position / pscore_item_position as slot_ratio,
        eval_pscore_cascade / pscore_cascade as prefix_ratio, eval_pscore / pscore as list_ratio
        from '{parquet("slate.log")}'"""
    )
    found = dict(con.execute("from m6.slate_value('slots')").fetchall())
    for key, want in stored["expected"].items():
        assert found[key] == pytest.approx(want["value"], **CLOSE), key
        error = abs(found[key] - stored["ground_truth_exact"]) / stored["ground_truth_exact"]
        assert error == pytest.approx(want["rel_error"], **CLOSE), key


MIXTURE = """
create table mixture as
with target as (
    select l.impression_id, sum(w.w_new) as p_new, sum(w.w_old) as p_old
    from log as l join weights as w on w.segment = l.segment and (l.supporters >> w.strategy) & 1 = 1
    group by all
)
select l.*, p_new / propensity as ratio, (p_new - p_old) / propensity as difference,
    reward - avg(reward) over (partition by slot) as advantage
from log as l join target using (impression_id);
create view slots as select request_id as list_id, slot as rank, reward, ratio as slot_ratio,
    product(ratio) over (partition by request_id order by slot) as prefix_ratio,
    product(ratio) over (partition by request_id) as list_ratio
from mixture;
create table deltas as select request_id, sum(difference * advantage) as delta from mixture group by all;
"""


@needs_folder
def test_mixture(con):
    stored = expected("expected_mixture.json")
    con.execute(f"create view log as from '{parquet('mixture.log')}'")
    con.execute(f"create view weights as from '{parquet('mixture.weights')}'")
    con.execute(MIXTURE)
    found = dict(con.execute("from m6.slate_value('slots')").fetchall())
    names = {"iips": "slot_ratio", "rips": "rips", "sn_iips": "sn_slot_ratio", "sn_rips": "sn_rips"}
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(stored[theirs], **CLOSE), theirs
    row = con.execute(
        "select avg(delta), stddev_samp(delta), avg(delta) - m6.ope_radius(count(*), stddev_samp(delta), 0.05, 3000), "
        "m6.ope_bet(delta / $scale) from deltas",
        {"scale": stored["bet_scale"]},
    ).fetchall()[0]
    keys = (
        "delta_slot_baseline_mean",
        "delta_slot_baseline_sd",
        "delta_asymp_lcb95_nstar3000",
        "bet_log_e_final",
    )
    for value, key in zip(row, keys, strict=True):
        assert value == pytest.approx(stored[key], **CLOSE), key
    for n, want in stored["sequential_asymp_lcb95_nstar3000"].items():
        got = con.execute(
            "select avg(x) - m6.ope_radius(count(*), stddev_samp(x), 0.05, 3000) "
            f"from '{parquet('sequential')}' where i < ?",
            [int(n)],
        ).fetchall()[0][0]
        assert got == pytest.approx(want, **CLOSE), n


@needs_folder
def test_mixture_statistics_by_the_model_of_the_loop(con):
    """sql/feedback/fb_statistics.sql itself, on the stored log."""
    stored = expected("expected_mixture.json")["strategy_stats"]
    con.execute(f"create view log as from '{parquet('mixture.log')}'")
    con.execute("create table m6.strategies as select cast(range as varchar) as strategy, range as bit from range(6)")
    con.execute(
        "create temp table fb_log as select 0 as period, '*' as domain, cast(segment as varchar) as segment, "
        "0 as fold, cast(supporters as ubigint) as supporters, propensity, "
        "reward - avg(reward) over (partition by slot) as advantage from log"
    )
    rows = con.execute(resources.read_sql("feedback", "fb_statistics")).fetchall()
    assert len(rows) == len(stored) == 24
    for _, _, segment, _, strategy, s1, s2, sy, _, _ in rows:
        want = stored[f"{segment},{strategy}"]
        found = {"sw": s1, "sw2": s2, "swy": sy, "hajek": sy / s1, "neff": s1**2 / s2}
        for key, value in found.items():
            assert value == pytest.approx(want[key], **CLOSE), (segment, strategy, key)


def test_generated_log_against_numpy(con):
    rng = np.random.default_rng(3)
    n = 500
    pi = rng.dirichlet(np.ones(4), size=n) * 0.9 + 0.025
    mu = rng.dirichlet(np.ones(4), size=n) * 0.6 + 0.1
    action = np.array([rng.choice(4, p=row) for row in mu])
    rows = np.arange(n)
    w, q = pi[rows, action] / mu[rows, action], rng.random((n, 4))
    r, d, qf = rng.random(n), (pi * q).sum(1), q[rows, action]
    con.execute(
        "create table rounds as select unnest(?::double[]) as reward, unnest(?::double[]) as propensity, "
        "unnest(?::double[]) as target_propensity, unnest(?::double[]) as predicted, unnest(?::double[]) as expected",
        [x.tolist() for x in (r, mu[rows, action], pi[rows, action], qf, d)],
    )
    cursor = policy_value(con, log="rounds")
    found = {(row[0], row[1]): row for row in cursor.fetchall()}
    terms = {
        ("ips", None): w * r,
        ("snips", None): w * r / w.mean(),
        ("ips_clip", 5.0): np.minimum(w, 5) * r,
        ("sgips", 0.1): w / (0.9 + 0.1 * w) * r,
        ("dm", None): d,
        ("dr", None): d + w * (r - qf),
        ("sndr", None): d + w * (r - qf) / w.mean(),
        ("switch_dr", 2.0): d + np.where(w <= 2, w, 0) * (r - qf),
        ("dros", 10.0): d + 10 * w / (w**2 + 10) * (r - qf),
        ("sgdr", 0.1): d + w / (0.9 + 0.1 * w) * (r - qf),
    }
    for key, term in terms.items():
        assert found[key][2] == pytest.approx(term.mean(), **CLOSE), key
        assert found[key][3] == pytest.approx(term.std(ddof=1), **CLOSE), key


def own_log(con, n=4000, seed=5):
    """Two contexts, three actions; the truth is known. Returns the value of the target."""
    rng = np.random.default_rng(seed)
    logged = {"a": [0.6, 0.3, 0.1], "b": [0.2, 0.2, 0.6]}
    target = {"a": [0.2, 0.3, 0.5], "b": [0.5, 0.25, 0.25]}
    click = {"a": [0.1, 0.2, 0.5], "b": [0.4, 0.1, 0.2]}
    rows = []
    for _ in range(n):
        c = "ab"[rng.integers(2)]
        action = int(rng.choice(3, p=logged[c]))
        rows.append((c, f"x{action}", float(rng.random() < click[c][action]), logged[c][action]))
    con.execute("create table my_log (context varchar, action varchar, reward double, propensity double)")
    con.executemany("insert into my_log values (?, ?, ?, ?)", rows)
    con.execute("create table my_policy (context varchar, action varchar, probability double)")
    policy = [(c, f"x{a}", p) for c, shares in target.items() for a, p in enumerate(shares)]
    con.executemany("insert into my_policy values (?, ?, ?)", policy)
    return np.mean([np.dot(target[c], click[c]) for c in "ab"])


def test_a_log_of_your_own_with_logged_and_with_estimated_propensities(con):
    truth = own_log(con)
    for name in ("my_log", "without"):
        con.execute("create or replace view without as select * exclude (propensity) from my_log")
        rows = policy_value(con, log=name, target="my_policy").fetchall()
        names = [column[0] for column in policy_value(con, log=name, target="my_policy").description]
        found = {(r[0], r[1]): dict(zip(names, r, strict=True)) for r in rows}
        for key in (("ips", None), ("snips", None), ("dr", None), ("sndr", None), ("switch_dr", 10.0), ("dm", None)):
            assert found[key]["value"] == pytest.approx(truth, abs=0.03), (name, key)
        assert found["ips", None]["status"] == "ok"
        said = found["ips", None]["reason"]
        assert ("estimated" in said) == (name == "without"), said
    assert con.execute("select avg(ratio) from m6.log_rounds('my_log', 'my_policy')").fetchall()[0][0] == pytest.approx(
        1.0, abs=0.05
    )


def test_a_log_of_your_own_refuses_what_was_never_shown(con):
    own_log(con, n=500)
    con.execute("insert into my_policy values ('a', 'x9', 0.5)")
    with pytest.raises(SchemaError, match=r"context 'a' sum to 1\.5"):
        policy_value(con, log="my_log", target="my_policy")
    con.execute("update my_policy set probability = probability / 1.5 where context = 'a'")
    rows = policy_value(con, log="my_log", target="my_policy")
    said = {row[0]: row[-2:] for row in rows.fetchall()}
    assert said["ips"][0] == "insufficient_support"
    assert "never possible in the log" in said["ips"][1]


def test_a_log_of_your_own_names_its_mistakes(con):
    own_log(con, n=50)
    with pytest.raises(ParameterError, match="without a log"):
        policy_value(con, target="my_policy")
    con.execute("create table bare as select 1 as probability")
    with pytest.raises(SchemaError, match="lacks context, action; it has"):
        policy_value(con, log="my_log", target="bare")
    con.execute("update my_log set propensity = 0 where reward = 1")
    with pytest.raises(SchemaError, match="rows break"):
        policy_value(con, log="my_log", target="my_policy")


def test_generated_slates_against_numpy(con):
    rng = np.random.default_rng(4)
    ratio, reward = rng.gamma(4, 0.25, size=(300, 3)), rng.random((300, 3))
    con.execute(
        "create table lists as select unnest(range(900)) // 3 as list_id, unnest(range(900)) % 3 as rank, "
        "unnest(?::double[]) as slot_ratio, unnest(?::double[]) as prefix_ratio, unnest(?::double[]) as list_ratio, "
        "unnest(?::double[]) as reward",
        [
            ratio.ravel().tolist(),
            ratio.cumprod(1).ravel().tolist(),
            np.repeat(ratio.prod(1), 3).tolist(),
            reward.ravel().tolist(),
        ],
    )
    found = dict(con.execute("from m6.slate_value('lists')").fetchall())
    prefix, whole = ratio.cumprod(1), ratio.prod(1)[:, None]
    for name, w in {"iips": ratio, "rips": prefix, "sips": whole * np.ones((1, 3))}.items():
        assert found[name] == pytest.approx((w * reward).sum(1).mean(), **CLOSE)
        assert found[f"sn_{name}"] == pytest.approx(((w * reward).mean(0) / w.mean(0)).sum(), **CLOSE)


def test_confidence_sequence_and_bet_against_numpy(con):
    x = np.random.default_rng(5).normal(0.02, 0.2, 400).clip(-1)
    n, alpha, n_star = len(x), 0.05, 3000
    r2 = (2 * np.log(1 / (2 * alpha)) + np.log(1 + 2 * np.log(1 / (2 * alpha)))) / n_star
    radius = x.std(ddof=1) * np.sqrt(2 * (n * r2 + 1) / (n**2 * r2) * np.log(1 + np.sqrt(n * r2 + 1) / (2 * alpha)))
    bet = np.log(np.mean([np.prod(1 + g * x) for g in (0.01, 0.03, 0.1, 0.3, 0.9)]))
    found = con.execute(
        "select m6.ope_radius(count(*), stddev_samp(x), 0.05, 3000), m6.ope_bet(x) "
        "from (select unnest(?::double[]) as x)",
        [x.tolist()],
    ).fetchall()[0]
    assert found == pytest.approx((radius, bet), **CLOSE)
