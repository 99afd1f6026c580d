"""Interleaving, A/B reports, what-if, shadow lists and decisions: what an analyst asks of the log."""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import loop_world
import numpy as np
import polars as pl
import pytest
import shop_world
from scipy import stats
from shop_world import ITEMS, USERS, category_of, rows

import m6rec_udf as m6
from m6rec_udf import candidates
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import NotBuiltError, ParameterError, UnknownNameError

versions = importlib.import_module("m6rec_udf.policy_versions")
NOON = datetime(2024, 7, 20, 12)
SHADOW = {"apprentice": True, "max_kl": 0.15}  # a step that the log can still judge
LEVEL = (
    "update m6.strategy_weights set weight = case when strategy = 'blended' then 0.3 "
    "else 0.7 / (select count(*) - 1 from m6.strategies) end"
)


@pytest.fixture(scope="module", autouse=True)
def few_candidates():
    """Five candidates a strategy: in a shop of 80 items sixty would make all of them agree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "PER_STRATEGY", 5)
        yield


@pytest.fixture(scope="module")
def builds(built_file, few_candidates, tmp_path_factory):
    """A closed file with the builds 1 graded, 2 purchase, 3 confused: it learned from behaviour of exchanged users;
    and the policies 1 level, 2 blended alone, 3 popular alone."""
    path = shutil.copy(built_file, tmp_path_factory.mktemp("experiments") / "shop.duckdb")
    con = shop_world.connect(path)
    assert m6.build(con, satisfaction="purchase", activate=False).model_version == 2
    con.execute("create temp table kept as from m6.events")
    con.execute("update m6.events set user_id = format('u{:02d}', hash(event_id, 1) % 60)")
    assert m6.build(con, activate=False).model_version == 3
    con.execute("delete from m6.events")
    con.execute("insert into m6.events from kept")
    con.execute(LEVEL)
    for version, strategy in ((2, "blended"), (3, "popular")):
        con.execute("insert into m6.policy_versions (policy_version, status) values (?, 'superseded')", [version])
        con.execute("insert into m6.strategy_weights values (?, '*', '*', ?, 1.0, 0.0)", [version, strategy])
    con.close()
    return path


@pytest.fixture
def lab(builds, tmp_path):
    con = shop_world.connect(shutil.copy(builds, tmp_path / "shop.duckdb"))
    yield con
    con.close()


@pytest.fixture(scope="module")
def watched(builds, tmp_path_factory):
    """Shared by the tests that only read."""
    con = shop_world.connect(shutil.copy(builds, tmp_path_factory.mktemp("watched") / "shop.duckdb"))
    yield con
    con.close()


def dicts(con, sql, parameters=None):
    cursor = con.execute(sql, parameters if parameters is not None else [])
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def show(con, sql, **parameters):
    """Insert into m6.impressions by name what a macro gives."""
    con.execute(f"insert into m6.impressions by name from {sql}", parameters or None)


def react(con, chance, seed=0):
    """Clicks on what was shown and not yet answered; ``chance`` of a row of user_id, item_id, rank, request_id."""
    rng = np.random.default_rng(seed)
    shown = dicts(
        con,
        "select impression_id, request_id, user_id, item_id, rank, strategy, shown_at from m6.impressions "
        "where impression_id not in (select impression_id from m6.feedback where impression_id is not null) "
        "order by request_id, rank",
    )
    clicked = [
        ("f" + row["impression_id"], row["impression_id"], row["shown_at"] + timedelta(minutes=1))
        for row, draw in zip(shown, rng.random(len(shown)), strict=True)
        if draw < chance(row)
    ]
    frame = pl.DataFrame(
        clicked,
        schema={"feedback_id": pl.String, "impression_id": pl.String, "happened_at": pl.Datetime("us")},
        orient="row",
    )
    con.register("clicks", frame)
    con.execute("insert into m6.feedback by name select *, 'click' as event_type from clicks")
    con.unregister("clicks")


def by_taste(row):
    """People of the shop like one category each, and look at the top first."""
    user, item = row["user_id"], row["item_id"]
    likes = user in USERS and category_of(ITEMS.index(item)) == USERS.index(user) % 4
    return (0.7 if likes else 0.1) / row["rank"] ** 0.3


# interleaving


@pytest.mark.parametrize(("a", "b"), [("version_1", "version_2"), ("2", "policy_3"), ("policy_2", "policy_3")])
def test_a_team_draft_picks_the_best_item_left_of_the_team_with_fewer_picks(watched, a, b):
    version = lambda name: "" if "policy" in name else f"version := {name.removeprefix('version_')}"  # noqa: E731
    drawn = dicts(
        watched,
        f"from m6.interleave_many('audience', a := '{a}', b := '{b}', k := 8, seed := 5) order by user_id, rank",
    )
    assert len(drawn) == 8 * 62
    for user in ("u05", "u12", "u33", "nobody"):
        best = {}
        for team, name in (("team_a", a), ("team_b", b)):
            if "policy" in name:
                sql = f"select item_id from m6.slates([?], k := 8, policy := {name[-1]}) order by rank"
            else:
                sql = f"select item_id from m6.recommend(?, k := 8, {version(name)}) order by rank"
            best[team] = [item for (item,) in rows(watched, sql, [user])]
        taken, lead = [], 0
        for rank, row in enumerate([row for row in drawn if row["user_id"] == user], 1):
            team = row["strategy"].split(":")[0]
            upcoming = {name: next(i for i in items if i not in taken) for name, items in best.items()}
            assert row["rank"] == rank
            assert row["item_id"] == upcoming[team]
            same = upcoming["team_a"] == upcoming["team_b"]
            assert row["propensity"] == (0.5 if lead == 0 and not same else 1.0)
            assert lead == 0 or team == ("team_b" if lead > 0 else "team_a")
            assert (row["supporters"], row["eligible"], row["seed"]) == (0, 0, 5)
            lead += 1 if team == "team_a" else -1
            taken.append(row["item_id"])


def test_the_coin_of_a_draft_is_fair_and_its_own_for_every_user_and_place(watched):
    watched.execute("create or replace table crowd as select 'x' || n as user_id from range(600) as t(n)")
    drawn = rows(
        watched,
        "select user_id, rank, starts_with(strategy, 'team_a') from "
        "m6.interleave_many('crowd', a := '1', b := 'policy_3', k := 4, seed := 1) where rank in (1, 3)",
    )
    first, third = ({user: team for user, rank, team in drawn if rank == place} for place in (1, 3))
    for coins in (first, third):
        assert abs(sum(coins.values()) - 300) < 4 * 600**0.5 / 2
    assert abs(sum(first[user] == third[user] for user in first) - 300) < 4 * 600**0.5 / 2


def test_the_seed_of_a_draft_is_logged_and_draws_it_again(watched):
    sql = "select item_id, strategy, seed from m6.interleave('u09', a := '1', b := 'policy_3', k := 10"
    drawn = rows(watched, f"{sql}) order by rank")
    assert rows(watched, f"{sql}, seed := {drawn[0][2]}) order by rank") == drawn
    others = {tuple(rows(watched, f"{sql}, seed := {seed}) order by rank")) for seed in range(8)}
    assert len(others) > 1


def test_the_better_ranker_wins(lab):
    """Taste decides in the world; version 1 knows it, version 3 does not. Whoever is called a."""
    for day in range(4):
        a, b = ("version_1", "version_3") if day % 2 else ("version_3", "version_1")
        show(
            lab,
            f"m6.interleave_many('audience', a := '{a}', b := '{b}', k := 8, seed := {day}, request := 'd{day}', "
            "moment := $moment)",
            moment=NOON + timedelta(days=day),
        )
        react(lab, by_taste, seed=day)
    ((report),) = dicts(lab, "from m6.interleave_report()")
    assert (report["a"], report["b"], report["lists"]) == ("version_1", "version_3", 4 * 62)
    assert report["status"] == "a_is_better"
    assert report["wins_a"] > report["wins_b"]
    assert report["low"] > 0
    assert report["credit_a"] > report["credit_b"]
    assert report["wins_a"] + report["wins_b"] + report["ties"] == report["answered"]
    assert report["delta"] == pytest.approx((report["wins_a"] + report["ties"] / 2) / report["answered"] - 0.5)
    assert report["p_value"] == pytest.approx(
        stats.binomtest(report["users_a"], report["users_a"] + report["users_b"]).pvalue
    )
    half = dicts(lab, "from m6.interleave_report(since := ?)", [NOON + timedelta(days=2)])
    assert half[0]["lists"] == 2 * 62
    assert dicts(lab, "from m6.interleave_report(until := ?)", [NOON]) == []


def test_a_ranker_against_itself_is_level(lab):
    for day in range(4):
        show(
            lab,
            f"m6.interleave_many('audience', a := 'version_1', b := '1', k := 6, seed := {day}, "
            f"request := 'd{day}', moment := $moment)",
            moment=NOON + timedelta(days=day),
        )
        react(lab, by_taste, seed=day)
    ((report),) = dicts(lab, "from m6.interleave_report()")
    assert (report["a"], report["b"]) == ("version_1", "version_1")
    assert abs(report["delta"]) < 3 * report["std_error"]
    assert report["low"] < 0 < report["high"]
    assert report["status"] == "no_difference_shown"


def test_the_interval_of_a_report_is_clustered_by_user(lab):
    """Ten lists of one mind are one opinion: the error must not shrink by repeating the lists."""
    for copy in range(10):
        show(
            lab,
            f"m6.interleave_many('audience', a := '1', b := 'policy_3', k := 6, seed := 1, request := 'c{copy}', "
            "moment := $moment)",
            moment=NOON,
        )
        if copy == 0:
            react(lab, by_taste)
            lab.execute("create temp table liked as select * from m6.feedback where feedback_id like 'fc%'")
            once = dicts(lab, "from m6.interleave_report()")[0]
        else:
            lab.execute(
                "insert into m6.feedback by name select replace(feedback_id, 'fc0', 'fc' || $c) as feedback_id, "
                "replace(impression_id, 'c0', 'c' || $c) as impression_id, event_type, happened_at from liked",
                {"c": copy},
            )
    many = dicts(lab, "from m6.interleave_report()")[0]
    assert many["lists"] == 10 * once["lists"]
    for name in ("delta", "std_error", "p_value", "users_a", "users_b"):
        assert many[name] == pytest.approx(once[name])


def test_interleaved_lists_stay_out_of_reweighting(lab):
    show(lab, "m6.interleave_many('audience', a := '1', b := '2', request := 'i', moment := $moment)", moment=NOON)
    react(lab, by_taste)
    assert rows(lab, "select count(*) from m6.impression_rewards") == [(0,)]
    assert rows(lab, "select count(*) > 600, sum(reward) > 0 from m6.shown_rewards") == [(True, True)]
    assert m6.reweight(lab)["changed"] is False


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("'version_1'", "'version_7'", "there is no build version_7, expected one of version_1, version_2, version_3"),
        ("'latest'", "'1'", "there is no build latest"),
        ("'1'", "'policy_9'", "there is no policy policy_9 with weights"),
        ("'1'", "null", "there is no build NULL"),
    ],
)
def test_a_ranker_that_does_not_exist_is_named(watched, a, b, words):
    with pytest.raises(duckdb.Error, match=words):
        rows(watched, f"from m6.interleave('u05', a := {a}, b := {b})")


def test_shown_rewards_agrees_with_impression_rewards(lab):
    show(lab, "m6.serve_many('audience', request := 's', seed := 1, moment := $moment)", moment=NOON)
    react(lab, by_taste)
    lab.execute(
        "insert into m6.feedback by name select 'late' || impression_id as feedback_id, user_id, item_id, "
        "'purchase' as event_type, shown_at + interval 2 hours as happened_at from m6.impressions where rank = 2"
    )
    both = rows(
        lab,
        "select count(*), sum(s.reward), max(abs(s.reward - i.reward)) from m6.shown_rewards as s "
        "inner join m6.impression_rewards as i using (impression_id)",
    )
    assert both[0][0] > 500
    assert both[0][1] > 60
    assert both[0][2] == 0
    lab.execute(
        "insert into m6.feedback by name select 'asked' as feedback_id, request_id, item_id, 'like' as event_type, "
        "shown_at + interval 9 days as happened_at from m6.impressions where request_id = 's-u01' and rank = 9"
    )
    assert rows(lab, "select is_answered from m6.shown_rewards where impression_id = 's-u01-9'") == [(True,)]


# A/B


def arm_in_python(user, experiment, share=0.5):
    digest = hashlib.sha256(f"{len(experiment)}:{experiment}:{user}".encode()).hexdigest()
    return "b" if int(digest[:13], 16) / 2**52 < share else "a"


def test_arms_come_from_sha256_and_nothing_else(watched):
    users = [f"user {n}" for n in range(300)] + ["żółw", "", "a'b"]
    for experiment, share in (("new_weights", 0.5), ("zweiter Versuch", 0.2)):
        found = rows(
            watched,
            "select u, m6.assign(u, $e, share := $s) from unnest($u) as t(u)",
            {"e": experiment, "s": share, "u": users},
        )
        assert dict(found) == {user: arm_in_python(user, experiment, share) for user in users}
    assert rows(watched, "select m6.assign('u42', 'new_weights'), m6.assign(null, 'new_weights')") == [("a", None)]


def test_shares_are_kept_and_experiments_are_independent(watched):
    table = rows(
        watched,
        "select m6.assign(u, 'x', share := 0.3), m6.assign(u, 'y'), count(*) "
        "from (select 'u' || n as u from range(20000) as t(n)) group by all order by all",
    )
    counts = np.array([n for _, _, n in table]).reshape(2, 2)
    assert stats.chi2_contingency(counts).pvalue > 0.001
    assert stats.binomtest(int(counts[1].sum()), 20000, 0.3).pvalue > 0.001


def ab_world(con, *, lift, users=600, seed=0, keep=lambda arm, n: True):
    """Lists of one item; a click is worth 0.2; users differ, arm b clicks ``lift`` times as often."""
    rng = np.random.default_rng(seed)
    impressions, feedback = [], []
    for n in range(users):
        arm = arm_in_python(f"p{n}", "lift")
        rate = rng.beta(2, 4)
        if not keep(arm, n):
            continue
        for request in range(int(rng.integers(1, 8))):
            key = f"{n}-{request}"
            impressions.append((key, f"p{n}"))
            if rng.random() < rate * (lift if arm == "b" else 1):
                feedback.append((key,))
    con.register("shown", pl.DataFrame(impressions, schema=["key", "person"], orient="row"))
    con.register("liked", pl.DataFrame(feedback, schema=["key"], orient="row"))
    con.execute(
        "insert into m6.impressions by name select key as impression_id, key as request_id, person as user_id, "
        "'i01' as item_id, 1 as rank, 'blended' as strategy, 1 as supporters, 1 as eligible, 1.0 as propensity, "
        "timestamp '2024-08-01' as shown_at from shown"
    )
    con.execute(
        "insert into m6.feedback by name select 'f' || key as feedback_id, key as impression_id, "
        "'click' as event_type, timestamp '2024-08-02' as happened_at from liked"
    )


@pytest.fixture
def empty():
    con = m6.connect(":memory:", encoder=HashEncoder(8))
    yield con
    con.close()


def test_an_ab_report_is_the_clustered_ratio_estimator(empty):
    ab_world(empty, lift=1.5)
    report = {row["arm"]: row for row in dicts(empty, "from m6.ab_report('lift')")}
    people = rows(
        empty,
        "select user_id, count(*), sum(reward) from m6.shown_rewards group by user_id order by user_id",
    )
    expected = {}
    for arm in ("a", "b"):
        n, y = np.array([(n, y) for user, n, y in people if arm_in_python(user, "lift") == arm]).T
        ratio = y.sum() / n.sum()
        error = np.sqrt(((y - ratio * n) ** 2).sum() * len(n) / (len(n) - 1)) / n.sum()
        expected[arm] = (len(n), n.sum(), ratio, error)
        got = [report[arm][name] for name in ("users", "requests", "reward_per_request", "std_error")]
        assert got == pytest.approx(expected[arm])
        assert report[arm]["low"] == pytest.approx(ratio - 1.959964 * error)
    difference = report["b - a"]
    assert difference["reward_per_request"] == pytest.approx(expected["b"][2] - expected["a"][2])
    error = np.hypot(expected["a"][3], expected["b"][3])
    assert difference["std_error"] == pytest.approx(error)
    assert difference["p_value"] == pytest.approx(2 * stats.norm.sf(difference["reward_per_request"] / error), rel=1e-6)
    users = [expected[arm][0] for arm in ("a", "b")]
    assert difference["mismatch_p_value"] == pytest.approx(stats.chisquare(users).pvalue, rel=1e-6)
    assert difference["status"] == "b_is_better"
    assert difference["low"] > 0


def test_no_effect_few_users_and_windows(empty):
    ab_world(empty, lift=1.0)
    assert {row["status"] for row in dicts(empty, "from m6.ab_report('lift')")} == {"ok", "no_difference_shown"}
    later = dicts(empty, "from m6.ab_report('lift', since := timestamp '2024-08-01 00:00:01')")
    assert [row["users"] for row in later] == [0, 0, None]
    assert {row["status"] for row in later} == {"too_few_users"}
    assert dicts(empty, "from m6.ab_report('lift', until := timestamp '2024-08-01')") == later


def test_a_sample_ratio_mismatch_is_called_out(empty):
    """Every fifth user of arm b is lost on the way: the difference must not be read."""
    ab_world(empty, lift=1.5, keep=lambda arm, n: arm == "a" or n % 5 > 1)
    report = dicts(empty, "from m6.ab_report('lift')")
    assert {row["status"] for row in report} == {"sample_ratio_mismatch"}
    assert report[0]["mismatch_p_value"] < 0.001


def test_intervals_of_no_effect_cover_zero(empty):
    """40 worlds without an effect: about two intervals miss; many lists per user must not make it more."""
    missed = 0
    for seed in range(40):
        ab_world(empty, lift=1.0, users=200, seed=seed)
        *_, difference = dicts(empty, "from m6.ab_report('lift')")
        missed += not difference["low"] < 0 < difference["high"]
        empty.execute("delete from m6.feedback")
        empty.execute("delete from m6.impressions")
    assert missed <= 6


def test_p_values_are_those_of_scipy(watched):
    for won, lost in ((0, 0), (1, 0), (5, 15), (40, 40), (300, 360), (9000, 9400)):
        [(value,)] = rows(watched, f"select m6.sign_test({won}, {lost})")
        assert value == pytest.approx(stats.binomtest(won, won + lost).pvalue if won + lost else 1.0, rel=1e-6)
    for z in (-5.0, -1.959964, 0.0, 0.5, 3.3):
        [(value,)] = rows(watched, f"select m6.normal_test({z})")
        assert value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert rows(watched, "select m6.normal_test(null), m6.sign_test(null, 1)") == [(None, None)]
    [(value,)] = rows(watched, "select m6.sign_test(150000, 151000)")  # beyond the exact sum
    assert value == pytest.approx(stats.binomtest(150_000, 301_000).pvalue, rel=1e-4)
    assert rows(watched, "select m6.sign_test(1e308, 1.9e9)") == [(0.0,)]
    for won in ("-1", "'infinity'::double", "'nan'::double"):
        with pytest.raises(duckdb.Error, match="expected two counts"):
            rows(watched, f"select m6.sign_test({won}, 2)")


# what if


def served(con, options="k := 7"):
    show(
        con,
        f"m6.serve_many('audience', {options}, seed := 11, request := 'w', moment := $moment)",
        moment=NOON,
    )
    return [user for (user,) in rows(con, "select distinct user_id from m6.impressions order by 1")]


@pytest.mark.parametrize("options", ["k := 7", "k := 12, in_domain := 'books'", "k := 90"])
def test_the_same_weights_and_build_give_what_was_shown(lab, options):
    """Also after the user has reacted, and after other weights came into force."""
    users = served(lab, options)
    react(lab, by_taste)
    lab.execute("update m6.active set policy_version = 3")
    for user in [*users[:12], "nobody"]:
        beside = dicts(lab, "from m6.what_if(?)", [f"w-{user}"])
        assert len(beside) == rows(lab, "select count(*) from m6.impressions where user_id = ?", [user])[0][0]
        for row in beside:
            assert row["what_if_item_id"] == row["shown_item_id"]
            assert row["what_if_title"] == row["shown_title"]
            assert row["what_if_satisfaction"] == row["shown_satisfaction"]
            assert row["moved"] == 0


def test_what_if_under_other_weights_is_what_they_would_have_served(lab):
    served(lab)
    beside = dicts(lab, "from m6.what_if('w-u05', policy := 3)")
    popular = rows(lab, "select item_id from m6.slates(['u05'], k := 7, policy := 3) order by rank")
    assert [(row["what_if_item_id"],) for row in beside] == popular
    shown = {row["shown_item_id"]: row["rank"] for row in beside}
    assert shown.keys() != {row["what_if_item_id"] for row in beside}
    for row in beside:
        before = shown.get(row["what_if_item_id"])
        assert row["moved"] == (None if before is None else before - row["rank"])


def test_what_if_under_another_satisfaction_function(lab):
    served(lab)
    beside = dicts(lab, "from m6.what_if('w-u05', version := 'version_2')")
    scores = dict(
        rows(
            lab,
            "select item_id, satisfaction from m6.slates(['u05'], k := 7, version := 2, until := ?, draw_seed := 11)",
            [NOON],
        )
    )
    assert all(row["what_if_satisfaction"] == pytest.approx(scores[row["what_if_item_id"]]) for row in beside)
    assert any(row["what_if_satisfaction"] != row["shown_satisfaction"] for row in beside)


def test_what_if_compares_the_slots_that_were_not_pinned(lab):
    served(lab)
    lab.execute("update m6.impressions set rank = rank + 1, impression_id = 'later' || impression_id where rank >= 3")
    lab.execute(
        "insert into m6.impressions by name select 'pin' as impression_id, 'w-u05' as request_id, 'u05' as user_id, "
        "'i40' as item_id, 3 as rank, 'pinned' as strategy, 0 as supporters, 0 as eligible, 1.0 as propensity, "
        "? as shown_at",
        [NOON],
    )
    beside = dicts(lab, "from m6.what_if('w-u05')")
    assert [row["rank"] for row in beside] == [1, 2, 4, 5, 6, 7, 8]
    assert all(row["what_if_item_id"] == row["shown_item_id"] for row in beside)


def test_an_interleaved_list_is_asked_about_with_a_build(lab):
    show(
        lab,
        "m6.interleave('u05', a := '1', b := '2', k := 6, request := 'i', seed := 2, moment := $moment)",
        moment=NOON,
    )
    with pytest.raises(duckdb.Error, match="interleaved from two builds"):
        rows(lab, "from m6.what_if('i-u05')")
    beside = rows(lab, "select what_if_item_id from m6.what_if('i-u05', version := 2)")
    assert beside == rows(lab, "select item_id from m6.recommend('u05', k := 6, version := 2, until := ?)", [NOON])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("'nothing'", "there is no request nothing"),
        ("'w-u05', version := 8", "there is no build 8, expected one of version_1, version_2, version_3"),
        ("'w-u05', policy := 8", "there is no policy 8 with weights.*1, 2, 3"),
        ("'w-u05', policy := 'candidate'", "there is no candidate"),
    ],
)
def test_what_if_names_what_is_not_there(lab, call, words):
    served(lab)
    with pytest.raises(duckdb.Error, match=words):
        rows(lab, f"from m6.what_if({call})")


# a policy in shadow


@pytest.fixture
def apprentice(lab):
    """Level weights, eight lists a user, and a shadow version 4 learned from people who like what is popular."""
    for turn in range(8):
        show(
            lab,
            f"m6.serve_many('audience', k := 6, seed := {turn}, request := 't{turn}', moment := $moment)",
            moment=NOON,
        )
    react(lab, lambda row: 0.6 if row["strategy"] == "popular" else 0.1)
    result = m6.reweight(lab, parameters=SHADOW)
    assert (result["status"], result["policy_version"]) == ("shadow", 4)
    return lab


def test_shadow_lists_of_the_weights_in_force_are_what_was_shown(apprentice):
    found = dicts(apprentice, "from m6.shadow_lists('active')")
    drawn = rows(apprentice, "select count(*) from m6.impressions where supporters > 0")[0][0]
    assert len(found) == drawn > 2500
    assert not any(row["is_changed"] for row in found)
    assert {row["share_changed"] for row in found} == {0.0}
    assert all(row["shown_strategy"] == row["shadow_strategy"] for row in found)


def test_shadow_lists_agree_with_what_if(apprentice):
    found = dicts(apprentice, "from m6.shadow_lists('candidate', latest := 60)")
    assert {row["policy_version"] for row in found} == {4}
    assert len({row["request_id"] for row in found}) == 60
    assert 0 < found[0]["share_changed"] < 1
    assert found[0]["share_changed"] == pytest.approx(np.mean([row["is_changed"] for row in found]))
    for request in sorted({row["request_id"] for row in found})[:8]:
        beside = rows(apprentice, "select rank, what_if_item_id from m6.what_if(?, policy := 4)", [request])
        shadow = [(row["rank"], row["shadow_item_id"]) for row in found if row["request_id"] == request]
        assert set(shadow) <= set(beside)


def test_shadow_lists_compare_one_kind_of_list(apprentice):
    show(apprentice, "m6.serve('u05', k := 3, seed := 1, request := 'z', moment := $m)", m=NOON + timedelta(days=1))
    assert {row["request_id"] for row in dicts(apprentice, "from m6.shadow_lists(4)")} == {"z-u05"}
    assert len({r for (r,) in rows(apprentice, "select request_id from m6.shadow_lists(4, k := 6)")}) == 8 * 62


def test_the_shadow_is_valued_before_it_is_served(apprentice):
    value = {row["estimator"]: row for row in dicts(apprentice, "from m6.policy_value('candidate')")}
    assert value["sn_slot_ratio"]["status"] == "ok"
    active = {row["estimator"]: row for row in dicts(apprentice, "from m6.policy_value('active')")}
    assert value["sn_slot_ratio"]["value"] > active["sn_slot_ratio"]["value"]
    recorded = rows(apprentice, "select distinct policy_version, version_status from m6.policy_decisions")
    assert recorded == [(4, "shadow")]
    assert rows(apprentice, "select domain, segment, decision from m6.policy_decisions order by all") == [
        (g["domain"], g["segment"], g["status"])
        for g in sorted(m6.reweight(apprentice, parameters=SHADOW)["groups"], key=lambda g: g["segment"])
    ]


def standing(con):
    return (
        rows(con, "select policy_version from m6.active"),
        rows(con, "select policy_version, status from m6.policy_versions order by 1"),
        rows(con, "select action, detail from m6.audit order by done_at"),
    )


def test_adopt_puts_a_shadow_in_force_and_rollback_takes_it_back(apprentice):
    assert m6.adopt(apprentice, 4) == {"policy_version": 4, "before": 1, "changed": True}
    active, statuses, audit = standing(apprentice)
    assert active == [(4,)]
    assert statuses == [(1, "champion"), (2, "superseded"), (3, "superseded"), (4, "active")]
    assert audit == [("adopt", '{"from": 1, "to": 4}')]
    assert {v for (v,) in rows(apprentice, "select distinct policy_version from m6.serve('u05')")} == {4}
    before = standing(apprentice)
    assert m6.adopt(apprentice, 4)["changed"] is False
    assert standing(apprentice) == before
    assert m6.rollback(apprentice)["policy_version"] == 1
    assert standing(apprentice)[1][3] == (4, "rolled_back")
    with pytest.raises(ParameterError, match="policy version 4 is rolled_back, expected shadow or candidate"):
        m6.adopt(apprentice, 4)


def test_adopt_is_all_or_nothing(apprentice, monkeypatch):
    before = standing(apprentice)
    monkeypatch.setattr(versions.json, "dumps", lambda *_args, **_given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        m6.adopt(apprentice, 4)
    monkeypatch.undo()
    assert standing(apprentice) == before
    for version, words in ((9, "no policy version 9"), (2, "is superseded")):
        with pytest.raises((UnknownNameError, ParameterError), match=words):
            m6.adopt(apprentice, version)
    apprentice.execute("delete from m6.strategy_weights where policy_version = 4")
    with pytest.raises(UnknownNameError, match="has no weights"):
        m6.adopt(apprentice, 4)
    apprentice.execute("update m6.active set policy_version = null")
    with pytest.raises(NotBuiltError):
        m6.adopt(apprentice, 4)
    assert rows(apprentice, "select 1 from m6.audit") == []


# from the log to a decision


@pytest.fixture
def loop(empty):
    names = ("blended", "popular", "fresh", "semantic")
    empty.execute("delete from m6.strategies")
    empty.executemany("insert into m6.strategies values (?, ?, true, '')", [[s, n] for n, s in enumerate(names)])
    versions.ensure_default_policy(empty)
    empty.execute("update m6.strategy_weights set weight = 0.25")
    return empty


def propose(con, weights):
    version = versions.next_version(con)
    con.execute("insert into m6.policy_versions (policy_version, status) values (?, 'candidate')", [version])
    versions.insert_weights(con, version, {("*", "*"): weights}, names=versions.strategy_names(con), floor=0.005)


@pytest.mark.parametrize(
    ("weights", "decision"),
    [
        ([0.15, 0.15, 0.55, 0.15], "adopt"),
        ([0.31, 0.31, 0.07, 0.31], "keep"),
        ([0.25, 0.25, 0.25, 0.25], "wait"),
        ([0.005, 0.005, 0.985, 0.005], "insufficient_support"),
    ],
)
def test_decide(loop, weights, decision):
    for day in range(4):
        loop_world.play(loop, day=day, quality=[0.1, 0.1, 0.5, 0.1], requests=500)
    propose(loop, weights)
    whole, *groups = dicts(loop, "from m6.decide()")
    assert (whole["domain"], whole["segment"], whole["lists"]) == ("(all)", "(all)", 2000)
    assert whole["decision"] == decision
    assert [row["segment"] for row in groups] == ["a", "b"]
    if decision == "insufficient_support":
        assert whole["difference"] is None
    elif decision == "wait":  # the weights in force against themselves: nothing is left to chance
        assert whole["low"] == whole["high"] == whole["difference"] == 0
    else:
        value = {p: rows(loop, f"select value from m6.policy_value('{p}') where estimator = 'slot_ratio'")[0][0]
                 for p in ("active", "candidate")}  # fmt: skip
        assert whole["low"] <= whole["difference"] <= whole["high"]
        assert whole["value_in_force"] == pytest.approx(value["active"])
        assert whole["difference"] == pytest.approx(value["candidate"] - value["active"], abs=0.03)


def test_lists_of_one_user_are_not_counted_as_so_many_opinions(loop):
    loop_world.play(loop, day=0, quality=[0.1, 0.1, 0.5, 0.1], requests=1000)
    propose(loop, [0.2, 0.2, 0.4, 0.2])
    once = dicts(loop, "from m6.decide()")[0]
    for table, key in (("impressions", "request_id"), ("feedback", "feedback_id")):
        loop.execute(
            f"insert into m6.{table} by name select * replace (n || impression_id as impression_id, "
            f"n || {key} as {key}) from m6.{table}, range(3) as r(n)".replace("select *", "select * exclude (n)")
        )
    many = dicts(loop, "from m6.decide()")[0]
    assert (many["lists"], many["difference"]) == (4000, pytest.approx(once["difference"]))
    assert many["high"] - many["low"] > 0.8 * (once["high"] - once["low"])


def test_the_statements_of_the_page_on_the_loop_run(apprentice):
    """Every SQL block of docs/loop.md, in order; the shop's shadow version is the candidate."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "loop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 10
    answers = []
    for statement in apprentice.extract_statements("\n".join(blocks)):
        answer = apprentice.execute(statement).fetchall()
        assert answer or statement.query.lstrip().startswith("create"), statement.query
        answers.append(answer)
    assert len(answers) >= len(blocks)


def test_decide_wants_lists_and_a_candidate(loop):
    loop_world.play(loop, day=0, quality=[0.1, 0.1, 0.5, 0.1], requests=100)
    with pytest.raises(duckdb.Error, match="there is no candidate"):
        rows(loop, "from m6.decide()")
    propose(loop, [0.2, 0.2, 0.4, 0.2])
    assert next(row["reason"] for row in dicts(loop, "from m6.decide()")) == "100 lists, at least 200 needed"
    loop.execute("update m6.active set policy_version = 2")
    (only,) = dicts(loop, "from m6.decide(1)")
    assert (only["lists"], only["decision"], only["difference"]) == (0, "insufficient_support", None)
