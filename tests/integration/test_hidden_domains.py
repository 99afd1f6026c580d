"""Users new to one domain of a file: rows with a domain hidden teach what their history elsewhere says."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

import m6rec_udf as m6
from m6rec_udf import arrays, builder, training
from m6rec_udf.embed import HashEncoder
from m6rec_udf.event_log import Log
from m6rec_udf.ranking import PLACE
from m6rec_udf.registry import context_of

START = datetime(2024, 1, 1)
TASTES, PER_TASTE = 4, 8
READERS = 40  # never seen among films
LIKED = {"event_type": ["like"], "interest": [1.0], "satisfaction": [1.0]}


def two_domains(*, domains: tuple[str, str] = ("films", "books")) -> dict[str, pl.DataFrame]:
    """Everybody has one of four tastes, in books and in films alike; the last READERS people have books only.

    What is popular among films is of taste 0, so that popularity and taste disagree for three people in four.
    """
    rng = np.random.default_rng(5)
    item, domain = [], []
    for name, letter in zip(domains, "fb", strict=True):
        for taste in range(TASTES):
            item += [f"{letter}{taste}{at}" for at in range(PER_TASTE)]
            domain += [name] * PER_TASTE
    events = []
    for user in range(240 + READERS):
        taste = user % TASTES
        for day in range(12):
            letter = "b" if user >= 240 or rng.random() < 0.5 else "f"
            own = 0 if letter == "f" and rng.random() < 0.3 else taste
            moment = START + timedelta(days=int(rng.integers(0, 100)), seconds=user * 60 + day)
            events.append((f"u{user:03}", f"{letter}{own}{rng.integers(0, PER_TASTE)}", "like", moment))
    return {
        "event_types": pl.DataFrame(LIKED),
        "items": pl.DataFrame({"item_id": item, "domain": domain, "title": [f"no {at}" for at in range(len(item))]}),
        "events": pl.DataFrame(events, ["user_id", "item_id", "event_type", "happened_at"], orient="row"),
    }


def built(data: dict[str, pl.DataFrame]) -> tuple[duckdb.DuckDBPyConnection, dict[str, object]]:
    """The file, and what its build learned from."""
    con = m6.connect(":memory:", encoder=HashEncoder(16))
    m6.load(con, **data)
    kept: dict[str, object] = {}
    look_back = builder._Build._past_rows

    def noted(self: builder._Build, cells: object) -> object:
        kept["past"], kept["log"] = look_back(self, cells), self.log
        return kept["past"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder._Build, "_past_rows", noted)
        m6.build(con)
    return con, kept


@pytest.fixture(scope="module")
def world():
    """Two domains, built."""
    con, kept = built(two_domains())
    yield con, kept
    con.close()


def test_readers_get_films_of_their_taste(world):
    """Nothing but books is known of them; popular films are of another taste for three in four."""
    con, _ = world
    readers = [f"u{user:03}" for user in range(240, 240 + READERS)]
    lines = con.sql(
        "select user_id, item_id from m6.slates($users, k := 5, in_domain := 'films')", params={"users": readers}
    ).pl()
    assert len(lines) == 5 * READERS
    own = [int(user[1:]) % TASTES == int(item[1]) for user, item in lines.iter_rows()]
    assert np.mean(own) > 0.9
    popular = con.sql("select item_id from m6.slates(['nobody'], k := 5, in_domain := 'films')").pl()["item_id"]
    assert np.mean([item[1] == "0" for item in popular]) > 0.5


def test_a_part_of_its_own_answers_where_a_domain_is_new(world):
    """It learned from hidden domains; ``m6.decisions`` and the stored model say so."""
    con, kept = world
    past, model = kept["past"], arrays.of_version(context_of(con), 1).model
    assert "new_domain" in model.parts
    assert (past.hidden.x[:, PLACE["pair_new_domain"]] == 1).all()
    assert (past.hidden.x[:, PLACE["pair_log_events"]] == 0).all()
    assert (past.hidden.x[:, PLACE["user_log_events"]] > 0).all()
    assert past.hidden.y.sum() > 100
    coefficient, _ = model.mixture(past.hidden.x)
    assert (coefficient["new_domain"] > 0).all()
    assert (coefficient["new"] == 0).all()
    why = con.execute("select reason from m6.decisions where name = 'satisfaction_model_new_domain'").fetchone()[0]
    assert f"{len(past.hidden.y)} with the domain hidden" in why


def test_one_domain_learns_nothing_of_the_kind():
    """Without a second domain there is nothing to hide, and nothing is new."""
    con, kept = built(two_domains(domains=("goods", "goods")))
    past = kept["past"]
    assert len(past.hidden.y) == len(past.later_hidden.y) == 0
    assert not past.rows.x[:, PLACE["pair_new_domain"]].any()
    assert "new_domain" not in arrays.of_version(context_of(con), 1).model.parts
    con.close()


def test_what_is_hidden_is_not_in_the_log_that_is_learned_from(world):
    """All of a user's behaviour in the domain is gone, earlier and later; nothing else is."""
    con, kept = world
    log, domain = kept["log"], arrays.of_version(context_of(con), 1).domain
    outcomes = training.Outcomes(*(np.asarray(column) for column in ([3, 3, 7], [0, 40, 1], [1.0, 1.0, 1.0])))
    hidden = training.Hidden.some(outcomes, domain, seed=0)
    assert set(zip(hidden.user.tolist(), hidden.domain.tolist(), strict=True)) == {
        (3, int(domain[0])),
        (3, int(domain[40])),
        (7, int(domain[1])),
    }
    rest = hidden.only(hidden.user == 7).without(log, domain)
    gone = (log.user == 7) & (domain[log.item] == domain[1])
    assert 0 < gone.sum() == len(log.user) - len(rest.user)
    np.testing.assert_array_equal(rest.happened_at, log.happened_at[~gone])
    fresh = Log.of([rest.user, rest.item, rest.interest, rest.satisfaction, rest.happened_at, rest.is_positive], [])
    np.testing.assert_array_equal(rest.by_pair, fresh.by_pair)


def test_no_more_questions_than_the_limit_and_the_same_ones_again():
    """A window with many users and domains is a sample, drawn by the seed."""
    user, item = np.repeat(np.arange(600), 2), np.tile([0, 1], 600)
    outcomes = training.Outcomes(user, item, np.ones(1200))
    first, again, other = (training.Hidden.some(outcomes, np.array([0, 1]), seed=seed) for seed in (0, 0, 1))
    assert len(first.user) == training.HIDDEN_PER_WINDOW
    np.testing.assert_array_equal(first.user, again.user)
    assert (first.user != other.user).any()
    assert len(training.Hidden.some(outcomes, np.array([0, 0]), seed=0).user) == 0


def test_promises_are_level_with_who_is_new_by_nature(world):
    """Promises for new domains meet what happened to those who were new by nature, not to those who came."""
    con, kept = world
    past, model = kept["past"], arrays.of_version(context_of(con), 1).model
    natural = past.rows.only(past.rows.x[:, PLACE["pair_new_domain"]] > 0)
    promised = np.average(model.predict(natural.x), weights=natural.weight)
    seen = np.average(natural.y, weights=natural.weight)
    of_hidden = np.average(past.hidden.y, weights=past.hidden.weight)
    assert abs(promised - seen) < abs(promised - of_hidden)
