"""The satisfaction function's numbers, the cross-entropy, calibration, and the model as an artefact."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
import shop_world

from m6rec_udf import arrays, connection
from m6rec_udf.errors import CorruptError, NotBuiltError
from m6rec_udf.explain import contributions
from m6rec_udf.fitting import Examples, Rows, hold_out, join, lean_on_trends, learn_again, train, train_stranger
from m6rec_udf.logistic import calibrate, logit, sigmoid
from m6rec_udf.ranking import FEATURES
from m6rec_udf.registry import context_of
from m6rec_udf.satisfaction import Part, SatisfactionModel
from m6rec_udf.unseen import USUAL_SLOPE

FORMULAS = (Path(__file__).resolve().parents[2] / "docs" / "formulas.md").read_text(encoding="utf-8")


def log_loss(y: np.ndarray, z: np.ndarray) -> float:
    """The mean of -[y log z + (1 - y) log(1 - z)]."""
    z = np.clip(z, 1e-12, 1 - 1e-12)
    return float(-np.mean(y * np.log(z) + (1 - y) * np.log(1 - z)))


def examples(n: int, later: int, label, column: str, *, label_later=None) -> Examples:
    """n rows that teach and ``later`` rows that stop and calibrate."""
    return Examples(rows(n, 0, label, column), rows(later, 1, label_later or label, column))


def rows(n: int, seed: int, label, *columns: str) -> Rows:
    """n rows with uniform features; ``label`` maps the named columns to y."""
    rng = np.random.default_rng(seed)
    assert FEATURES[-1] == "pair_new_domain"  # 0: there is one domain
    x = np.column_stack([rng.uniform(0, 1, (n, len(FEATURES) - 1)), np.zeros(n)]).astype(np.float32)
    y = label(*(x[:, FEATURES.index(name)].astype(np.float64) for name in columns))
    return Rows(x, np.asarray(y, np.float64), np.ones(n), np.zeros(n, np.int64), np.ones(n, bool), np.zeros(n))


# the function: what behaviour says about satisfaction


def documented() -> dict[str, float]:
    """y by event type, from the table of docs/formulas.md."""
    found = {}
    for events, values in re.findall(r"^\| ([a-z,; ]+) \| ([\d., ;]+) \|$", FORMULAS, re.MULTILINE):
        groups = [[name.strip() for name in group.split(",")] for group in events.split(";")]
        numbers = [[float(v) for v in group.split(",")] for group in values.split(";")]
        if len(groups) == 1 and len(numbers[0]) == 1:
            numbers = [numbers[0] * len(groups[0])]
        for names, ys in zip(groups, numbers, strict=True):
            found.update(zip(names, ys * len(names) if len(ys) == 1 else ys, strict=len(ys) > 1))
    return found


def test_event_types_say_what_the_formula_page_says():
    con = duckdb.connect()
    connection.migrate(con)
    stored = dict(con.execute("select event_type, satisfaction from m6.event_types").fetchall())
    found = documented()
    found["rating"] = found.pop("rating without a value")
    assert found == stored
    low, high = con.execute("select value_low, value_high from m6.event_types where event_type = 'rating'").fetchall()[
        0
    ]
    assert "bounds 1 and 5) | 0, 0.25, 0.5, 0.75, 1 |" in FORMULAS
    assert [(stars - low) / (high - low) for stars in (1, 2, 3, 4, 5)] == [0, 0.25, 0.5, 0.75, 1]


def test_turning_away_has_no_satisfaction():
    con = duckdb.connect()
    connection.migrate(con)
    assert con.execute("select event_type from m6.event_types where interest < 0 and satisfaction > 0").fetchall() == []


# the loss


def test_the_loss_is_smallest_where_z_is_y_and_the_printed_sign_is_not():
    z = np.linspace(0.001, 0.999, 999)
    for y in (0.0, 0.25, 0.5, 1.0):
        loss = -(y * np.log(z) + (1 - y) * np.log(1 - z))
        assert z[loss.argmin()] == pytest.approx(np.clip(y, 0.001, 0.999), abs=1e-3)
        p = 0.3
        gradient = (p - y) / (p * (1 - p))
        step = 1e-6
        numeric = (log_loss(np.array([y]), np.array([p + step])) - log_loss(np.array([y]), np.array([p - step]))) / (
            2 * step
        )
        assert numeric == pytest.approx(gradient, rel=1e-4, abs=1e-6)
    printed = -0.0 * np.log(z) + (1 - 0.0) * np.log(1 - z)
    assert z[printed.argmin()] == pytest.approx(0.999)


@pytest.mark.parametrize("column", ["score_item_item", "item_satisfaction", "pair_log_events"])
def test_y_one_drives_z_to_one_and_y_zero_to_zero(column):
    def label(value):
        return (value > 0.5).astype(float)

    model = train(examples(4000, 2000, label, column), seed=0)
    check = rows(2000, 2, lambda value: value, column)
    z = model.predict(check.x)
    clear = np.abs(check.y - 0.5) > 0.1  # thresholds are drawn: the step is a slope
    assert model.new.text
    assert z[clear & (check.y > 0.5)].min() > 0.9
    assert z[clear & (check.y < 0.5)].max() < 0.1


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_more_training_on_one_label_moves_z_towards_it(y):
    """All labels the same (but for the few positives below which nothing is learned)."""
    label = lambda _: np.where(np.arange(2000) % 50 == 0, 1.0, y)  # noqa: E731
    model = train(examples(2000, 2000, label, "item_satisfaction"), seed=0)
    z = model.predict(rows(500, 2, lambda v: v, "item_satisfaction").x)
    assert abs(z - y).mean() < 0.05


def test_graded_y_is_the_mean_it_predicts():
    """y = 0.75 where the feature is high, 0.25 in the middle, 0 where it is low."""

    def label(value):
        return np.where(value > 0.66, 0.75, np.where(value > 0.33, 0.25, 0.0))

    model = train(examples(3000, 1500, label, "item_satisfaction"), seed=0)
    check = rows(1000, 2, label, "item_satisfaction")
    z = model.predict(check.x)
    for y in (0.0, 0.25, 0.75):
        assert z[check.y == y].mean() == pytest.approx(y, abs=0.08)


def test_too_little_to_learn_from_orders_around_the_base_rate():
    few = rows(200, 0, lambda v: (v > 0.9).astype(float), "item_satisfaction")
    model = train(Examples(few.only(np.arange(40)), few.only(np.arange(40, 60))), seed=0)
    assert model.new.text == ""
    z = model.predict(few.x)
    assert np.isfinite(z).all()
    assert ((z > 0) & (z < 1)).all()
    assert model.base_rate == pytest.approx(few.y[:60].mean())
    assert train(Examples(few.only(np.arange(0)), few.only(np.arange(0))), seed=0).base_rate == 0.05


def test_the_same_rows_and_seed_give_the_same_model():
    def label(value):
        return (value > 0.5).astype(float)

    made = [train(examples(1500, 800, label, "score_semantic"), seed=3) for _ in range(2)]
    assert made[0] == made[1]


def test_the_latest_window_teaches_once_it_has_judged():
    """What is liked is new: the windows before know nothing of it."""

    def of_chance(value):
        return (np.random.default_rng(5).random(len(value)) < 0.5).astype(float)

    def liked(value):
        return (value > 0.5).astype(float)

    both = examples(1000, 3000, of_chance, "item_satisfaction", label_later=liked)
    held = hold_out(both.rows, both.later, seed=0)
    again = learn_again(held, both.rows, both.later, seed=0)
    after = rows(2000, 2, liked, "item_satisfaction")
    assert again.trees == held.trees
    apart = [part.raw(after.x)[after.y > 0].mean() - part.raw(after.x)[after.y == 0].mean() for part in (held, again)]
    assert apart[1] > apart[0] + 0.2


def test_a_part_leans_on_the_trends_where_the_rest_misled_it():
    """Windows before knew an accident beside the trend; the latest window has the trend only."""
    rng = np.random.default_rng(1)

    def then(trend, accident):
        return (rng.random(len(trend)) < sigmoid(4 * (trend - 0.5) + 12 * (accident - 0.5))).astype(float)

    def now(trend, accident):
        return (rng.random(len(trend)) < sigmoid(6 * (trend - 0.5))).astype(float)

    names = ("item_log_trend_medium", "score_semantic")
    before, after = rows(3000, 0, then, *names), rows(1500, 2, now, *names)
    part = hold_out(before, rows(1500, 1, now, *names), seed=0)
    own = log_loss(after.y, sigmoid(part.slope * part.raw(after.x) + part.intercept))
    lean_on_trends(part, before, rows(1500, 1, now, *names))
    assert part.lean > 0
    assert log_loss(after.y, sigmoid(part.slope * part.raw(after.x) + part.intercept)) < own - 0.02

    steady = hold_out(before, rows(1500, 1, then, *names), seed=0)
    lean_on_trends(steady, before, rows(1500, 1, then, *names))
    assert steady.lean == 0


# calibration


def test_calibration_finds_slope_and_intercept():
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 2, 40_000)
    y = (rng.random(40_000) < sigmoid(0.5 * raw - 1.0)).astype(float)
    slope, intercept = calibrate(raw, y, np.ones(len(y)))
    assert (slope, intercept) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1.0, abs=0.05))
    assert log_loss(y, sigmoid(slope * raw + intercept)) < log_loss(y, sigmoid(raw)) - 0.05


def test_calibration_on_a_shifted_slice_improves_the_log_loss_of_the_days_after():
    """Training data of a time when twice as many were satisfied; the later slice says so."""

    def when(share):
        rng = np.random.default_rng(9)
        return lambda value: (rng.random(len(value)) < share * value).astype(float)

    model = train(examples(4000, 4000, when(0.8), "item_satisfaction", label_later=when(0.3)), seed=0)
    after = rows(4000, 2, when(0.3), "item_satisfaction")
    before, calibrated = sigmoid(model.new.raw(after.x)), model.predict(after.x)
    assert log_loss(after.y, calibrated) < log_loss(after.y, before) - 0.03
    assert calibrated.mean() == pytest.approx(after.y.mean(), abs=0.02)
    order = np.argsort(before, kind="stable")
    assert (np.diff(calibrated[order]) >= -1e-12).all(), "the order of two items stays"


def test_calibration_never_turns_the_order_around():
    raw = np.linspace(-2, 2, 200)
    slope, intercept = calibrate(raw, (raw < 0).astype(float), np.ones(200))
    assert slope == 1.0
    assert np.isfinite(intercept)


def test_logit_and_sigmoid_are_inverse():
    p = np.array([0.01, 0.3, 0.5, 0.99])
    np.testing.assert_allclose(sigmoid(logit(p)), p)
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


# the artefact


def test_json_round_trip():
    def label(value):
        return (value > 0.5).astype(float)

    model = train(examples(1500, 800, label, "score_semantic"), seed=0)
    back = SatisfactionModel.from_json(model.to_json())
    x = rows(300, 5, label, "score_semantic").x
    assert back == model
    np.testing.assert_array_equal(back.predict(x), model.predict(x))
    assert SatisfactionModel.from_json(SatisfactionModel(Part(base_rate=0.2)).to_json()).predict(x).shape == (300,)


def test_the_stored_artefact_is_what_was_trained(reader):
    snapshot = arrays.of_version(context_of(reader), 1)
    content = shop_world.rows(
        reader, "select content from m6.artefacts where name = 'satisfaction' and model_version = 1"
    )[0][0]
    assert SatisfactionModel.from_json(bytes(content).decode()) == snapshot.model


@pytest.mark.parametrize("name", ["satisfaction", "text", "settings", "item_item.data"])
def test_flipped_bytes_are_noticed(shop_file, name):
    con = duckdb.connect(str(shop_file))
    content = bytearray(con.execute("select content from m6.artefacts where name = ?", [name]).fetchall()[0][0])
    content[len(content) // 2] ^= 0x01
    digest = con.execute("select content_hash from m6.artefact_names where name = ?", [name]).fetchall()[0][0]
    con.execute("update m6.artefact_contents set content = ? where content_hash = ?", [bytes(content), digest])
    con.close()
    dressed = shop_world.connect(shop_file)
    with pytest.raises(CorruptError, match=rf"artefact '{re.escape(name)}' of model_version 1 does not match its hash"):
        arrays.of_version(context_of(dressed), 1)
    with pytest.raises(duckdb.Error, match="does not match its hash"):
        shop_world.recommend(dressed, "u01")
    dressed.close()


def test_items_the_user_knows_have_a_model_of_their_own():
    """The same feature speaks for new items and against known ones."""
    events = FEATURES.index("pair_log_events")

    def made(n: int, seed: int) -> Rows:
        out = rows(n, seed, lambda value: value, "item_satisfaction")
        known = np.arange(n) % 2 == 0
        out.x[:, events] = np.where(known, 1.0, 0.0)
        value = out.x[:, FEATURES.index("item_satisfaction")]
        out.y[:] = np.where(known, value < 0.5, value > 0.5)
        return out

    model = train(Examples(made(3000, 0), made(1500, 1)), seed=0)
    assert set(model.parts) == {"new", "known", "unseen"}
    check = made(1000, 2)
    z = model.predict(check.x)
    known = check.x[:, events] > 0
    assert np.corrcoef(z[known], check.y[known])[0, 1] > 0.8
    assert np.corrcoef(z[~known], check.y[~known])[0, 1] > 0.8
    back = SatisfactionModel.from_json(model.to_json())
    np.testing.assert_array_equal(back.predict(check.x), z)
    weight = model.mixture(check.x)[0]
    assert (weight["known"][known] > 0).all()
    assert (weight["new"][known] == 0).all()


def test_strangers_have_a_model_of_their_own():
    """The same feature speaks for one kind of user and against the other."""
    events = FEATURES.index("user_log_events")

    def made(n: int, seed: int) -> Rows:
        out = rows(n, seed, lambda value: value, "item_log_trend_long")
        out.x[:, FEATURES.index("pair_log_events")] = 0
        stranger = np.arange(n) % 2 == 0
        out.x[:, events] = np.where(stranger, 0.0, 1.0)
        value = out.x[:, FEATURES.index("item_log_trend_long")]
        out.y[:] = np.where(stranger, value > 0.5, value < 0.5)
        return out

    model = train(Examples(made(8000, 0), made(1500, 1)), seed=0)
    assert set(model.parts) == {"new", "unseen", "stranger"}
    check = made(1000, 2)
    z, stranger = model.predict(check.x), check.x[:, events] == 0
    assert np.corrcoef(z[stranger], check.y[stranger])[0, 1] > 0.8
    assert np.corrcoef(z[~stranger], check.y[~stranger])[0, 1] > 0.8


def test_strangers_get_what_past_windows_have_foreseen_without_trees():
    """Five windows of one item list each: in four the long trend decides, in the latest one an accident does."""

    def window(at: int, column: str) -> Rows:
        out = rows(60, at, lambda trend: trend > 0.7, column)
        out.window[:] = at
        out.x[:, FEATURES.index("user_log_events")] = 0.0
        return out

    past, latest = join([window(at, "item_log_trend_long") for at in range(4)]), window(4, "item_log_trend_short")
    part = train_stranger(past, latest)
    check = rows(500, 9, lambda trend: trend, "item_log_trend_long")
    assert part.trees == 0
    assert np.corrcoef(part.raw(check.x), check.y)[0, 1] > 0.8
    model = SatisfactionModel(Part(), stranger=part)
    check.x[:, FEATURES.index("user_log_events")] = 0.0
    check.x[:, FEATURES.index("pair_log_events")] = 0.0
    parts = contributions(model, check.x[:1])
    assert parts.base + parts.shares.sum() == pytest.approx(parts.score)
    assert parts.intercept + parts.slope * parts.score == pytest.approx(model.log_odds(check.x[:1])[0])


def test_inside_a_visit_what_comes_next_decides_and_between_visits_a_share_of_it():
    inside = FEATURES.index("user_session")

    def made(n: int, seed: int, column: str, at: float) -> Rows:
        out = rows(n, seed, lambda value: value > 0.5, column)
        out.x[:, FEATURES.index("pair_log_events")] = 0
        out.x[:, FEATURES.index("user_log_events")] = 1
        out.x[:, inside] = at
        return out

    model = train(
        Examples(
            made(3000, 0, "item_satisfaction", 0.0),
            made(1500, 1, "item_satisfaction", 0.0),
            made(3000, 2, "score_covisitation", 1.0),
            made(1500, 3, "score_covisitation", 1.0),
        ),
        seed=0,
    )
    assert set(model.parts) == {"new", "unseen", "session"}
    check = made(1000, 4, "item_satisfaction", 1.0)
    covisitation = check.x[:, FEATURES.index("score_covisitation")]
    assert np.corrcoef(model.predict(check.x), covisitation > 0.5)[0, 1] > 0.9
    check.x[:, inside] = 0.0
    between = model.log_odds(check.x)
    assert model.session_share == 0.0, "the windows follow item_satisfaction alone"
    model.session_share = 0.35
    between = model.log_odds(check.x)
    mixed = 0.65 * model.new.raw(check.x) + 0.35 * model.session.raw(check.x)
    np.testing.assert_allclose(between, model.new.slope * mixed + model.new.intercept)
    back = SatisfactionModel.from_json(model.to_json())
    np.testing.assert_array_equal(back.log_odds(check.x), between)


def test_calibration_finds_its_way_from_a_base_rate_far_away():
    """What comes next is rare, what the window brings is not: the Newton steps must not run away."""
    rng = np.random.default_rng(0)
    raw = rng.normal(-7, 1.5, 20_000)
    y = (rng.random(20_000) < sigmoid(0.6 * raw + 3.0)).astype(float)
    slope, intercept = calibrate(raw, y, np.ones(len(y)))
    assert (slope, intercept) == (pytest.approx(0.6, abs=0.05), pytest.approx(3.0, abs=0.3))


def test_too_few_known_items_leave_one_model_for_both():
    model = train(examples(3000, 1500, lambda v: (v > 0.5).astype(float), "item_satisfaction"), seed=0)
    assert model.known is None


def test_a_model_of_another_version_says_what_to_do():
    stored = json.loads(SatisfactionModel().to_json())
    old = {**stored.pop("new"), "features": stored["features"][:-4]}
    with pytest.raises(NotBuiltError, match="another version of m6rec") as caught:
        SatisfactionModel.from_json(json.dumps(old))
    assert "build(con) again" in str(caught.value)


def with_unseen(n: int, seed: int, share: float) -> Rows:
    """Rows of which every third is of an item without behaviour; its successes follow the item-item score."""
    out = rows(n, seed, lambda v: (v > 0.5).astype(float), "item_satisfaction")
    rng = np.random.default_rng(seed + 100)
    unseen = np.arange(n) % 3 == 0
    out.x[:, FEATURES.index("pair_log_events")] = 0
    out.x[:, FEATURES.index("item_log_events")] = np.where(unseen, 0.0, 1.0)
    score = out.x[:, FEATURES.index("score_item_item")]
    out.y[unseen] = rng.random(int(unseen.sum())) < share * score[unseen]
    return out


def test_items_nobody_touched_are_ordered_by_their_text_alone():
    """Their item-item score comes from text; what speaks for others (item_satisfaction) must not order them."""
    model = train(Examples(with_unseen(6000, 0, 0.1), with_unseen(3000, 1, 0.1)), seed=0)
    assert set(model.parts) == {"new", "unseen"}
    check = with_unseen(6000, 2, 0.1)
    unseen = check.x[:, FEATURES.index("item_log_events")] == 0
    z = model.predict(check.x)
    score = check.x[unseen, FEATURES.index("score_item_item")]
    assert np.corrcoef(np.argsort(np.argsort(score)), np.argsort(np.argsort(z[unseen])))[0, 1] > 0.999
    assert abs(z[unseen].mean() - check.y[unseen].mean()) < 0.01  # calibrated apart: the others' rate is 0.5
    assert z[~unseen].mean() == pytest.approx(0.5, abs=0.05)
    back = SatisfactionModel.from_json(model.to_json())
    np.testing.assert_array_equal(back.predict(check.x), z)
    weight = model.mixture(check.x)[0]
    assert (weight["unseen"] != 0).tolist() == unseen.tolist()


def test_without_successes_items_nobody_touched_are_promised_little():
    model = train(Examples(with_unseen(6000, 0, 0.0), with_unseen(3000, 1, 0.0)), seed=0)
    assert model.unseen is not None
    assert model.unseen.slope == USUAL_SLOPE
    check = with_unseen(6000, 2, 0.0)
    unseen = check.x[:, FEATURES.index("item_log_events")] == 0
    z = model.predict(check.x[unseen])
    assert 0 < z.mean() < 0.001
    assert len(np.unique(z)) > 1000  # still in the order of the score


def test_items_nobody_touched_do_not_flood_the_lists_where_their_score_says_nothing():
    """Enough successes, but against the order of the score: the spread stays small, not as wide as its log."""
    rows_, later = with_unseen(6000, 0, 0.1), with_unseen(3000, 1, 0.1)
    for part in (rows_, later):
        unseen = part.x[:, FEATURES.index("item_log_events")] == 0
        part.y[unseen] = (part.x[unseen, FEATURES.index("score_item_item")] < 0.05).astype(float)
    model = train(Examples(rows_, later), seed=0)
    assert model.unseen is not None
    assert model.unseen.slope == USUAL_SLOPE
    check = with_unseen(3000, 2, 0.1)
    unseen = check.x[:, FEATURES.index("item_log_events")] == 0
    assert model.predict(check.x[unseen]).max() < 0.2
