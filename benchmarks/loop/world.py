"""The world of the closed loop: who likes what, what a slot hides, when feedback arrives, and what was possible.

Everything a policy may not see is here: true qualities per (segment, strategy), their permutation half-way, the
expected satisfaction of a list, and the best weights. Parameters were fixed before any tuning.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

START = datetime(2024, 3, 1)
SEGMENTS = ("north", "east", "south", "west")
STRATEGIES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
ARMS = ("blended", *STRATEGIES)
PERIODS, SLOTS, USERS, ITEMS, LIST, SHARED = 40, 8, 1600, 240, 20, 4
QUALITY = (1.0, 0.60, 0.42, 0.30, 0.20, 0.15)  # of the strategies of a segment, shuffled
BUYS = (0.30, 0.25, 0.20, 0.15, 0.10, 0.05)  # purchases per click, shuffled apart from quality
CLICK, RATES, CLICK_VALUE, PURCHASE_VALUE, DISMISS_VALUE, DISMISSES = 0.30, 0.3, 0.3, 1.0, -0.2, 0.03
THETA: Floats = 1 / np.arange(1, SLOTS + 1) ** 0.7  # probability that a slot is looked at


@dataclass(frozen=True)
class Kind:
    """What sets one world apart.

    Attributes:
        requests: lists per period.
        drift: period at which the qualities are permuted; None: never.
        late: purchases arrive with a mean delay of 2 to 8 periods, by strategy, instead of 1.
        outage: periods whose clicks are lost.
        null: all strategies are equally good.
        sabotage: period from which the learner proposes the reverse; None: never.
    """

    requests: int = 800
    drift: int | None = PERIODS // 2
    late: bool = False
    outage: tuple[int, ...] = ()
    null: bool = False
    sabotage: int | None = None


WORLDS = {
    "base": Kind(),
    "stationary": Kind(drift=None),
    "late": Kind(late=True),
    "small": Kind(requests=200),
    "outage": Kind(outage=(10, 11)),
    "null": Kind(null=True, drift=None),
    "sabotage": Kind(drift=None, sabotage=PERIODS // 2),
    # held back: looked at once, after the algorithm was settled
    "held_early_drift": Kind(requests=600, drift=13),
    "held_late_small": Kind(requests=400, late=True, drift=15),
}


@dataclass
class Answers:
    """What users do with a period's lists; every array is [lists, slots].

    Attributes:
        click, buy, rate, dismiss: whether it happens.
        click_at, buy_at, rate_at: period in which the news arrives.
        stars: rating, 1 to 5.
    """

    click: npt.NDArray[np.bool_]
    buy: npt.NDArray[np.bool_]
    rate: npt.NDArray[np.bool_]
    dismiss: npt.NDArray[np.bool_]
    click_at: Ints
    buy_at: Ints
    rate_at: Ints
    stars: Ints

    def reward(self, period: int) -> Floats:
        """Satisfaction known at the end of a period."""
        known = np.where(self.click & (self.click_at <= period), CLICK_VALUE, 0.0)
        known += np.where(self.buy & (self.buy_at <= period), PURCHASE_VALUE, 0.0)
        known += np.where(self.rate & (self.rate_at <= period), (self.stars - 1) / 4, 0.0)
        return known + np.where(self.dismiss, DISMISS_VALUE, 0.0)


@dataclass
class World:
    """One drawn world: strategies' lists and qualities of one seed, behaviour of one kind."""

    seed: int
    kind: Kind = field(default_factory=Kind)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 17])
        groups, strategies = len(SEGMENTS), len(STRATEGIES)
        self.appeal = 0.2 + 0.8 * rng.random(ITEMS) ** 2
        self.segment = np.arange(USERS) % groups
        self.lists = np.zeros((groups, strategies, LIST), np.int64)
        for g in range(groups):
            self.lists[g] = rng.choice(ITEMS, (strategies, LIST), replace=False)
            for s in range(strategies):
                if s:  # some of it is also another strategy's
                    other = self.lists[g, rng.integers(s)]
                    borrowed = rng.choice(np.setdiff1d(other, self.lists[g, s]), SHARED, replace=False)
                    self.lists[g, s, :SHARED] = borrowed
        first = np.array([rng.permutation(QUALITY) for _ in range(groups)])
        second = first.copy()
        for g in range(groups):  # after the drift another one is best
            while second[g].argmax() == first[g].argmax():
                second[g] = rng.permutation(QUALITY)
        buys = np.array([[rng.permutation(BUYS) for _ in range(groups)] for _ in range(2)])
        slow = np.linspace(1 / 9, 1 / 3, strategies)
        self.arrival = np.array([rng.permutation(slow) for _ in range(groups)])
        quality = np.array([first, second])
        if self.kind.null:
            quality, buys = np.full_like(quality, 0.45), np.full_like(buys, 0.175)
        self._items_of(quality, buys)

    def _items_of(self, quality: Floats, buys: Floats) -> None:
        """Rates per (phase, segment, item): the mean over the strategies that list it."""
        groups = len(SEGMENTS)
        member = np.zeros((groups, len(STRATEGIES), ITEMS))
        for g in range(groups):
            for s in range(len(STRATEGIES)):
                member[g, s, self.lists[g, s]] = 1.0
        backed = np.maximum(member.sum(axis=1), 1.0)
        self.click = CLICK * self.appeal * np.einsum("pgs,gsi->pgi", quality, member) / backed
        self.buy = np.einsum("pgs,gsi->pgi", buys, member) / backed
        self.dismiss = np.broadcast_to(DISMISSES * (1 - self.appeal), self.click.shape)
        speed = np.einsum("gs,gsi->gi", self.arrival, member) / backed
        self.speed = np.where(speed > 0, speed, 1.0) if self.kind.late else np.full_like(speed, 0.5)
        self.mean_stars = 2.5 + 2.0 * self.appeal
        late = self.buy * (PURCHASE_VALUE + RATES * (self.mean_stars - 1) / 4)
        self.satisfaction = self.click * (CLICK_VALUE + late) + (1 - self.click) * self.dismiss * DISMISS_VALUE

    def phase(self, period: int) -> int:
        """0 before the drift, 1 after it."""
        return int(self.kind.drift is not None and period >= self.kind.drift)

    def value(self, period: int, users: Ints, items: Ints) -> float:
        """Expected satisfaction per list of the lists shown, purchases to come included; no sampling noise."""
        worth = self.satisfaction[self.phase(period)][self.segment[users][:, None], items]
        return float((worth * THETA).sum(axis=1).mean())

    def visitors(self, period: int) -> Ints:
        """Users who come in a period, equally many of every segment, in order."""
        rng = np.random.default_rng([self.seed, 3, period])
        share = self.kind.requests // len(SEGMENTS)
        found = [rng.choice(np.flatnonzero(self.segment == g), share, replace=False) for g in range(len(SEGMENTS))]
        return np.sort(np.concatenate(found))

    def uniforms(self, period: int, purpose: int, shape: tuple[int, ...]) -> Floats:
        """The luck of a period, the same for every policy."""
        return np.random.default_rng([self.seed, 5, period, purpose]).random(shape)

    def answers(self, period: int, users: Ints, items: Ints) -> Answers:
        """Draw what users do with the lists [users, slots] of item numbers."""
        phase, g = self.phase(period), self.segment[users][:, None]
        luck = self.uniforms(period, 1, (9, *items.shape))
        looks = luck[0] < THETA
        click = looks & (luck[1] < self.click[phase][g, items])
        dismiss = looks & ~click & (luck[2] < self.dismiss[phase][g, items])
        buy = click & (luck[3] < self.buy[phase][g, items])
        rate = buy & (luck[4] < RATES)
        buy_at = period + np.floor(np.log(luck[5]) / np.log1p(-self.speed[g, items])).astype(np.int64)
        rate_at = buy_at + np.floor(np.log(luck[6]) / np.log(0.5)).astype(np.int64)
        is_tardy = luck[7] < 0.05  # one click in twenty is ingested a period late
        stars = np.clip(np.floor(self.mean_stars[items] + 2 * luck[8] - 0.5), 1, 5).astype(np.int64)
        seen = click & (period not in self.kind.outage)
        return Answers(seen, buy, rate, dismiss, period + is_tardy, buy_at, rate_at, stars)


