"""What else could choose strategies: the usual bandits, on the same lists, the same luck and the same late feedback.

Every policy gives strategy weights [segments, arms] for the next period and then sees the log so far: who was drawn,
in which slot, and the reward known by now (late purchases raise it later). The settings were chosen per policy among
``GRID`` on development seeds; ``python benchmarks/loop/run.py --tune`` prints that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from world import ARMS, PERIODS, SEGMENTS, SLOTS, Answers, Floats, Ints, World, draw

GROUPS, COUNT = len(SEGMENTS), len(ARMS)
FLOOR = 0.005


@dataclass
class Period:
    """The log of one period."""

    segment: Ints
    drawn: Ints
    supporters: npt.NDArray[np.bool_]
    propensity: Floats
    answers: Answers


@dataclass
class Log:
    """Everything a policy may look at."""

    periods: list[Period] = field(default_factory=list)

    def rewards(self, now: int, at: int) -> Floats:
        """Reward known by now of a period's impressions, without what the slot adds: no position bias.

        The level stays, unlike in the product's statistics: a policy that plays one arm alone would see only zeros.
        """
        found = self.periods[at].answers.reward(now)
        return found - found.mean(axis=0) + found.mean()

    def sums(self, now: int, at: int) -> tuple[Floats, Floats]:
        """(number, sum of rewards) per (segment, drawn arm) of a period."""
        entry, reward = self.periods[at], self.rewards(now, at)
        key = (entry.segment[:, None] * COUNT + entry.drawn).ravel()
        shape = (GROUPS, COUNT)
        number = np.bincount(key, minlength=GROUPS * COUNT).reshape(shape)
        return number.astype(float), np.bincount(key, reward.ravel(), GROUPS * COUNT).reshape(shape)

    def discounted(self, now: int, gamma: float) -> tuple[Floats, Floats, Floats]:
        """Discounted number and mean reward per (segment, arm); variance per impression of the segment."""
        number, total, squares = np.zeros((GROUPS, COUNT)), np.zeros((GROUPS, COUNT)), np.zeros(GROUPS)
        for at in range(max(0, now - 15), now + 1):
            n, s = self.sums(now, at)
            share = gamma ** (now - at)
            number, total = number + share * n, total + share * s
            reward, entry = self.rewards(now, at), self.periods[at]
            for g in range(GROUPS):
                rows = entry.segment == g
                squares[g] += share * (reward[rows] ** 2).sum()
        level = total.sum(axis=1) / number.sum(axis=1)
        mean = np.divide(total, number, out=np.repeat(level[:, None], COUNT, axis=1), where=number > 0)
        return number, mean, np.maximum(squares / number.sum(axis=1) - level**2, 1e-9)


def with_floor(weights: Floats, floor: float = FLOOR) -> Floats:
    """No arm below the floor."""
    return (1 - COUNT * floor) * weights / weights.sum(axis=1, keepdims=True) + floor


class Policy:
    """Weights for the next period; ``learn`` looks at the log after each."""

    def __init__(self, seed: int, **settings: float) -> None:
        self.rng = np.random.default_rng([seed, 31])
        self.settings = settings
        self.weights: Floats = np.full((GROUPS, COUNT), 1 / COUNT)

    def learn(self, log: Log, now: int) -> None:
        """Change ``weights`` after a period."""


class Thompson(Policy):
    """Discounted Thompson sampling per segment, as the share of draws each arm is best, with a floor."""

    def learn(self, log: Log, now: int) -> None:
        number, mean, variance = log.discounted(now, self.settings["gamma"])
        level = ((number * mean).sum(axis=1) / number.sum(axis=1))[:, None]
        wide = self.settings["prior"] * np.abs(level) + 1e-6  # prior deviation of an arm around the segment's mean
        precision = number / variance[:, None] + 1 / wide**2
        center = (number * mean / variance[:, None] + level / wide**2) / precision
        samples = center + self.rng.standard_normal((4096, GROUPS, COUNT)) / np.sqrt(precision)
        best = samples.argmax(axis=2)
        share = np.stack([(best == a).mean(axis=0) for a in range(COUNT)], axis=1)
        self.weights = with_floor(share, self.settings["floor"])


class EpsilonGreedy(Policy):
    """The best discounted mean per segment, and every arm alike with probability epsilon."""

    def learn(self, log: Log, now: int) -> None:
        _, mean, _ = log.discounted(now, self.settings["gamma"])
        greedy = np.eye(COUNT)[mean.argmax(axis=1)]
        epsilon = self.settings["epsilon"]
        self.weights = (1 - epsilon) * greedy + epsilon / COUNT


class Exp3(Policy):
    """Exponential weights on inverse-propensity rewards, with forgetting by a mixed-in share (Exp3.S)."""

    def __init__(self, seed: int, **settings: float) -> None:
        super().__init__(seed, **settings)
        self.gains: Floats = np.zeros((GROUPS, COUNT))

    def learn(self, log: Log, now: int) -> None:
        _, total = log.sums(now, now)
        entry = log.periods[now]
        shown = np.bincount(entry.segment, minlength=GROUPS) * SLOTS
        scale = np.maximum(np.abs(total.sum(axis=1) / shown), 1e-6)[:, None]
        value = total / shown[:, None] / self.weights / scale  # reward of an arm by inverse propensity, 1 on average
        logits = np.log(self.weights) + self.settings["eta"] * value
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.weights = with_floor(weights, self.settings["share"] / COUNT)


class Mirror(Policy):
    """Mirror ascent on advantages with the supporters' credit: w <- w exp(eta A)."""

    def learn(self, log: Log, now: int) -> None:
        entry, reward = log.periods[now], log.rewards(now, now)
        u = entry.supporters / entry.propensity[:, :, None]
        logits = np.log(self.weights)
        for g in range(GROUPS):
            rows = entry.segment == g
            mean = (u[rows] * reward[rows][:, :, None]).sum(axis=(0, 1)) / np.maximum(u[rows].sum(axis=(0, 1)), 1e-9)
            scale = max(float(reward[rows].mean()), 1e-6)
            logits[g] += self.settings["eta"] * np.clip(mean / scale - 1, -2, 2)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.weights = with_floor(weights)


