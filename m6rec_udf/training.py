"""Training rows: what the candidates of past moments turned out to be worth.

Four sources. Windows: the candidates at the start of a window, labelled by what the user did inside it. Visits: the
candidates in the middle of a visit, labelled by what the user did next. Hidden domains: the candidates of one domain,
for users whose behaviour there is left out, labelled by what they did there in the window.
Impressions: what ``serve`` showed inside it, labelled by what the user then did with it; shown and ignored is a
negative, and a row weighs 1 / propensity, so that what the strategies in force showed more does not look better.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from m6rec_udf.arrays import Snapshot
from m6rec_udf.event_log import Log
from m6rec_udf.fitting import Rows, join, no_rows
from m6rec_udf.functions import candidates_of
from m6rec_udf.history import Behaviour
from m6rec_udf.satisfaction import is_known

WINDOW_SHARE = 0.08
WINDOWS = 4  # the latest one stops and calibrates, the others train
WINDOWS_OF_SMALL_LOGS = 6
SMALL_LOG = 300_000  # events
WINDOWS_OF_LARGE_LOGS = 2
LARGE_LOG = 3_000_000  # where one window holds enough to learn from and each costs a pass over the log
USERS_PER_WINDOW = 1000
NEGATIVES_PER_USER = {False: 30, True: 20}  # of items new to the user, and of items it knows
LEAST_STRANGERS = 100  # users asked about without a history, per window
MOST_OF_A_SHORT_HISTORY = 5  # behaviours
HIDDEN_PER_WINDOW = 500  # pairs of a user and a domain
VISITS_PER_WINDOW = 300
QUESTIONS_PER_USER = 8
REQUESTS_PER_WINDOW = 3000
LARGEST_IMPRESSION_WEIGHT = 10.0
LEAST_ANSWERS = 100  # impressions followed by something, in all windows together; fewer are not learned from


def cuts(log: Log) -> list[float]:
    """Moments from which windows look ahead, latest first: quantiles of the log's times."""
    if len(log.happened_at) < 50:
        return []
    events = len(log.happened_at)
    windows = WINDOWS_OF_SMALL_LOGS if events < SMALL_LOG else WINDOWS if events < LARGE_LOG else WINDOWS_OF_LARGE_LOGS
    shares = [1 - WINDOW_SHARE * (j + 1) for j in range(windows)]
    found = [float(np.quantile(log.happened_at, s, method="higher")) for s in shares]
    first = float(log.happened_at.min())
    return [c for at, c in enumerate(found) if c > first and c not in found[:at]]


@dataclass(frozen=True)
class Outcomes:
    """Rows of mart_outcomes of one window, sorted by (user, item)."""

    user: np.ndarray
    item: np.ndarray
    satisfaction: np.ndarray

    def only(self, keep: np.ndarray) -> Outcomes:
        """The outcomes of a mask."""
        return Outcomes(self.user[keep], self.item[keep], self.satisfaction[keep])


@dataclass(frozen=True)
class Impressions:
    """Rows of mart_impressions of one window, sorted by (request, rank); ``request`` counts from 0."""

    request: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rank: np.ndarray
    propensity: np.ndarray
    shown_at: np.ndarray
    satisfaction: np.ndarray

    @property
    def answered(self) -> int:
        """How many were followed by something."""
        return int((self.satisfaction > 0).sum())

    def only(self, keep: np.ndarray) -> Impressions:
        """The impressions of a mask."""
        columns = (getattr(self, field.name)[keep] for field in fields(self))
        return Impressions(*columns)


