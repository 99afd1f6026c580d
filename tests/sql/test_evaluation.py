from __future__ import annotations

from datetime import datetime, timedelta
from importlib import import_module

import duckdb
import numpy as np
import polars as pl
import pytest

from m6rec_udf import baselines, connection, intervals
from m6rec_udf import figures as figures_module
from m6rec_udf.errors import ParameterError, SchemaError

evaluation = import_module("m6rec_udf.evaluate")
evaluate = evaluation.evaluate
START = datetime(2024, 1, 1)
K = 5


def database(rows: list[tuple[str, str, str, float | None, datetime]]) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    connection.migrate(con)
    insert(con, rows)
    return con


def insert(con, rows):
    frame = pl.DataFrame(
        rows,
        schema={
            "user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "value": pl.Float64,
            "happened_at": pl.Datetime("us"),
        },
        orient="row",
    )  # fmt: skip
    con.register("given", frame.to_arrow())
    con.execute("insert into m6.events by name select * from given")
    con.unregister("given")


def random_rows(seed=0, n=3000, users=60, items=80):
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(items, 0.4))
    return [
        (
            f"u{rng.integers(users)}",
            f"i{rng.choice(items, p=popularity)}",
            "rating",
            float(rng.integers(1, 6)),
            START + timedelta(hours=float(h)),
        )
        for h in np.sort(rng.uniform(0, 2000, n))
    ]


@pytest.fixture
def con():
    con = database(random_rows())
    yield con
    con.close()


def lists_of(con, method):
    found: dict[str, list[str]] = {}
    rows = con.execute("from eval_lists where method = $1 order by user_id, rank", [method]).fetchall()
    for _, user, item, _ in rows:
        found.setdefault(user, []).append(item)
    return found


def figures(relation):
    return {(r[1], r[2], r[3]): r[4:] for r in relation.fetchall()}


# ------------------------------------------------------------------------------- split and targets
def test_targets_are_liked_later_and_new_to_the_user():
    as_of = START + timedelta(days=10)
    after, before = as_of + timedelta(days=1), as_of - timedelta(days=1)
    con = database(
        [
            ("u", "seen", "view", None, before),
            ("u", "at_the_split", "purchase", 1.0, as_of),
            ("u", "seen", "purchase", 1.0, after),
            ("u", "at_the_split", "purchase", 1.0, after),
            ("u", "bought", "purchase", 1.0, after),
            ("u", "bought", "purchase", 1.0, after),
            ("u", "four_stars", "rating", 4.0, after),
            ("u", "three_stars", "rating", 3.0, after),
            ("u", "viewed", "view", None, after),
            ("u", "sent_back", "return", 1.0, after),
            ("new", "bought", "play", 30.0, after),
        ]
    )
    evaluate(con, as_of=as_of, k=2, methods=("popular",))
    assert con.execute("from eval_targets order by all").fetchall() == [
        ("new", "bought"),
        ("u", "bought"),
        ("u", "four_stars"),
    ]
    assert con.execute("from eval_users order by all").fetchall() == [("new", 1, 0, "cold"), ("u", 2, 2, "cold")]


def test_the_default_split_leaves_a_tenth_of_the_events():
    con = database([("u", f"i{j}", "purchase", 1.0, START + timedelta(hours=j)) for j in range(101)])
    assert evaluation.default_as_of(con) == START + timedelta(hours=89)  # numpy's quantile 0.9, method "higher"
    con.execute("update m6.events set happened_at = $1", [START])
    with pytest.raises(ParameterError, match="one moment"):
        evaluate(con)


def test_the_future_does_not_change_lists(con):
    as_of = START + timedelta(hours=1500)
    evaluate(con, as_of=as_of, k=K)
    wanted = {m: lists_of(con, m) for m in baselines.BASELINES}
    con.execute(
        "update m6.events set value = 6 - value, item_id = 'i' || (hash(item_id) % 80) where happened_at > $1", [as_of]
    )
    evaluate(con, as_of=as_of, k=K)
    for method, lists in wanted.items():
        again = lists_of(con, method)
        both = lists.keys() & again.keys()
        assert both
        assert {u: lists[u] for u in both} == {u: again[u] for u in both}


