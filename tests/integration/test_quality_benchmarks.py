"""The quality benchmarks on the generated shop: protocols, peers, new items, one build for several figures."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import shop_world

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"
NAMES = (
    "ablation", "calibration", "cold_items", "common", "curve", "degraded", "leave_last_out", "peer", "peers",
    "recbole_peer", "run", "worlds",
)  # fmt: skip
evaluation = importlib.import_module("m6rec_udf.evaluate")
FEW = argparse.Namespace(data="shop", k=5, seed=0, budget=0.01, no_peers=False, peers=None)


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/quality, with a grid of one setting per peer."""
    pytest.importorskip("scipy")
    sys.path.insert(0, str(FOLDER))
    modules = SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    yield modules
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name, None)


def rows(con, sql, parameters=None):
    return shop_world.rows(con, sql, parameters)


def value(found, method, metric):
    return next(row[3] for row in found if row[:3] == (method, "all", metric))


def test_peers_list_untouched_items_once_for_everybody(shop, bench, capsys):
    peers = bench.peers.tune(shop, ["ease", "markov"], budget=0.0, k=5)
    assert capsys.readouterr().out.count(": 1 of ") == 2  # the first setting runs whatever the budget
    for k in (5, 80):  # more than there are untouched items
        evaluation.evaluate(shop, k=k, methods=(), recommender=peers["ease"], peers={"markov": peers["markov"]})
    as_of = evaluation.default_as_of(shop)
    for method in ("m6rec", "markov"):
        counts = rows(
            shop,
            "select user_id, count(*), count(distinct item_id), max(rank) from eval_lists where method = ? group by 1",
            [method],
        )
        assert all(5 < listed == distinct == last < 80 for _, listed, distinct, last in counts)
        assert {row[0] for row in counts} == {row[0] for row in rows(shop, "select user_id from eval_users")}
        assert not rows(
            shop,
            "from eval_lists l semi join (from m6.events where happened_at <= ?) e using (user_id, item_id) "
            "where method = ?",
            [as_of, method],
        )


@pytest.mark.parametrize(
    "name",
    [
        "implicit_als", "implicit_bpr", "implicit_knn", "lenskit_knn", "lenskit_mf", "ease", "markov", "recbole_sasrec",
        "recbole_lightgcn",
    ],
)  # fmt: skip
def test_peers_beat_lists_drawn_by_chance(shop, bench, name):
    if name not in bench.peers.installed():
        pytest.skip(f"{name} is not installed")
    peer = bench.peers.tune(shop, [name], budget=5.0 if name.startswith("recbole") else 0.0, k=20)[name]
    drawn = bench.peers.Peer(bench.peers.Logs())
    drawn.fit = lambda log, liked: lambda block: np.random.default_rng(0).random((len(block), liked.shape[1]))
    scores = evaluation.validate(shop, {"peer": peer, "chance": drawn}, k=20)
    assert scores["peer"] > scores["chance"]


# Scores of its own instead of a model's: how often each item was in the log.
WORKER = """
import json, pathlib, shutil, sys
import numpy as np
folder = pathlib.Path(sys.argv[1])
log = np.load(folder / "log.npz")
scores = np.tile(np.bincount(log["item"], minlength=log["shape"][1]), (len(log["asked"]), 1)).astype(np.float32)
np.save(folder / "scores.npy", scores)
shutil.copytree(folder, pathlib.Path(__file__).parent / "seen", dirs_exist_ok=True)
print("trained", json.loads((folder / "settings.json").read_text())["model"])
"""


