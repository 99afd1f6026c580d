"""m6.explain and m6.why_not: parts that add up, and where an item falls out of a list."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import shop_world
from shop_world import ITEMS, recommend, rows

from m6rec_udf.arrays import of_version
from m6rec_udf.logistic import sigmoid
from m6rec_udf.ranking import FEATURES
from m6rec_udf.registry import context_of

USER = "u05"


def explained(con, user, item, options=""):
    """(part, name) to (value, contribution)."""
    found = rows(con, f"select part, name, value, contribution from m6.explain(?, ?{options})", [user, item])
    return {(part, name): (value, contribution) for part, name, value, contribution in found}


def why_not(con, user, item, options=""):
    found = rows(
        con,
        f"select step, is_passed, is_reason, found, rank, outranked_by from m6.why_not(?, ?{options})",
        [user, item],
    )
    return {step: rest for step, *rest in found}


def reason(con, user, item, options=""):
    return [step for step, rest in why_not(con, user, item, options).items() if rest[1]]


@pytest.mark.parametrize("user", [USER, "u17", "nobody"])
def test_contributions_add_up_to_the_score_before_calibration(reader, user):
    for line in recommend(reader, user, "k := 4"):
        found = explained(reader, user, line["item_id"])
        raw = found["satisfaction", "before calibration"][0]
        added = sum(contribution for _, contribution in found.values() if contribution is not None)
        assert added == pytest.approx(raw, abs=1e-6)
        slope, intercept = (found["calibration", name][0] for name in ("slope", "intercept"))
        assert sigmoid(np.array([intercept + slope * raw]))[0] == pytest.approx(line["satisfaction"], abs=1e-6)
        assert {name for part, name in found if part == "feature"} == set(FEATURES)


def test_the_contributions_of_the_trees_are_those_of_lightgbm(reader):
    model = of_version(context_of(reader), 1).model
    assert model.known is None or model.new.booster() is not None
    line = recommend(reader, USER)[0]
    found = explained(reader, USER, line["item_id"])
    x = np.array(
        [[found["feature", name][0] if found["feature", name][0] is not None else np.nan for name in FEATURES]],
        np.float32,
    )
    coefficient, _ = model.mixture(x)
    total = sum(weight[0] for weight in coefficient.values())
    expected = sum(
        weight[0]
        / total
        * (model.parts[name].booster().predict(x, pred_contrib=True)[0][:-1] + linear_of(model.parts[name], x))
        for name, weight in coefficient.items()
        if weight[0]
    )
    np.testing.assert_allclose([found["feature", name][1] for name in FEATURES], expected, atol=1e-6)


def linear_of(part, x):
    from m6rec_udf.satisfaction import LINEAR_FEATURES

    out = np.zeros(len(FEATURES))
    for name, share in zip(LINEAR_FEATURES, part.linear_parts(x)[0][1:], strict=True):
        out[FEATURES.index(name)] += share
    return out


@pytest.mark.parametrize("options", ["", "in_domain := 'books'", "among := 'picked'", "exclude_seen := false"])
def test_the_satisfaction_explained_is_that_of_the_list(reader, options):
    for line in recommend(reader, USER, options):
        found = explained(reader, USER, line["item_id"], f", {options}" if options else "")
        assert found["satisfaction", "calibrated"][0] == pytest.approx(line["satisfaction"], abs=1e-6)


def test_the_strategies_are_those_that_proposed_it_with_the_scores_of_their_definition(reader):
    line = recommend(reader, USER)[0]
    found = explained(reader, USER, line["item_id"])
    proposed = {name: value for (part, name), (value, _) in found.items() if part == "strategy"}
    mask = rows(reader, "select supporters from m6.standings([?]) where item_id = ?", [USER, line["item_id"]])[0][0]
    bits = rows(reader, "select strategy, bit from m6.strategies")
    assert set(proposed) == {name for name, bit in bits if mask >> bit & 1}
    events, trend = rows(
        reader,
        "select a.events, a.trend_short + a.trend_medium "
        "from m6.feat_item_activity a join m6.stg_items i using (item_idx) "
        "where i.item_id = ?",
        [line["item_id"]],
    )[0]
    assert proposed["popular"] == events
    assert proposed["trending"] == pytest.approx(trend, rel=1e-5)


def test_the_evidence_is_from_the_history_with_title_and_date_and_the_sentence_names_it(reader):
    line = recommend(reader, USER)[0]
    found = rows(reader, "select part, name, value, detail from m6.explain(?, ?)", [USER, line["item_id"]])
    evidence = [(name, share, detail) for part, name, share, detail in found if part == "evidence"]
    assert 1 <= len(evidence) <= 3
    assert [share for _, share, _ in evidence] == sorted((share for _, share, _ in evidence), reverse=True)
    last = dict(rows(reader, "select item_id, max(happened_at) from m6.behaviour where user_id = ? group by 1", [USER]))
    titles = dict(rows(reader, "select item_id, title from m6.items"))
    for title, _, detail in evidence:
        item = detail.removeprefix("item ").split(",")[0]
        assert titles[item] == title
        assert detail == f"item {item}, {last[item]:%Y-%m-%d}"
    assert found[0][0] == "sentence"
    assert all(f'"{title}"' in found[0][1] for title, _, _ in evidence)
    assert f'"{evidence[0][0]}"' in line["reason"]


def test_a_user_without_behaviour_is_told_so(reader):
    line = recommend(reader, "nobody")[0]
    found = rows(reader, "select part, name from m6.explain('nobody', ?)", [line["item_id"]])
    assert found[0] == ("sentence", "no behaviour yet: what others like lately")


@pytest.mark.parametrize("name", ["explain", "why_not"])
def test_a_version_that_does_not_exist_is_refused(reader, name):
    with pytest.raises(duckdb.Error, match=r"(?s)99.*expected.*Hint: "):
        rows(reader, f"from m6.{name}(?, 'i04', version := 99)", [USER])


def test_an_unknown_item_has_no_explanation_and_why_not_says_so(reader):
    with pytest.raises(duckdb.Error, match=r"(?s)no item 'i99'.*expected one of m6.items.*Hint: .*why_not"):
        rows(reader, "from m6.explain(?, 'i99')", [USER])
    assert list(why_not(reader, USER, "i99")) == ["known"]
    passed, is_reason, found, *_ = why_not(reader, USER, "i99")["known"]
    assert (passed, is_reason) == (False, True)
    assert "no item i99" in found


def test_every_item_is_in_the_list_or_has_exactly_one_reason(reader):
    listed = {line["item_id"]: line["rank"] for line in recommend(reader, USER)}
    seen = {item for (item,) in rows(reader, "select distinct item_id from m6.behaviour where user_id = ?", [USER])}
    ranks = {}
    for item in ITEMS:
        steps = why_not(reader, USER, item)
        reasons = [step for step, rest in steps.items() if rest[1]]
        if item in listed:
            assert reasons == []
            assert steps["in the list"][3] == listed[item]
        elif item == "i07":
            assert reasons == ["available"]
        elif item in seen:
            assert reasons == ["not seen"]
        else:
            assert reasons in (["candidate"], ["in the list"])
        if reasons == ["in the list"]:
            ranks[item] = steps["in the list"][3]
            assert steps["in the list"][4] == [
                title
                for (title,) in rows(
                    reader,
                    "select i.title from m6.recommend(?) r join m6.items i using (item_id) order by r.rank",
                    [USER],
                )
            ]
    assert ranks
    longer = {line["item_id"]: line["rank"] for line in recommend(reader, USER, "k := 55")}
    followers = {item: rank for item, rank in ranks.items() if rank <= 55}
    assert len(followers) > 20
    assert {item: longer[item] for item in followers} == followers


@pytest.mark.parametrize(
    ("item", "options", "expected"),
    [
        ("i50", ", in_domain := 'movies'", "in domain"),
        ("i50", ", among := 'picked'", "in among"),
        ("i07", ", among := 'picked'", "available"),
    ],
)
def test_filters_are_reasons(reader, item, options, expected):
    assert reason(reader, USER, item, options) == [expected]


def test_boosts_and_k_change_the_answer(shop):
    outranked = next(item for item in ITEMS if reason(shop, USER, item) == ["in the list"])
    shop.execute("create table favour as select ? as item_id, 1000.0 as boost", [outranked])
    assert reason(shop, USER, outranked, ", boosts := 'favour'") == []
    assert why_not(shop, USER, outranked, ", boosts := 'favour'")["in the list"][3] == 1
    assert reason(shop, USER, outranked, ", k := 80") == []


def test_an_item_loaded_after_the_build_is_said_to_wait_for_the_next_one(shop):
    shop.execute("insert into m6.items (item_id, title, domain) values ('late', 'Late one', 'movies')")
    assert reason(shop, USER, "late") == ["in the build"]


def test_seen_items_let_back_are_not_kept_out_for_it(reader):
    item = rows(reader, "select item_id from m6.behaviour where user_id = ? order by happened_at, item_id", [USER])[0][
        0
    ]
    assert reason(reader, USER, item) == ["not seen"]
    assert "not seen" not in reason(reader, USER, item, ", exclude_seen := false")
    assert "not seen" not in reason(reader, USER, item, ", until := timestamp '2024-01-01'")


def test_a_plain_mistake_is_a_plain_message(reader):
    with pytest.raises(duckdb.Error, match="no_such_table"):
        rows(reader, "from m6.why_not(?, 'i04', among := 'no_such_table')", [USER])


def test_the_world_has_what_the_tests_need(reader):
    assert shop_world.rows(reader, "select count(*) from m6.items where not is_available") == [(1,)]
