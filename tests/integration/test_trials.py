"""m6.tune on the validation slice, and its runs in the trackers' own files."""

from __future__ import annotations

import json
import warnings
from datetime import datetime

import pytest
import shop_world
from shop_world import rows

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import MissingExtraError, ParameterError, UnknownNameError
from m6rec_udf.runs import now, write_run


@pytest.fixture(scope="module")
def tuned(shop_frames):
    con = shop_world.fill(":memory:", shop_frames)
    before = shop_world.state(con)
    space = {"num_leaves": [3, 7], "strategies": [["popular"], ["popular", "item_item", "semantic"]]}
    trials = m6.tune(con, space).fetchall()
    yield con, trials, before
    con.close()


def test_every_combination_is_a_run_with_its_figures_the_best_first(tuned):
    con, trials, _ = tuned
    tried = {(p["num_leaves"], tuple(p["strategies"])) for p in (json.loads(row[4]) for row in trials)}
    assert tried == {(n, s) for n in (3, 7) for s in (("popular",), ("popular", "item_item", "semantic"))}
    assert [row[1] for row in trials] == ["done"] * 4
    values = [row[2] for row in trials]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    assert rows(con, "select kind, count(*) from m6.runs group by 1") == [("tune", 4)]
    assert rows(con, "select count(*) from m6.metrics where metric = 'ndcg@10' and slice = 'all' and low <= value") == [
        (4,)
    ]


def test_nothing_of_it_is_seen_in_the_file(tuned):
    con, _, before = tuned
    assert shop_world.state(con) == before
    assert rows(con, "select count(*) from m6.models") == [(1,)]
    assert rows(con, "select bool_and(is_enabled) from m6.strategies") == [(True,)]


def test_what_happens_after_the_slice_changes_nothing(shop):
    space = {"num_leaves": [3], "strategies": [["popular", "item_item"]]}
    before = m6.tune(shop, space).fetchall()[0]
    end = datetime.fromisoformat(json.loads(before[4])["until"])
    later = "happened_at > $end"
    assert rows(shop, f"select count(*) > 20 from m6.events where {later}", {"end": end})[0][0]
    shop.execute(f"update m6.events set item_id = 'i00', value = 1 where {later}", {"end": end})
    share = 0.1  # of all events: the slice is cut by the number of events up to its end
    assert m6.tune(shop, space, as_of=end, test_share=share).fetchall()[0][2] == before[2]


def test_another_encoder_and_a_trial_that_fails(shop):
    class Broken(HashEncoder):
        def encode(self, texts):
            from m6rec_udf.errors import EncoderError

            raise EncoderError("the model is gone", "bring it back")

    broken = Broken(8)
    broken.name = "broken"
    found = m6.tune(shop, {"encoder": [HashEncoder(16), broken]}).fetchall()
    assert [row[1] for row in found] == ["done", "failed"]
    assert "the model is gone" in json.loads(found[1][4])["error"]
    assert found[1][2] is None


def test_a_number_used_again_is_not_answered_from_memory(shop):
    m6.evaluate(shop, methods=["popular"])
    shop.execute("insert into m6.items (item_id, title, domain) values ('later', 'Drama later', 'movies')")
    version = m6.build(shop).model_version
    assert version == 2
    assert rows(shop, "select count(*) from m6.explain('u00', 'later', version := 2)")[0][0] > 10