# ---------------------------------------------------------------------------------------- baselines
def test_lists_hold_k_untouched_items(con):
    evaluate(con, k=K)
    as_of = evaluation.default_as_of(con)
    touched = set(con.execute("select user_id, item_id from m6.events where happened_at <= $1", [as_of]).fetchall())
    n_items = con.execute("select count(distinct item_id) from m6.events where happened_at <= $1", [as_of]).fetchall()[
        0
    ][0]
    for method in baselines.BASELINES:
        for user, items in lists_of(con, method).items():
            assert len(items) == min(K, n_items - sum(u == user for u, _ in touched))
            assert not touched & {(user, item) for item in items}


def test_popular_and_recently_popular_by_hand():
    day = timedelta(days=1)
    rows = [(f"u{j}", "old", "purchase", 1.0, START) for j in range(3)]
    rows += [(f"u{j}", "new", "purchase", 1.0, START + 9 * day) for j in range(2)]
    rows += [("t", "x", "purchase", 1.0, START + 20 * day)]
    con = database(rows)
    con.execute("create or replace temp table eval_history as select *, 1.0 as y from m6.events")
    baselines.materialise(con, "base_popular", least_y=0.0)
    assert con.execute("from base_popular order by score desc, item_id limit 2").fetchall() == [
        ("old", 3.0),
        ("new", 2.0),
    ]
    baselines.materialise(con, "base_recently_popular", as_of=START + 10 * day, least_y=0.0, half_life_days=5.0)
    scores = dict(con.execute("from base_recently_popular").fetchall())
    assert scores["old"] == pytest.approx(np.log(3 * 0.5**2))
    assert scores["new"] == pytest.approx(np.log(2 * 0.5**0.2))


@pytest.mark.parametrize("neighbours", [3, 10])
@pytest.mark.parametrize("least_y", [0.0, 0.75])
def test_item_item_by_matrices_equals_its_sql(con, neighbours, least_y):
    evaluate(con, k=K, methods=("popular",))
    as_of = evaluation.default_as_of(con)
    baselines.materialise(con, "eval_history", as_of=as_of)
    baselines.materialise(con, "eval_touched", as_of=as_of, repeats=False)
    choice = baselines.Choice(least_y, neighbours=neighbours)
    query = "from eval_item_item_scores order by user_id, score desc, item_id"
    baselines.materialise(
        con, "base_item_item_scores", "eval_item_item_scores", k=K, neighbours=neighbours, least_y=least_y
    )
    by_sql = con.execute(query).fetchall()
    baselines.item_item_scores(con, K, choice)
    assert by_sql
    assert con.execute(query).fetchall() == by_sql


def test_item_item_scores_by_hand():
    con = database([])
    con.execute(
        "create temp table eval_history as select * from (values ('a', 'x', 1.0), ('a', 'y', 1.0), ('b', 'x', 1.0), "
        "('b', 'y', 1.0), ('b', 'z', 1.0), ('t', 'x', 1.0)) t(user_id, item_id, y)"
    )
    con.execute("create temp table eval_users as select 't' as user_id")
    con.execute("create temp table eval_touched as select user_id, item_id from eval_history")
    baselines.materialise(con, "base_item_item_scores", k=5, neighbours=10, least_y=0.0)
    found = con.execute("select item_id, score from base_item_item_scores order by item_id").fetchall()
    assert found == [("y", round(2 / np.sqrt(6) * 1e9)), ("z", round(1 / np.sqrt(3) * 1e9))]