@pytest.fixture
def stand_in(bench, tmp_path, monkeypatch) -> Path:
    """A worker that needs no RecBole; keeps what it was given in the folder ``seen`` beside it."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(bench.recbole_peer, "WORKER", worker)
    monkeypatch.setenv("M6REC_RECBOLE_PYTHON", sys.executable)
    return worker


def test_recbole_is_asked_through_files(shop, bench, stand_in, capsys):
    assert {"recbole_sasrec", "recbole_lightgcn"} <= set(bench.peers.installed())
    found = bench.peers.tune(shop, ["recbole_sasrec", "recbole_lightgcn"], budget=0.5, k=5)
    printed = capsys.readouterr().out
    assert printed.count("trained SASRec") >= 2
    assert "recbole_lightgcn: " in printed
    facts = {}

    def watched(con, as_of, users, k):
        tables = ("eval_history", "eval_touched", "eval_users")
        facts.update({table: con.sql(f"from {table}").pl() for table in tables})
        facts["lists"] = found["recbole_sasrec"](con, as_of, users, k)
        return facts["lists"]

    evaluation.evaluate(shop, k=5, methods=(), recommender=watched)
    settings = json.loads((stand_in.parent / "seen" / "settings.json").read_text())
    assert (settings["model"], settings["seconds"], settings["hides_known"]) == ("SASRec", 0.5, True)
    assert settings["config"]["loss_type"] == "CE"
    assert "dropout" not in settings["config"]

    # every pair once, where it was first met; users in turn, each in the order of time
    history = facts["eval_history"]
    users = sorted({*history["user_id"], *facts["eval_users"]["user_id"]})
    items = sorted(set(history["item_id"]))
    with np.load(stand_in.parent / "seen" / "log.npz") as log:
        given = [(users[u], items[i]) for u, i in zip(log["user"], log["item"], strict=True)]
        asked = [users[u] for u in log["asked"]]
    liked = history.filter(pl.col("y").fill_null(0.0) >= found["recbole_sasrec"].least_y)
    firsts = {row[:2]: row[2] for row in liked.group_by("user_id", "item_id").agg(pl.min("happened_at")).rows()}
    assert len(liked) > len(firsts)
    assert sorted(given) == sorted(firsts)
    assert [(pair[0], firsts[pair]) for pair in given] == sorted((pair[0], at) for pair, at in firsts.items())
    assert asked == sorted(facts["eval_users"]["user_id"])

    # the lists are in the order of the scores that came back
    counts = Counter(item for _, item in firsts)
    touched = set(facts["eval_touched"].select("user_id", "item_id").rows())
    lists = pl.from_arrow(facts["lists"]).sort("user_id", "rank")
    for user in asked:
        listed = [counts[item] for item in lists.filter(pl.col("user_id") == user)["item_id"]]
        assert listed == sorted((n for item, n in counts.items() if (user, item) not in touched), reverse=True)[:5]


def test_what_the_worker_writes_before_it_fails_is_shown(shop, bench, stand_in):
    stand_in.write_text("import sys; print('read the log'); sys.exit('no module named recbole, say')")
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1.*Hint: .*read the log.*no module named recbole, say"):
        bench.peers.tune(shop, ["recbole_lightgcn"], budget=0.0, k=5)


def test_peers_that_cannot_run_are_named(bench, monkeypatch, capsys):
    monkeypatch.delenv("M6REC_RECBOLE_PYTHON", raising=False)
    assert bench.peers.chosen(["markov", "ease", "markov"]) == ["markov", "ease"]
    assert capsys.readouterr().out == ""
    assert not any(name.startswith("recbole") for name in bench.peers.chosen())
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "recbole_sasrec, recbole_lightgcn" in line
    assert "M6REC_RECBOLE_PYTHON" in line
    for wrong in ("sasrec", "recbole_sasrec"):
        with pytest.raises(SystemExit, match=rf"--peers {wrong}: expected some of .*ease, markov.* Hint: "):
            bench.peers.chosen(["ease", wrong])
    monkeypatch.setenv("M6REC_RECBOLE_PYTHON", "/nowhere/python")
    with pytest.raises(SystemExit, match=r"'/nowhere/python', expected a Python that has recbole. Hint: "):
        bench.peers.chosen()


def test_ease_by_hand(bench):
    """Two items liked by the same people predict each other, a third one liked by others does not."""
    liked = bench.peer.ones(np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 2, 0]), (4, 3))
    score = bench.peers.Ease(bench.peers.Logs(), regularization=1.0).fit(None, liked)(np.array([3]))[0]
    gram = liked.toarray().T @ liked.toarray() + np.eye(3)
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    assert score == pytest.approx(weights[0], abs=1e-6)
    assert score[1] > score[2]


def test_the_last_event_is_named_by_time_then_by_seed(shop, bench):
    bench.leave_last_out.name_last(shop, seed=0)
    last, before = rows(shop, "from last_events order by all"), rows(shop, "from events_before_last order by all")
    assert len(last) == len({user for user, _ in last}) == len(before) == 60
    assert not set(last) & set(before)
    for table, later in (("last_events", 0), ("events_before_last", 1)):
        beyond = rows(
            shop,
            f"select max(n) from (select count(*) as n from (select user_id, item_id, min(happened_at) as at from "
            f"m6.events group by all) e join (select user_id, min(e.happened_at) as at from m6.events e semi join "
            f"{table} t on t.user_id = e.user_id and t.item_id = e.item_id group by user_id, e.item_id) l "
            "on e.user_id = l.user_id and e.at > l.at group by e.user_id)",
        )
        assert (beyond[0][0] or 0) <= later
    bench.leave_last_out.name_last(shop, seed=0)
    assert rows(shop, "from last_events order by all") == last


def test_leave_last_out_end_to_end(shop, bench, monkeypatch, capsys):
    monkeypatch.setattr(bench.peers, "installed", lambda: ["markov"])
    events = rows(shop, "select count(*) from m6.events")[0][0]
    found = bench.leave_last_out.figures(shop, FEW)
    assert rows(shop, "select count(*) from m6.events")[0][0] < events
    assert not rows(shop, "from m6.events semi join last_events using (user_id, item_id)")
    ndcg = {row[0]: row for row in found.rows() if row[1:3] == ("all", "ndcg@5")}
    assert {"m6rec", "markov", "popular", "item_item", "m6rec - markov"} <= set(ndcg)
    assert {row[6] for row in ndcg.values()} == {60}
    assert ndcg["m6rec"][3] > 0
    assert "| m6rec" in capsys.readouterr().out


def test_new_items_have_no_event_before_the_split(shop, bench, capsys):
    as_of = evaluation.default_as_of(shop)
    fresh = [f"n{n}" for n in range(8)]
    for n, item in enumerate(fresh):
        shop.execute(
            "insert into m6.items (item_id, domain, title, category) values (?, 'books', ?, ?)",
            [item, f"{('History', 'Cooking')[n % 2]} new number {n}", ("history", "cooking")[n % 2]],
        )
        for user in range(2 + n % 2, 60, 8):
            shop.execute(
                "insert into m6.events (event_id, user_id, item_id, event_type, value, happened_at) "
                "values (?, ?, ?, 'purchase', 1.0, ?)",
                [f"new{n}-{user}", shop_world.USERS[user], item, as_of + timedelta(minutes=1 + n)],
            )
    as_of = evaluation.default_as_of(shop)
    found = bench.cold_items.figures(shop, FEW, {})
    capsys.readouterr()
    targets = rows(shop, "select distinct item_id from eval_targets order by 1")
    before = rows(shop, "select distinct item_id from m6.events where happened_at <= ?", [as_of])
    assert targets
    assert not set(targets) & set(before)
    assert not rows(shop, "select 1 from eval_lists semi join (from m6.events where happened_at <= ?) using (item_id)",
                    [as_of])  # fmt: skip
    methods = {row[0] for row in found.rows() if row[2] == "recall@20"}
    assert {"m6rec", "content k-NN (text vectors)", "content k-NN (TF-IDF)", "chance"} <= methods


def test_one_build_answers_all_questions(shop, bench, monkeypatch, capsys):
    built = []
    build = bench.common.m6.build
    monkeypatch.setattr(bench.common.m6, "build", lambda con, **options: built.append(options) or build(con, **options))
    versions = {}
    errors = bench.calibration.figures(shop, FEW, versions)
    table = bench.curve.figures(shop, FEW, versions)
    assert len(built) == 1
    assert set(errors["candidates"]) == {"all", "shown"}
    assert table["method"].to_list() == [
        "diversity 0", "diversity 0.1", "diversity 0.2", "diversity 0.3", "diversity 0.5", "recently_popular",
    ]  # fmt: skip
    ndcg, coverage = table["ndcg@5"].to_list(), table["coverage@5"].to_list()
    assert all(0 <= v <= 1 for v in ndcg + coverage)
    assert table.row(0)[1:] != table.row(4)[1:]
    printed = capsys.readouterr().out
    assert "reliability, shown" in printed
    assert "accuracy and coverage" in printed


def test_run_prints_discoveries_and_repeats(shop, bench, monkeypatch, capsys):
    monkeypatch.setattr(bench.peers, "installed", lambda: ["ease"])
    versions = {}
    monkeypatch.setattr(bench.run, "LEAST_BUDGET", 0.001)
    given = argparse.Namespace(**(vars(FEW) | {"budget": None}))
    first = bench.run.temporal(shop, given, versions)
    second = bench.run.temporal(shop, given, versions, repeats=True)
    assert given.budget > 0.01  # as long as the build took
    assert len(versions) == 1
    assert "most_bought" in set(second["method"])
    assert "most_bought" not in set(first["method"])
    printed = capsys.readouterr().out
    assert "next purchases, repeats allowed" in printed
    assert f"budget {given.budget:.0f} s" in printed


def test_ablation_orders_the_same_candidates_and_leaves_the_test_alone(shop, bench, capsys):
    table = bench.ablation.figures(shop, FEW)
    found = dict(zip(table["order"], table["all"], strict=True))
    assert table["order"][0] == "m6rec"
    assert {"one model instead of parts", "fusion: logistic stack", "no candidates of: popular"} <= set(found)
    assert found["m6rec"] > found["single: semantic"]
    assert table["less m6rec"][0] == 0
    assert "| m6rec" in capsys.readouterr().out
    split = evaluation.default_as_of(shop)
    last = "select arg_max(as_of, model_version) < ? from m6.models"
    assert rows(shop, last, [split]) == [(True,)]


def test_data_is_spoiled_by_the_share_asked_for(bench, shop_frames):
    whole = {name: shop_frames[name] for name in ("items", "events")}
    count = len(whole["events"])
    spoiled = {name: damage(whole, 0.5, np.random.default_rng(0)) for name, damage in bench.degraded.DAMAGES.items()}
    assert 0.3 < spoiled["missing text"]["items"]["title"].null_count() / 80 < 0.7
    shuffled = spoiled["shuffled times"]["events"]["happened_at"]
    assert sorted(shuffled) == sorted(whole["events"]["happened_at"])
    assert 0.3 < (shuffled != whole["events"]["happened_at"]).mean() < 0.6
    assert 0.4 < len(spoiled["lost events"]["events"]) / count < 0.6
    assert 0.4 < (spoiled["noise"]["events"]["item_id"] != whole["events"]["item_id"]).mean() < 0.6
    assert len(spoiled["bots"]["events"]) == count + count // 2
    moment = bench.degraded.split(whole["events"], 0.1)
    assert 0.05 < (whole["events"]["happened_at"] >= moment).mean() < 0.15


def test_a_world_is_what_its_figures_say(bench):
    drawn, World = bench.worlds.drawn, bench.worlds.World
    small = {"users": 60, "items": 100, "events": 3000, "topics": 5}
    news, again, plain = (
        drawn(World(**small, **options), 1)["events"] for options in ({"life": 1.0}, {"again": 0.8}, {})
    )
    assert drawn(World(**small), 1)["events"].equals(plain)
    assert not drawn(World(**small), 2)["events"].equals(plain)
    spans = [
        events.group_by("item_id").agg(pl.col("happened_at").max() - pl.col("happened_at").min())["happened_at"].mean()
        for events in (news, plain)
    ]
    assert spans[0] < timedelta(days=10) < timedelta(days=30) < spans[1]
    shares = [events.unique(["user_id", "item_id"]).height / events.height for events in (again, plain)]
    assert shares[0] < 0.5 * shares[1]
    assert plain["happened_at"].is_sorted()


def test_one_line_compares_with_the_best_other(bench):
    found = pl.DataFrame(
        [("m6rec", 0.3, None, None, 9), ("ease", 0.2, None, None, 9), ("popular", 0.1, None, None, 9),
         ("m6rec - ease", 0.1, 0.05, 0.15, 9), ("m6rec - popular", 0.2, 0.1, 0.3, 9)],
        schema=["method", "value", "low", "high", "n"], orient="row",
    )  # fmt: skip
    line = bench.worlds.summary("still", found)
    assert (line["best other"], line["users"], line["difference"], line["low"]) == ("ease", 9, 0.1, 0.05)
    assert line["ratio"] == pytest.approx(1.5)