def draw(lists: Ints, weights: Floats, luck: Floats) -> tuple[Ints, Ints, npt.NDArray[np.bool_], Floats]:
    """``m6rec_udf.slate.mix`` for many users at once, where no list runs dry.

    Args:
        lists: [users, arms, slots] item numbers, best first.
        weights: [users, arms].
        luck: [users, slots] uniforms.

    Returns:
        items, drawn arms, supporters [users, slots, arms] and propensities.
    """
    users, arms, slots = lists.shape
    rows = np.arange(users)
    taken = np.zeros(lists.shape, bool)
    reached = np.cumsum(weights, axis=1)
    items, drawn = np.zeros((users, slots), np.int64), np.zeros((users, slots), np.int64)
    supporters, propensity = np.zeros((users, slots, arms), bool), np.zeros((users, slots))
    for k in range(slots):
        upcoming = np.take_along_axis(lists, taken.argmin(axis=2)[:, :, None], axis=2)[:, :, 0]
        arm = np.minimum((luck[:, k : k + 1] * reached[:, -1:] >= reached).sum(axis=1), arms - 1)
        item = upcoming[rows, arm]
        backing = upcoming == item[:, None]
        items[:, k], drawn[:, k], supporters[:, k] = item, arm, backing
        propensity[:, k] = (weights * backing).sum(axis=1) / reached[:, -1]
        taken |= lists == item[:, None, None]
    return items, drawn, supporters, propensity


def oracle_weights(world: World, lists: Ints, phase: int) -> Floats:
    """Best weights per segment [segments, arms] for the true world on the true lists: a search over the simplex."""
    found = np.zeros((len(SEGMENTS), len(ARMS)))
    for g in range(len(SEGMENTS)):
        users = np.flatnonzero(world.segment == g)
        own, worth = lists[users], world.satisfaction[phase][g]
        luck = np.random.default_rng([world.seed, 11, phase, g]).random((len(users), SLOTS))

        def value(w: Floats, own: Ints = own, luck: Floats = luck, worth: Floats = worth) -> float:
            items = draw(own, np.broadcast_to(w, (len(own), len(w))), luck)[0]
            return float((worth[items] * THETA).sum(axis=1).mean())

        corners = np.eye(len(ARMS))
        tries = [*corners, np.full(len(ARMS), 1 / len(ARMS))]
        scores = [value(w) for w in tries]
        best, score = tries[int(np.argmax(scores))].copy(), max(scores)
        useful = np.argsort(scores[: len(ARMS)])[::-1] if not world.kind.null else np.arange(len(ARMS))
        for size in (0.3, 0.15, 0.08, 0.04):
            is_better = True
            while is_better:
                is_better = False
                for a in useful:
                    for b in useful:
                        if a == b or best[b] < size - 1e-9:
                            continue
                        other = best + size * (corners[a] - corners[b])
                        gained = value(other)
                        if gained > score + 1e-9:
                            best, score, is_better = other, gained, True
        found[g] = np.maximum(best, 0) / np.maximum(best, 0).sum()
    return found


def with_seed(world: World, kind: Kind) -> World:
    """The same people, items and lists under another kind of world."""
    return replace(world, kind=kind)