# ------------------------------------------------------------------------------------------ metrics
def by_numpy(lists, targets, users, share, k):
    """The metrics again, written from their definitions, without SQL."""
    rows = {}
    rarest = min(share.values())
    for user in users:
        wanted, shown = targets[user], lists.get(user, [])[:k]
        hit = np.array([item in wanted for item in shown] + [False] * (k - len(shown)))
        place = np.arange(1, k + 1)
        gain = 1 / np.log2(place + 1)
        rows[user] = {
            "ndcg": (hit * gain).sum() / gain[: min(k, len(wanted))].sum(),
            "recall": hit.sum() / len(wanted),
            "precision": hit.sum() / k,
            "map": (hit * np.cumsum(hit) / place).sum() / min(k, len(wanted)),
            "mrr": 1 / place[hit][0] if hit.any() else 0.0,
            "hit_rate": float(hit.any()),
            "novelty": np.mean([-np.log2(share.get(item, rarest)) for item in shown]) if shown else 0.0,
        }
    return rows


def gini(counts):
    x = np.sort(np.asarray(counts, float))
    n = len(x)
    return (2 * np.arange(1, n + 1) - n - 1) @ x / (n * x.sum())


def test_metrics_equal_a_numpy_implementation(con):
    rng = np.random.default_rng(1)

    def partial(con, as_of, users, k):  # some users without a list, some with short ones, an item nobody knows
        rows = []
        for user in users["user_id"].to_pylist()[1:]:
            items = rng.permutation(90)[: rng.integers(1, k + 1)]
            rows += [(user, f"i{item}", rank) for rank, item in enumerate(items, 1)]
        return pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row")

    result = figures(evaluate(con, k=K, methods=("popular",), recommender=partial))
    targets: dict[str, set[str]] = {}
    for user, item in con.execute("from eval_targets").fetchall():
        targets.setdefault(user, set()).add(item)
    share = dict(con.execute("select item_id, user_share from eval_catalogue").fetchall())
    slices = dict(con.execute("select user_id, slice from eval_users").fetchall())
    for method in ("m6rec", "popular"):
        lists = lists_of(con, method)
        for label in ("all", "warm", "cold"):
            users = [u for u, s in slices.items() if label in ("all", s)]
            if not users:
                continue
            rows = by_numpy(lists, targets, users, share, K)
            for metric in figures_module.USER_METRICS:
                value, low, high, n = result[method, label, f"{metric}@{K}"]
                assert value == pytest.approx(np.mean([rows[u][metric] for u in users])), (method, label, metric)
                assert low <= value <= high
                assert n == len(users)
            counts = [sum(item in lists.get(u, []) for u in users) for item in share]
            assert result[method, label, f"coverage@{K}"][0] == pytest.approx(np.mean(np.array(counts) > 0))
            assert result[method, label, f"gini@{K}"][0] == pytest.approx(gini(counts))


def test_the_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(0).normal(2.0, 1.0, (400, 2))
    values[:, 1] = values[:, 0] * 2
    low, high = intervals.bootstrap(values, seed=3)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert low[1] == pytest.approx(2 * low[0])  # the same users in every column: paired
    again = intervals.bootstrap(values, seed=3)
    assert np.array_equal(low, again[0])
    constant = intervals.bootstrap(np.ones((30, 1)))
    assert constant[0][0] == constant[1][0] == 1.0


def test_differences_are_paired(con):
    def same_as_popular(con, as_of, users, k):
        return con.sql("select user_id, item_id, rank from eval_lists where method = 'popular'").to_arrow_table()

    def popular(con, as_of, users, k):
        return baselines.recommender("popular", baselines.Choice(0.75))(con, as_of, users, k)

    result = figures(evaluate(con, k=K, methods=("popular",), recommender=popular, peers={"again": popular}))
    assert result["m6rec - again", "all", f"ndcg@{K}"][:3] == (0.0, 0.0, 0.0)
    value, low, high, n = result["m6rec - popular", "all", f"ndcg@{K}"]
    assert value == pytest.approx(result["m6rec", "all", f"ndcg@{K}"][0] - result["popular", "all", f"ndcg@{K}"][0])
    assert low <= value <= high
    assert n == result["m6rec", "all", f"ndcg@{K}"][3]