def rows_of_impressions(
    snapshot: Snapshot, log: Log, impressions: Impressions, *, seed: int, extra: Any = None
) -> Rows:
    """Impressions with the features they had when they were shown: the window's snapshot, the history until then.

    An item that the snapshot would not have proposed to the user is left out: no candidate looks like it.
    """
    generator = np.random.default_rng(seed)
    requests, first = np.unique(impressions.request, return_index=True)
    if len(requests) > REQUESTS_PER_WINDOW:
        keep = np.sort(generator.choice(len(requests), REQUESTS_PER_WINDOW, replace=False))
        requests, first = requests[keep], first[keep]
    parts = []
    for start in range(0, len(requests), 500):
        at = first[start : start + 500]
        users = impressions.user[at]
        behaviour = log.before(users, impressions.shown_at[at], snapshot.settings["segments"])
        found, x = candidates_of(
            snapshot,
            behaviour,
            allowed=None,
            exclude_seen=not snapshot.settings["repeats_allowed"],
            at_least=10,
            extra=None if extra is None else _per_request(extra, users),
        )
        shown = np.flatnonzero(np.isin(impressions.request, requests[start : start + 500]))
        row = np.searchsorted(requests[start : start + 500], impressions.request[shown])
        key = found.row.astype(np.int64) * snapshot.n + found.item  # ascending
        wanted = row.astype(np.int64) * snapshot.n + impressions.item[shown]
        place = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        known = key[place] == wanted if len(key) else np.zeros(len(wanted), bool)
        shown, place = shown[known], place[known]
        weight = np.minimum(1.0 / impressions.propensity[shown], LARGEST_IMPRESSION_WEIGHT)
        y, slot = impressions.satisfaction[shown], impressions.rank[shown]
        window = np.full(len(y), snapshot.settings["as_of"])
        parts.append(Rows(x[place], y, weight, slot, np.ones(len(y), bool), window))
    return join(parts) if parts else no_rows()


