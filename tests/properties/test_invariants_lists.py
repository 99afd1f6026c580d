"""What holds of every list, whoever asks and whatever the weights: Hypothesis looks for a counter-example."""

from __future__ import annotations

import pytest
import shop_world as world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

few = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
users = st.sampled_from([*world.USERS, *world.UNKNOWN]) | st.text(max_size=8)
flags = st.sampled_from(["null", "true", "false"])
STRATEGY_COUNT = 10


@pytest.fixture(scope="module")
def weighted(built_file, tmp_path_factory):
    """A shop whose weights a test may set."""
    import shutil

    con = world.connect(shutil.copy(built_file, tmp_path_factory.mktemp("weighted") / "shop.duckdb"))
    yield con
    con.close()


def set_weights(con, values: list[float]) -> None:
    names = [
        name
        for (name,) in world.rows(con, "select strategy from m6.strategy_weights where policy_version = 1 order by 1")
    ]
    total = sum(values[: len(names)])
    for name, value in zip(names, values, strict=False):
        con.execute("update m6.strategy_weights set weight = ? where strategy = ?", [value / total, name])


@few
@given(user=users, exclude=flags, short=st.integers(1, 9), long=st.integers(10, 60))
def test_a_shorter_list_is_a_prefix(reader, user, exclude, short, long):
    head = world.recommend(reader, user, f"k := {short}, exclude_seen := {exclude}")
    assert head == world.recommend(reader, user, f"k := {long}, exclude_seen := {exclude}")[:short]


def test_three_is_a_prefix_of_ten_for_everybody(reader):
    sql = (
        "select user_id, rank, item_id, satisfaction, strategy from m6.recommend_many('audience', k := {}) "
        "where rank <= 3 order by all"
    )
    assert world.rows(reader, sql.format(3)) == world.rows(reader, sql.format(10))


@few
@given(
    user=users,
    k=st.integers(1, 90),
    exclude=flags,
    domain=st.sampled_from([None, "movies", "books"]),
    among=st.sampled_from(["m6.available_items", "picked"]),
    boosts=st.sampled_from(["m6.no_boosts", "margin"]),
    diversity=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_every_list_is_whole_and_inside_its_limits(reader, user, k, exclude, domain, among, boosts, diversity):
    limits = f"{among} join m6.items using (item_id) where is_available and coalesce(domain = $domain, true)"
    allowed = {item for (item,) in world.rows(reader, f"select item_id from {limits}", {"domain": domain})}
    quoted = "null" if domain is None else f"'{domain}'"
    options = (
        f"k := {k}, in_domain := {quoted}, among := '{among}', boosts := '{boosts}', "
        f"diversity := {diversity}, exclude_seen := {exclude}"
    )
    listed = world.recommend(reader, user, options)
    assert len(listed) == min(k, len(allowed))
    assert len({row["item_id"] for row in listed}) == len(listed)
    assert {row["item_id"] for row in listed} <= allowed
    assert [row["rank"] for row in listed] == list(range(1, len(listed) + 1))
    assert all(0 <= row["satisfaction"] <= 1 and row["user_id"] == user for row in listed)
    seen = [row["strategy"] == "seen" for row in listed]
    assert seen == sorted(seen)


@few
@given(
    user=users,
    values=st.lists(
        st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0]), min_size=STRATEGY_COUNT, max_size=STRATEGY_COUNT
    ).filter(any),
    seed=st.integers(0, 2**31),
    k=st.sampled_from([1, 10, 79]),
)
def test_any_weights_keep_lists_valid(weighted, user, values, seed, k):
    set_weights(weighted, values)
    listed = world.recommend(weighted, user, f"k := {k}")
    assert len({row["item_id"] for row in listed}) == k
    served = world.rows(
        weighted,
        "select item_id, rank, propensity, supporters, eligible, strategy from m6.serve(?, k := ?, seed := ?)",
        [user, k, seed],
    )
    assert len({row[0] for row in served}) == k
    assert all(0 < propensity <= 1 + 1e-9 for _, _, propensity, *_ in served)
    bits = dict(world.rows(weighted, "select strategy, bit from m6.strategies"))
    positive = {
        name for (name,) in world.rows(weighted, "select strategy from m6.strategy_weights_active where weight > 0")
    }
    for _, _, propensity, supporters, eligible, strategy in served:
        assert supporters & ~eligible == 0
        if supporters:
            assert supporters >> bits[strategy] & 1
            assert strategy in positive
        else:
            assert propensity == 1.0