def test_a_perfect_recommender_scores_one(con):
    def oracle(con, as_of, users, k):
        return con.sql(
            "select user_id, item_id, row_number() over (partition by user_id order by item_id) as rank "
            "from eval_targets"
        )

    result = figures(evaluate(con, k=K, methods=(), recommender=oracle))
    for metric in ("ndcg", "map", "mrr", "hit_rate"):
        assert result["m6rec", "all", f"{metric}@{K}"][:3] == pytest.approx((1.0, 1.0, 1.0))


# ------------------------------------------------------------------------------------- bookkeeping
def test_a_run_is_recorded_and_repeatable(con):
    first = figures(evaluate(con, k=K))
    second = figures(evaluate(con, k=K))
    steady = [key for key in first if key[2] != "seconds"]
    assert [first[key] for key in steady] == [second[key] for key in steady]
    runs = con.execute("select kind, status, parameters ->> '$.k' from m6.runs").fetchall()
    assert runs == [("evaluate", "done", "5")] * 2
    chosen = con.execute("select parameters -> '$.chosen.recently_popular.half_life_days' from m6.runs").fetchall()
    assert float(chosen[0][0]) > 0


def test_the_order_of_the_rows_does_not_matter():
    rows = random_rows(seed=4)
    found = []
    for given in (rows, rows[::-1]):
        con = database(given)
        result = figures(evaluate(con, k=K))
        found.append({key: value for key, value in result.items() if key[2] != "seconds"})
        con.close()
    assert found[0] == found[1]


def test_validation_ends_at_the_split(con):
    asked = []

    def spy(con, as_of, users, k):
        asked.append(as_of)
        assert con.execute("select max(happened_at) from eval_history").fetchall()[0][0] <= as_of
        return pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64})

    split = evaluation.default_as_of(con)
    assert evaluation.validate(con, {"spy": spy}, k=K) == {"spy": 0.0}
    assert asked[0] < split
    shares = con.execute(
        "select avg((happened_at > $1)::int), avg((happened_at > $2)::int) from m6.events", [asked[0], split]
    ).fetchall()[0]
    assert shares == pytest.approx((0.2, 0.1), abs=0.01)


def test_many_users_are_sampled(con):
    result = figures(evaluate(con, k=K, methods=("popular",), max_users=7))
    assert result["popular", "all", f"ndcg@{K}"][3] == 7


@pytest.mark.parametrize(("kind", "targets_from"), [("view", 0.1), ("cart", 0.5), ("purchase", 0.75), ("rating", 0.75)])
def test_targets_are_the_best_that_the_log_can_show(kind, targets_from):
    """A log of views alone has no success of 0.75; what comes after the split does not decide."""
    rows = [(user, item, kind, 5.0, at) for user, item, _, _, at in random_rows()]
    split = sorted(at for *_, at in rows)[int(0.9 * len(rows))]
    rows += [("late", "i1", "purchase", 1.0, split + timedelta(seconds=1))]
    con = database(rows)
    evaluate(con, as_of=split, k=K, methods=("popular",))
    assert con.execute("select (parameters->>'positive')::double from m6.runs").fetchall() == [(targets_from,)]
    assert evaluation.validate(con, {"popular": nothing}, as_of=split, k=K) == {"popular": 0.0}


def nothing(con, as_of, users, k):
    return con.sql("select user_id, 'i1' as item_id, 1 as rank from eval_users limit 0")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"k": 0}, "k = 0"),
        ({"test_share": 0.9}, "test_share"),
        ({"methods": ("best",)}, "best"),
        ({"as_of": datetime(2030, 1, 1)}, "nobody liked"),
    ],
)
def test_mistakes_are_named(con, wrong, text):
    with pytest.raises(ParameterError, match=text):
        evaluate(con, **wrong)


def test_an_empty_database_says_so():
    with pytest.raises(ParameterError, match="no event"):
        evaluate(database([]))