def test_settings_of_trees_are_kept_by_later_builds(shop):
    m6.build(shop, lightgbm={"num_boost_round": 3})
    m6.build(shop, retrain=True)
    most = rows(
        shop, "select model_version, max(trees) from m6.training_curve where model_version > 1 group by 1 order by 1"
    )
    assert most == [(2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({}, {}, "space is {}"),
        ({"num_leaves": []}, {}, "space is"),
        ({"depth": [3]}, {}, "lightgbm names depth, expected some of learning_rate"),
        ({"strategies": [["magic"]]}, {}, "strategies names magic, expected some of blended"),
        ({"num_leaves": [3]}, {"method": "random"}, "method is 'random', expected grid or bayes"),
        ({"num_leaves": [3]}, {"method": "bayes", "trials": 0}, "trials = 0, expected at least 1"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(reader, space, options, message):
    with pytest.raises(ParameterError, match=f"(?s){message}.*Hint: "):
        m6.tune(reader, space, **options)


def test_an_unknown_tool_is_refused(reader, tmp_path):
    with pytest.raises(UnknownNameError, match=r"(?s)no tracker 'excel', expected one of wandb.*Hint: "):
        m6.track(reader, "excel", to=tmp_path)


def test_a_tool_that_is_not_installed_names_its_extra(reader, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"(?s)wandb is not installed.*Hint: pip install 'm6rec\[wandb\]'"):
        m6.track(reader, "wandb", to=tmp_path)


def test_bayes_draws_from_ranges(tuned):
    pytest.importorskip("optuna", reason="needs the extra tune")
    con, _, _ = tuned
    found = m6.tune(con, {"num_leaves": (3, 15), "lambda_l2": (0.1, 10.0)}, method="bayes", trials=2).fetchall()
    drawn = [json.loads(row[4]) for row in found]
    assert len(drawn) == 2
    assert all(3 <= d["num_leaves"] <= 15 and 0.1 <= d["lambda_l2"] <= 10 for d in drawn)


@pytest.fixture
def recorded(tmp_path):
    """A file without a build, with one run and its figures."""
    con = shop_world.connect(":memory:")
    metrics = [("m6rec", "all", "ndcg@10", 0.25, 0.2, 0.3, 40), ("m6rec", "all", "seconds", 1.5, None, None, 40)]
    run_id = write_run(con, "tune", now(), {"num_leaves": 3, "strategies": ["popular"]}, metrics)
    yield con, run_id
    con.close()


def test_tensorboard_reads_the_run_back(recorded, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    con, run_id = recorded
    assert m6.track(con, "tensorboard", to=tmp_path) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = EventAccumulator(str(tmp_path / run_id))
        events.Reload()
    assert events.Scalars("m6rec/all/ndcg@10")[0].value == pytest.approx(0.25)
    text = events.Tensors("parameters")[0].tensor_proto.string_val[0]
    assert json.loads(text)["num_leaves"] == 3


def test_mlflow_reads_the_run_back(recorded, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    con, run_id = recorded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert m6.track(con, "mlflow", to=tmp_path, run_ids=[run_id]) == 1
        client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
        found = client.search_runs([client.get_experiment_by_name("m6rec").experiment_id])
    assert len(found) == 1
    assert found[0].data.metrics == {"m6rec/all/ndcg_at_10": 0.25, "m6rec/all/seconds": 1.5}
    assert found[0].data.params["num_leaves"] == "3"


def test_wandb_writes_an_offline_run(recorded, tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    con, run_id = recorded
    wandb.teardown()  # a service that has to start first is the one whose file was empty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert m6.track(con, "wandb", to=tmp_path, run_ids=[run_id]) == 1
    files = list((tmp_path / "wandb").glob(f"offline-run-*/*{run_id}.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    assert b"m6rec/all/ndcg@10" in content
    assert b"num_leaves" in content


def test_an_unknown_run_is_refused(recorded, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    with pytest.raises(UnknownNameError, match=r"(?s)no run 'nobody'.*Hint: "):
        m6.track(recorded[0], "tensorboard", to=tmp_path, run_ids=["nobody"])


def test_wandb_leaves_a_run_of_the_caller_open(recorded, tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    con, run_id = recorded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = wandb.init(project="own", mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
        try:
            assert m6.track(con, "wandb", to=tmp_path, run_ids=[run_id]) == 1
            assert wandb.run is own
            own.log({"still": 1.0})
        finally:
            own.finish()
            wandb.teardown()
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert sorted(b"still" in f.read_bytes() for f in files) == [False, True]