def _per_request(extra: Any, users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposals of the SQL-only strategies for the users of requests, (request position, item, bit)."""
    distinct = np.unique(users)
    row, item, bit = extra(distinct)
    order = np.argsort(row, kind="stable")
    row, item, bit = row[order], item[order], bit[order]
    own = np.searchsorted(distinct, users)
    start, stop = np.searchsorted(row, own, "left"), np.searchsorted(row, own, "right")
    length = stop - start
    at = np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(length.sum())
    return np.repeat(np.arange(len(users)), length), item[at], bit[at]


def rows_of_window(
    snapshot: Snapshot,
    log: Log,
    outcomes: Outcomes,
    *,
    seed: int,
    extra: Any = None,
) -> Rows:
    """Candidates at the snapshot's moment, labelled by the outcomes of the window after it.

    Users are those active in the window, at most USERS_PER_WINDOW; y is the best satisfaction of the pair inside it, 0
    where nothing happened. Of the rows with y = 0 a sample is kept and weighted so that the base rate stays what it
    was. As many users as there are newcomers, at most half, are asked about once more with only the latest one to five
    of their behaviours, and, where few users have no history yet, some with none (Volkovs, Yu, Poutanen 2017,
    "DropoutNet"): what suits newcomers and strangers is learned even where there were few of them.
    """
    as_of = float(snapshot.settings["as_of"])
    users = np.unique(outcomes.user)
    generator = np.random.default_rng(seed)
    if len(users) > USERS_PER_WINDOW:
        users = np.sort(generator.choice(users, USERS_PER_WINDOW, replace=False))
    segments = snapshot.settings["segments"]
    answers = Answers(outcomes.user * snapshot.n + outcomes.item, outcomes.satisfaction)
    parts: list[Rows] = []
    strangers, newcomers = 0, 0
    for start in range(0, len(users), 1000):
        block = users[start : start + 1000]
        behaviour = log.behaviour(block, as_of, segments)
        length = np.bincount(behaviour.row, minlength=len(block))
        strangers += int((length == 0).sum())
        newcomers += int((length < MOST_OF_A_SHORT_HISTORY).sum())
        own = None if extra is None else extra(block)
        parts.append(_rows_of_questions(snapshot, behaviour, block, answers, generator, extra=own))
    short = min(newcomers, len(users) // 2)
    again = (min(LEAST_STRANGERS - strangers, len(users)), 0), (short, MOST_OF_A_SHORT_HISTORY)
    for count, longest in again:
        if count > 0:
            block = np.sort(generator.choice(users, count, replace=False))
            length = generator.integers(min(longest, 1), longest + 1, count)
            behaviour = log.behaviour(block, as_of, segments).latest(length)
            parts.append(_rows_of_questions(snapshot, behaviour, block, answers, generator))
    return join(parts) if parts else no_rows()


@dataclass(frozen=True)
class Hidden:
    """Questions of one window about a domain that is hidden from the user's history: users and domains, int64 ``[q]``.

    What is learned as of the window's start must not have seen the behaviour that is hidden, ``without`` it: item-item
    weights remember who liked what together.
    """

    user: np.ndarray
    domain: np.ndarray

    @classmethod
    def some(cls, outcomes: Outcomes, domain: np.ndarray, *, seed: int) -> Hidden:
        """At most HIDDEN_PER_WINDOW of the users and domains that have outcomes; ``domain``: code of each item."""
        domains = int(domain.max(initial=0)) + 1
        found = np.unique(outcomes.user * domains + domain[outcomes.item])
        if domains < 2:
            found = found[:0]
        if len(found) > HIDDEN_PER_WINDOW:
            found = np.sort(np.random.default_rng(seed).choice(found, HIDDEN_PER_WINDOW, replace=False))
        return cls(found // domains, found % domains)

    def only(self, keep: np.ndarray) -> Hidden:
        """The questions of a mask."""
        return Hidden(self.user[keep], self.domain[keep])

    def without(self, log: Log, domain: np.ndarray) -> Log:
        """The log without the behaviour that is hidden."""
        if not len(self.user):
            return log
        domains = int(domain.max(initial=0)) + 1
        is_asked = np.zeros(log.users, bool)
        is_asked[self.user] = True
        at = np.flatnonzero(is_asked[log.user])
        key = log.user[at].astype(np.int64) * domains + domain[log.item[at]]
        keep = np.ones(len(log.user), bool)
        keep[at] = ~np.isin(key, self.user * domains + self.domain)
        return log.only(keep)


def rows_of_hidden_domains(
    snapshot: Snapshot, log: Log, outcomes: Outcomes, hidden: Hidden, until: float, *, seed: int
) -> Rows:
    """Candidates of one domain for users whose behaviour there is hidden, labelled by what they did there then.

    Users are asked at the snapshot's moment; who had done nothing elsewhere until then, at the end of what they did
    elsewhere in the window (up to ``until``). Whatever is computed from a history is computed from what is left of it.
    Only users with outcomes are asked about.
    """
    as_of, segments = float(snapshot.settings["as_of"]), snapshot.settings["segments"]
    generator = np.random.default_rng(seed)
    hidden = hidden.only(np.isin(hidden.user, outcomes.user))
    answers = Answers(outcomes.user * snapshot.n + outcomes.item, outcomes.satisfaction)
    parts = []
    for domain in np.unique(hidden.domain).tolist():
        users = hidden.user[hidden.domain == domain]
        inside = snapshot.domain == domain
        for end in (as_of, until):
            behaviour = log.behaviour(users, end, segments)
            behaviour = behaviour.only(~inside[behaviour.item])
            has_some = np.bincount(behaviour.row, minlength=len(users)) > 0
            asked, block = behaviour.of(np.flatnonzero(has_some)), users[has_some]
            if len(block):
                parts.append(_rows_of_questions(snapshot, asked, block, answers, generator, allowed=inside))
            users = users[~has_some]
    return join(parts) if parts else no_rows()


def rows_of_visits(
    snapshot: Snapshot,
    log: Log,
    until: float,
    *,
    seed: int,
    among: np.ndarray | None = None,
) -> Rows:
    """Candidates in the middle of visits: the window's snapshot, the history up to a moment inside the window.

    A question is a moment at which a user did something and after which it did more in the window (up to ``until``): at
    most QUESTIONS_PER_USER of a user and VISITS_PER_WINDOW together. y is the best satisfaction of the pair until the
    window's end, ``is_next`` marks what the user did at its very next moment. ``among``: only these users (user_idx).
    """
    as_of = float(snapshot.settings["as_of"])
    generator = np.random.default_rng(seed)
    inside = (log.happened_at > as_of) & (log.happened_at <= until)
    if among is not None:
        inside &= np.isin(log.user, among)
    at = np.flatnonzero(inside)
    is_first = np.ones(len(at), bool)  # of the events of one user at one moment; the log is sorted by both
    is_first[1:] = (log.user[at[1:]] != log.user[at[:-1]]) | (log.happened_at[at[1:]] != log.happened_at[at[:-1]])
    user, moment = log.user[at[is_first]], log.happened_at[at[is_first]]
    has_more = np.zeros(len(user), bool)
    has_more[:-1] = user[1:] == user[:-1]
    asked = _some_of_each(user, np.flatnonzero(has_more), generator)
    parts = []
    for start in range(0, len(asked), 1000):
        block = asked[start : start + 1000]
        behaviour = log.before(user[block], np.nextafter(moment[block], np.inf), snapshot.settings["segments"])
        answers = _what_followed(snapshot, log, user[block], moment[block], moment[block + 1], until)
        parts.append(_rows_of_questions(snapshot, behaviour, np.arange(len(block)), answers, generator))
    return join(parts) if parts else no_rows()


def _some_of_each(user: np.ndarray, questions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """At most QUESTIONS_PER_USER questions of a user, VISITS_PER_WINDOW in all; ascending."""
    shuffled = generator.permutation(questions)
    shuffled = shuffled[np.argsort(user[shuffled], kind="stable")]
    place = np.arange(len(shuffled)) - np.searchsorted(user[shuffled], user[shuffled])
    chosen = shuffled[place < QUESTIONS_PER_USER]
    if len(chosen) > VISITS_PER_WINDOW:
        chosen = generator.choice(chosen, VISITS_PER_WINDOW, replace=False)
    return np.sort(chosen)


@dataclass(frozen=True)
class Answers:
    """What followed a block of questions: key = asker * n + item, ascending; y; whether it came first."""

    key: np.ndarray
    y: np.ndarray
    is_next: np.ndarray | None = None


def _what_followed(
    snapshot: Snapshot, log: Log, user: np.ndarray, moment: np.ndarray, following: np.ndarray, until: float
) -> Answers:
    """Best satisfaction per (question, item) after ``moment`` up to ``until``; 0 once turned away (mart_outcomes)."""
    from_, to = log.positions(user, np.nextafter(moment, np.inf)), log.positions(user, np.nextafter(until, np.inf))
    length = to - from_
    question = np.repeat(np.arange(len(user)), length)
    at = np.repeat(from_ - np.concatenate([[0], np.cumsum(length)[:-1]]), length) + np.arange(length.sum())
    key, pair = np.unique(question * snapshot.n + log.item[at], return_inverse=True)
    y, lowest, is_next = np.zeros(len(key)), np.full(len(key), np.inf), np.zeros(len(key), bool)
    np.maximum.at(y, pair, log.satisfaction[at])
    np.minimum.at(lowest, pair, log.interest[at])
    np.logical_or.at(is_next, pair, log.happened_at[at] <= following[question])
    return Answers(key, np.where(lowest < 0, 0.0, y), is_next)


def _rows_of_questions(
    snapshot: Snapshot,
    behaviour: Behaviour,
    asker: np.ndarray,
    answers: Answers,
    generator: np.random.Generator,
    *,
    allowed: np.ndarray | None = None,
    extra: Any = None,
) -> Rows:
    """Candidates of a block of questions with their answers; ``asker`` is the number of each in the answers' keys."""
    found, x = candidates_of(
        snapshot,
        behaviour,
        allowed=allowed,
        exclude_seen=not snapshot.settings["repeats_allowed"],
        at_least=10,
        extra=extra,
    )
    wanted = asker[found.row].astype(np.int64) * snapshot.n + found.item
    at = np.minimum(np.searchsorted(answers.key, wanted), max(len(answers.key) - 1, 0))
    is_answered = answers.key[at] == wanted if len(answers.key) else np.zeros(len(wanted), bool)
    y = np.where(is_answered, answers.y[at], 0.0) if len(answers.key) else np.zeros(len(wanted))
    is_next = np.zeros(len(wanted), bool) if answers.is_next is None else is_answered & answers.is_next[at]
    keep, weight = _sample(found.row, y, is_known(x), behaviour.users, generator)
    window = np.full(len(keep), snapshot.settings["as_of"])
    return Rows(x[keep], y[keep], weight, np.zeros(len(keep), np.int64), is_next[keep], window)


def _sample(
    row: np.ndarray, y: np.ndarray, known: np.ndarray, users: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(kept rows, their weights): every positive, and some negatives of each user standing for all of them."""
    keep, weight, chance = y > 0, np.ones(len(y)), generator.random(len(y))
    for is_of_history, most in NEGATIVES_PER_USER.items():
        negative = (y <= 0) & (known == is_of_history)
        count = np.bincount(row[negative], minlength=users)
        share = np.minimum(1.0, most / np.maximum(count, 1))[row]
        keep |= negative & (chance < share)
        weight[negative] = 1 / share[negative]
    return np.flatnonzero(keep), weight[keep]