def test_a_bad_recommender_is_named(con):
    with pytest.raises(SchemaError, match="rank"):
        evaluate(con, methods=(), recommender=lambda con, as_of, users, k: users)
    with pytest.raises(SchemaError, match="twice"):
        evaluate(
            con,
            methods=(),
            recommender=lambda con, as_of, users, k: con.sql(
                "select user_id, 'i1' as item_id, unnest([1, 2]) as rank from eval_users"
            ),
        )


# ---------------------------------------------------------------------- repeats, targets of one's own
def test_with_repeats_known_items_are_targets_and_may_be_listed():
    day = timedelta(days=1)
    rows = [("u", "milk", "purchase", 1.0, START + j * day) for j in range(3)]
    rows += [("u", "tea", "purchase", 1.0, START + 3 * day)]
    rows += [(f"v{j}", "salt", "purchase", 1.0, START + 4 * day) for j in range(9)]
    rows += [("u", "milk", "purchase", 1.0, START + 6 * day)]
    con = database(rows)
    as_of = START + 5 * day
    result = figures(evaluate(con, as_of=as_of, k=2, repeats=True))
    assert con.execute("from eval_targets").fetchall() == [("u", "milk")]
    assert lists_of(con, "most_bought")["u"] == ["milk", "tea"]
    assert lists_of(con, "popular")["u"][0] == "salt"
    assert result["most_bought", "all", "ndcg@2"][0] == 1.0
    with pytest.raises(ParameterError, match="nobody liked"):
        evaluate(con, as_of=as_of, k=2)
    with pytest.raises(ParameterError, match="most_bought"):
        evaluate(con, as_of=as_of, k=2, methods=("most_bought",))


def test_most_bought_forgets_with_its_half_life_and_fills_up():
    con = database([])
    con.execute("create temp table eval_users as select 'u' as user_id")
    con.execute(
        "create temp table eval_history as select * from (values ('u', 'old', $1::timestamp, 1.0), "
        "('u', 'old', $1, 1.0), ('u', 'new', $2::timestamp, 1.0), ('u', 'bad', $2, 0.0)) t(user_id, item_id, "
        "happened_at, y)",
        [START, START + timedelta(days=10)],
    )
    con.execute("create temp table eval_popular as select 'u' as user_id, unnest(['new', 'hit']) as item_id, "
                "unnest([1, 2]) as rank")  # fmt: skip
    settings = {"as_of": START + timedelta(days=10), "least_y": 0.75, "k": 3}
    for half_life, wanted in ((1e6, ["old", "new", "hit"]), (5.0, ["new", "old", "hit"])):
        baselines.materialise(con, "base_most_bought", half_life_days=half_life, **settings)
        assert con.execute("select item_id from base_most_bought order by rank").fetchall() == [(i,) for i in wanted]


def test_a_score_on_targets_of_ones_own(con):
    con.execute("create temp table wanted as select user_id, min(item_id) as item_id from m6.events group by user_id")
    seen = []

    def oracle(con, as_of, users, k):
        known = "select count(*) from eval_history semi join wanted using (user_id, item_id)"
        seen.append(con.execute(known).fetchall())
        return con.sql("select user_id, item_id, 1 as rank from wanted")

    def nothing(con, as_of, users, k):
        return con.sql("select user_id, item_id, 1 as rank from wanted where false")

    def wrong(con, as_of, users, k):
        return con.sql("select user_id, item_id || 'x' as item_id, 1 as rank from wanted")

    rows = evaluation.score(con, {"m6rec": oracle, "wrong": wrong, "nothing": nothing}, "wanted", hidden="wanted", k=K)
    found = {(r[0], r[1], r[2]): r[3:] for r in rows}
    n_users = con.execute("select count(distinct user_id) from m6.events").fetchall()[0][0]
    assert seen == [[(0,)]]
    assert found["m6rec", "all", f"ndcg@{K}"] == (1.0, 1.0, 1.0, n_users)
    assert found["m6rec - wrong", "all", f"ndcg@{K}"] == (1.0, 1.0, 1.0, n_users)
    assert con.execute("select count(*) from m6.runs").fetchall() == [(0,)]