def contexts() -> Floats:
    """One row per segment: one-hot."""
    return np.eye(GROUPS)


class MabWiser(Policy):
    """LinUCB or LinTS of mabwiser on the segment's one-hot context, fitted anew each period on the last ones."""

    kind = "LinUCB"

    def learn(self, log: Log, now: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        start = max(0, now + 1 - int(self.settings["window"]))
        decisions, rewards, rows = [], [], []
        for at in range(start, now + 1):
            entry = log.periods[at]
            decisions.append(entry.drawn.ravel())
            rewards.append(log.rewards(now, at).ravel() / self._scale(log, now))
            rows.append(np.repeat(entry.segment, SLOTS))
        rule = getattr(LearningPolicy, self.kind)(alpha=self.settings["alpha"])
        model = MAB(arms=list(range(COUNT)), learning_policy=rule, seed=int(self.rng.integers(2**31)))
        model.fit(np.concatenate(decisions), np.concatenate(rewards), contexts()[np.concatenate(rows)])
        draws = 200 if self.kind == "LinTS" else 1
        found = np.asarray(model.predict(np.repeat(contexts(), draws, axis=0))).reshape(GROUPS, draws)
        self.weights = np.stack([(found == a).mean(axis=1) for a in range(COUNT)], axis=1)

    def _scale(self, log: Log, now: int) -> float:
        return float(log.rewards(now, now).std()) or 1.0


class LinUCB(MabWiser):
    """mabwiser LinUCB."""


class LinTS(MabWiser):
    """mabwiser LinTS."""

    kind = "LinTS"


class SquareCB(Policy):
    """Vowpal Wabbit SquareCB on the segment, one example per impression."""

    def __init__(self, seed: int, **settings: float) -> None:
        import vowpalwabbit

        super().__init__(seed, **settings)
        options = "--cb_explore_adf --squarecb --quiet -q SA --cb_type mtr --ignore_linear S --noconstant"
        options += f" --gamma_scale {settings['gamma_scale']} --gamma_exponent {settings['exponent']}"
        options += f" -l {settings['rate']} --power_t {settings['power_t']}"
        self.model = vowpalwabbit.Workspace(f"{options} --random_seed {seed}")

    def learn(self, log: Log, now: int) -> None:
        at = now - int(self.settings["wait"])
        if at < 0:
            return
        entry, reward = log.periods[at], log.rewards(now, at)
        scale = float(reward.std()) or 1.0
        chance = np.take_along_axis(self.served[at][entry.segment], entry.drawn, axis=1)
        for row in self.rng.permutation(len(entry.segment)):
            g = entry.segment[row]
            for k in range(SLOTS):
                a = entry.drawn[row, k]
                label = f"0:{-reward[row, k] / scale:.5f}:{chance[row, k]:.5f} "
                lines = [f"shared |S s{g}"] + [(label if b == a else "") + f"|A a{b}" for b in range(COUNT)]
                self.model.learn(lines)
        self._predict()

    def _predict(self) -> None:
        for g in range(GROUPS):
            found = self.model.predict([f"shared |S s{g}"] + [f"|A a{b}" for b in range(COUNT)])
            self.weights[g] = np.asarray(found) / np.sum(found)

    served: dict[int, Floats]


@dataclass(frozen=True)
class Entry:
    """A policy: how to make it, and its settings per name."""

    make: Callable[..., Policy]
    settings: dict[str, float]
    grid: dict[str, list[float]] = field(default_factory=dict)


BASELINES: dict[str, Entry] = {
    "thompson": Entry(
        Thompson,
        {"gamma": 0.9, "prior": 1.0, "floor": 0.005},
        {"gamma": [0.5, 0.65, 0.8, 0.9], "prior": [0.25, 0.5, 1.0, 2.0], "floor": [0.005, 0.01]},
    ),
    "epsilon_greedy": Entry(
        EpsilonGreedy,
        {"gamma": 0.8, "epsilon": 0.1},
        {"gamma": [0.4, 0.6, 0.8, 0.9], "epsilon": [0.05, 0.1, 0.2]},
    ),
    "exp3": Entry(Exp3, {"eta": 1.0, "share": 0.05}, {"eta": [0.1, 0.25, 0.5, 1, 2], "share": [0.02, 0.05, 0.1]}),
    "mirror_ascent": Entry(Mirror, {"eta": 2.0}, {"eta": [0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0]}),
    "mabwiser_linucb": Entry(
        LinUCB, {"alpha": 0.5, "window": 16}, {"alpha": [0.1, 0.5, 1.0, 2.0], "window": [2, 4, 8, 16, 40]}
    ),
    "mabwiser_lints": Entry(
        LinTS, {"alpha": 0.3, "window": 8}, {"alpha": [0.3, 1.0, 3.0], "window": [2, 4, 8, 16, 40]}
    ),
    "vw_squarecb": Entry(
        SquareCB,
        {"gamma_scale": 300, "exponent": 0, "rate": 0.003, "power_t": 0, "wait": 0},
        {
            "gamma_scale": [30, 100, 300, 1000],
            "exponent": [0, 0.5],
            "rate": [0.003, 0.01, 0.1],
            "power_t": [0],
            "wait": [0],
        },
    ),
}


def play(
    policy: Policy, world: World, lists: Ints, *, periods: int = PERIODS, fixed: Callable[[int], Floats] | None = None
) -> list[float]:
    """Run a policy on the fast path; ``fixed`` gives the weights of a period instead of the policy."""
    log, values, served = Log(), [], {}
    if isinstance(policy, SquareCB):
        policy.served = served
    for period in range(periods):
        weights = policy.weights if fixed is None else fixed(period)
        served[period] = weights.copy()
        users = world.visitors(period)
        segment = world.segment[users]
        luck = world.uniforms(period, 2, (len(users), SLOTS))
        items, drawn, supporters, propensity = draw(lists[users], weights[segment], luck)
        values.append(world.value(period, users, items))
        if fixed is None:
            answers = world.answers(period, users, items)
            log.periods.append(Period(segment, drawn, supporters, propensity, answers))
            policy.learn(log, period)
    return values


def settings_of(grid: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Every combination of a grid."""
    found: list[dict[str, Any]] = [{}]
    for name, choices in grid.items():
        found = [{**one, name: choice} for one in found for choice in choices]
    return found
