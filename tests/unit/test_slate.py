"""Mixing strategies into a list: exact propensities, the deterministic counterpart, diversity."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m6rec_udf.slate import BLENDED_BIT, calibrate, diversify, mix, ranking_order

WEIGHTS = {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}
SUPPORTERS = np.array([0b0010, 0b0110, 0b0100, 0b1000, 0b1010, 0b0100, 0b0001], np.uint64)
ORDER = np.array([3, 1, 0, 2, 4, 6, 5])
UNSEEN = np.zeros(7, bool)


def bits(mask: int) -> set[int]:
    return {bit for bit in range(64) if mask >> bit & 1}


def drawn(seed, k=4, weights=WEIGHTS):
    return mix(ORDER, SUPPORTERS, UNSEEN, weights, k, generator=np.random.default_rng(seed))


def test_empirical_frequencies_match_the_propensities():
    """20,000 lists: for every slot and every list above it, each item comes as often as its propensity says."""
    generator = np.random.default_rng(7)
    count: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    said: dict[tuple[int, ...], dict[int, float]] = defaultdict(dict)
    for _ in range(20_000):
        above: tuple[int, ...] = ()
        for slot in mix(ORDER, SUPPORTERS, UNSEEN, WEIGHTS, 4, generator=generator):
            count[above][slot.candidate] += 1
            assert said[above].setdefault(slot.candidate, slot.propensity) == slot.propensity
            above = (*above, slot.candidate)
    tested = 0
    for above, chosen in count.items():
        total = sum(chosen.values())
        if total < 200:
            continue
        assert sum(said[above].values()) == pytest.approx(1.0), "everything that can come has been seen"
        for item, times in chosen.items():
            p = said[above][item]
            z = (times - total * p) / max((total * p * (1 - p)) ** 0.5, 1e-9)
            assert abs(z) < 4 or p == pytest.approx(1.0), (above, item, z)
            tested += 1
    assert tested > 40


def test_the_strategy_is_drawn_by_its_weight():
    generator = np.random.default_rng(1)
    first = Counter(mix(ORDER, SUPPORTERS, UNSEEN, WEIGHTS, 1, generator=generator)[0].bit for _ in range(20_000))
    for bit, weight in WEIGHTS.items():
        assert abs(first[bit] - 20_000 * weight) / (20_000 * weight * (1 - weight)) ** 0.5 < 4


@st.composite
def cases(draw):
    n = draw(st.integers(1, 12))
    supporters = np.array(draw(st.lists(st.integers(0, 31), min_size=n, max_size=n)), np.uint64)
    is_seen = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    order = np.array(draw(st.permutations(range(n))))
    weights = {bit: draw(st.floats(0, 1)) for bit in draw(st.sets(st.integers(0, 4)))}
    return order, supporters, is_seen, weights, draw(st.integers(1, 15)), draw(st.integers(0, 10**6))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_slot_tells_the_truth(case):
    """propensity = weight of supporters / weight of eligible; the drawn strategy is one of them; nothing twice."""
    order, supporters, is_seen, weights, k, seed = case
    for generator in (None, np.random.default_rng(seed)):
        slots = mix(order, supporters, is_seen, weights, k, generator=generator)
        chosen = [slot.candidate for slot in slots]
        assert len(set(chosen)) == len(chosen) <= k
        live = {bit: w for bit, w in weights.items() if w > 0} or {BLENDED_BIT: 1.0}
        filled = False
        for at, slot in enumerate(slots):
            if slot.bit < 0:
                filled = True
                assert is_seen[slot.candidate]
                assert (slot.supporters, slot.eligible) == (0, 0)
                assert slot.propensity == (None if generator is None else 1.0)
                continue
            assert not filled
            assert not is_seen[slot.candidate]
            if not slot.eligible:  # every weighted list is used up: the rest in order, it teaches nothing
                assert (slot.bit, slot.supporters) == (BLENDED_BIT, 0)
                assert slot.propensity == (None if generator is None else 1.0)
                left = [c for c in order if not is_seen[c] and c not in chosen[:at]]
                assert slot.candidate == left[0]
                assert not any(bit in bits(int(supporters[c])) for c in left for bit in live)
                assert BLENDED_BIT not in live
                continue
            backing, eligible = bits(slot.supporters), bits(slot.eligible)
            assert slot.bit in backing <= eligible <= live.keys()
            for bit in eligible:
                own = [c for c in order if not is_seen[c] and (bit == BLENDED_BIT or bit in bits(int(supporters[c])))]
                following = next(c for c in own if c not in chosen[:at])
                assert (following == slot.candidate) == (bit in backing)
            if generator is not None:
                total = sum(live[bit] for bit in eligible)
                assert slot.propensity == pytest.approx(sum(live[bit] for bit in backing) / total)
                assert 0 < slot.propensity <= 1 + 1e-9
            else:
                assert slot.propensity is None


def test_the_same_seed_draws_the_same_list_and_another_seed_another():
    assert drawn(5) == drawn(5)
    assert len({tuple(slot.candidate for slot in drawn(seed)) for seed in range(30)}) > 5


def test_blended_alone_is_the_order_of_satisfaction():
    for generator in (None, np.random.default_rng(0)):
        slots = mix(ORDER, SUPPORTERS, UNSEEN, {BLENDED_BIT: 1.0}, 7, generator=generator)
        assert [slot.candidate for slot in slots] == ORDER.tolist()
        assert all(slot.propensity in (None, 1.0) for slot in slots)


def test_without_weights_the_list_is_blended():
    assert [slot.candidate for slot in mix(ORDER, SUPPORTERS, UNSEEN, {}, 7)] == ORDER.tolist()


def test_deterministic_slots_are_shared_by_weight():
    """Disjoint lists: after n slots every strategy has had n * w of them, give or take one per other strategy."""
    per, owners = 400, (1, 2, 3)
    supporters = np.repeat(np.array([1 << bit for bit in owners], np.uint64), per)
    order = np.random.default_rng(0).permutation(per * len(owners))
    weights = {1: 0.6, 2: 0.3, 3: 0.1}
    slots = mix(order, supporters, np.zeros(per * 3, bool), weights, 300)
    for n in (10, 50, 300):
        had = Counter(slot.bit for slot in slots[:n])
        for bit, weight in weights.items():
            assert abs(had[bit] - n * weight) <= 2, (n, bit)


def test_a_short_deterministic_list_is_the_head_of_a_long_one():
    longer = mix(ORDER, SUPPORTERS, UNSEEN, WEIGHTS, 7)
    for k in range(1, 7):
        assert mix(ORDER, SUPPORTERS, UNSEEN, WEIGHTS, k) == longer[:k]


def test_seen_items_come_last_and_say_so():
    seen = np.array([False, True, False, True, False, False, False])
    slots = mix(ORDER, SUPPORTERS, seen, WEIGHTS, 7, generator=np.random.default_rng(0))
    assert [(slot.candidate, slot.bit, slot.propensity) for slot in slots[-2:]] == [(3, -1, 1.0), (1, -1, 1.0)]


def test_ties_go_to_the_lower_item_after_rounding():
    score = np.array([0.5, 0.5 + 1e-12, 0.9, 0.5])
    assert ranking_order(score, np.array([9, 4, 7, 1])).tolist() == [2, 3, 1, 0]


# diversity and boosts


def mean_similarity(vectors: np.ndarray, chosen: list[int]) -> float:
    own = vectors[chosen] @ vectors[chosen].T
    return float((own.sum() - len(chosen)) / (len(chosen) * (len(chosen) - 1)))


@pytest.fixture
def themes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """60 items of 6 themes; the best ones are all of one theme."""
    rng = np.random.default_rng(3)
    theme = np.arange(60) // 10
    vectors = np.eye(6)[theme] * 3 + rng.normal(size=(60, 6)) * 0.3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    score = 0.9 - 0.1 * theme - 0.001 * np.arange(60)
    return ranking_order(score, np.arange(60)), score, vectors.astype(np.float32)


def test_diversity_reduces_similarity_step_by_step(themes):
    order, score, vectors = themes
    found = [
        mean_similarity(vectors, diversify(order, score, vectors, d, 50)[:10].tolist()) for d in (0.0, 0.3, 0.6, 1.0)
    ]
    assert found[0] > 0.8
    assert found[1] < found[0] - 0.2
    assert found[2] <= found[1]
    assert found[3] <= found[2] + 0.05


def test_diversity_zero_changes_nothing_and_none_is_lost(themes):
    order, score, vectors = themes
    assert diversify(order, score, vectors, 0.0, 50).tolist() == order.tolist()
    mixed = diversify(order, score, vectors, 0.7, 50)
    assert sorted(mixed.tolist()) == sorted(order.tolist())
    assert mixed[0] == order[0]
    assert mixed[50:].tolist() == order[50:].tolist()


def test_diversity_follows_its_formula():
    score = np.array([1.0, 0.9, 0.5])
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    order = np.array([0, 1, 2])
    assert diversify(order, score, vectors, 0.3, 3).tolist() == [0, 2, 1]  # 0.63 - 0.3 < 0.35
    assert diversify(order, score, vectors, 0.2, 3).tolist() == [0, 1, 2]  # 0.72 - 0.2 > 0.40


# the user's own mix of categories


def test_calibrated_lists_keep_the_mix_of_the_history():
    score = np.linspace(1.0, 0.5, 60)
    category = np.where(np.arange(60) < 40, 0, 1)  # the best forty are all of one category
    order = np.arange(60)
    shares = {0: 0.5, 1: 0.5}
    assert calibrate(order, score, category, shares, 0.0, 10).tolist() == order.tolist()
    mixed = calibrate(order, score, category, shares, 0.9, 10)
    assert 4 <= (category[mixed[:10]] == 1).sum() <= 5
    assert sorted(mixed.tolist()) == order.tolist()
    assert mixed[0] == 0
    for own in (0, 1):  # inside a category the order stays
        listed = [c for c in mixed if category[c] == own]
        assert listed == sorted(listed)


def test_calibration_follows_its_formula():
    score, category = np.array([1.0, 0.8, 0.7]), np.array([0, 0, 7])
    shares, strength = {0: 0.75, 7: 0.25}, 0.6
    p = np.array([0.75, 0.25])

    def value(candidate: int, counts: list[float]) -> float:
        q = 0.99 * np.array(counts) / sum(counts) + 0.01 * p
        return (1 - strength) * score[candidate] - strength * float((p * np.log(p / q)).sum())

    second = 1 if value(1, [2, 0]) > value(2, [1, 1]) else 2
    assert calibrate(np.arange(3), score, category, shares, strength, 2).tolist()[:2] == [0, second]


def test_nobody_without_categories_is_calibrated():
    order = np.array([2, 0, 1])
    assert calibrate(order, np.ones(3), np.zeros(3, int), {}, 1.0, 10) is order
