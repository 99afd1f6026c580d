"""Who knows whom: m6.people beside common neighbours, Adamic-Adar and popularity, on the graphs networkx ships.

    python benchmarks/domains/social.py

Small graphs, and no larger real one could be had without a download: Zachary's karate club (34 people, 78 ties) and
Davis' Southern women (18 people, 14 events, 89 attendances). Every tie in turn is hidden in both directions and each
end is asked for the other among everybody it is not tied to. Every attendance in turn is hidden and the woman is asked
for the event, scored by the sum of the scores of the women who attended it. Equal scores share the mean of their
places. Hit rate@5 and mean reciprocal rank with a 95 % bootstrap over questions.

``m6.recommend``: the list in the domain people (groups) of a build from the same ties as follows in both directions
(the attendances); ``by the graph``: among and boosted by what m6.people finds.
"""

# ruff: noqa: E402
from __future__ import annotations

import hashlib
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import duckdb
import networkx as nx
import numpy as np
from cross_domain import interval

import m6rec_udf as m6
from m6rec_udf.embed import HashEncoder


def place(scores: dict[str, float], target: str, everybody: list[str]) -> float:
    """Mean rank of the target among everybody, ties shared."""
    own = round(scores.get(target, 0.0), 9)
    others = [round(scores.get(person, 0.0), 9) for person in everybody if person != target]
    return 1 + sum(score > own for score in others) + 0.5 * sum(score == own for score in others)


NEAR = "with near as (select person_id as item_id, raw_score as boost from m6.people($1, k := 100)) "


def listed(con: duckdb.DuckDBPyConnection, user: str, target: str, options: str, head: str = "") -> float:
    """Place of the target in the list of a domain, one behind its end where it is not in it."""
    sql = f"{head}select item_id from m6.recommend($1, k := 40, exclude_seen := true, {options}) order by rank"
    found = [item for (item,) in con.execute(sql, [user]).fetchall()]
    return found.index(target) + 1.0 if target in found else len(found) + 1.0


def follow(con: duckdb.DuckDBPyConnection, pairs: list[tuple[str, str]]) -> None:
    """Follows of persons or groups, all of one moment."""
    con.execute("delete from m6.events")
    con.executemany(
        "insert into m6.events (user_id, item_id, event_type, happened_at) values (?, ?, 'follow', '1936-01-01')",
        sorted(pairs),
    )


def karate() -> dict[str, list[float]]:
    """Places of the hidden friends."""
    named = nx.karate_club_graph()  # the numbers of the data say who is central, and break ties
    graph = nx.relabel_nodes(named, {n: hashlib.sha256(str(n).encode()).hexdigest()[:8] for n in named})
    con = m6.connect(":memory:", encoder=HashEncoder(8))
    found: dict[str, list[float]] = {
        name: []
        for name in (
            "m6.people",
            "m6.recommend",
            "m6.recommend by the graph",
            "common neighbours",
            "Adamic-Adar",
            "popularity",
        )
    }
    con.executemany("insert into m6.items (item_id, domain, title) values (?, 'people', ?)", [(p, p) for p in graph])
    for a, b in sorted(graph.edges):
        left = graph.copy()
        left.remove_edge(a, b)
        con.execute("delete from m6.relations")
        con.executemany("insert into m6.relations values (?, ?, 'friend', 1.0)", sorted(left.edges))
        follow(con, [*left.edges, *((y, x) for x, y in left.edges)])
        m6.build(con)
        for user, target in ((a, b), (b, a)):
            people = "in_domain := 'people'"
            found["m6.recommend"].append(listed(con, user, target, people))
            near = f"{people}, among := 'near', boosts := 'near'"
            found["m6.recommend by the graph"].append(listed(con, user, target, near, NEAR))
            open_ = [person for person in left if person != user and not left.has_edge(user, person)]
            rows = con.execute("select person_id, raw_score from m6.people($1, k := 100)", [user]).fetchall()
            pairs = [(user, person) for person in open_]
            scores = {
                "m6.people": dict(rows),
                "common neighbours": {p: len(list(nx.common_neighbors(left, user, p))) for p in open_},
                "Adamic-Adar": {p: s for _, p, s in nx.adamic_adar_index(left, pairs)},
                "popularity": dict(left.degree),
            }
            for name, own in scores.items():
                found[name].append(place(own, target, open_))
    return found


def women() -> dict[str, list[float]]:
    """Places of the hidden event among those the woman is not known to have attended."""
    graph = nx.davis_southern_women_graph()
    names, events = sorted(graph.graph["top"]), sorted(graph.graph["bottom"])
    con = m6.connect(":memory:", encoder=HashEncoder(8))
    con.executemany("insert into m6.items (item_id, domain) values (?, 'groups')", [(e,) for e in events])
    found: dict[str, list[float]] = {
        name: [] for name in ("m6.people", "m6.recommend", "common neighbours", "Adamic-Adar", "popularity")
    }
    for woman, event in sorted(graph.edges(names)):
        left = graph.copy()
        left.remove_edge(woman, event)
        follow(con, list(left.edges(names)))
        m6.build(con)
        found["m6.recommend"].append(listed(con, woman, event, "in_domain := 'groups'"))
        near = dict(con.execute("select person_id, raw_score from m6.people($1, k := 100)", [woman]).fetchall())
        open_ = [e for e in events if not left.has_edge(woman, e)]
        common = {w: len(list(nx.common_neighbors(left, woman, w))) for w in names if w != woman}
        adamic = {w: s for _, w, s in nx.adamic_adar_index(left, [(woman, w) for w in names if w != woman])}
        weights = {"m6.people": near, "common neighbours": common, "Adamic-Adar": adamic}
        for name, own in weights.items():
            scores = {e: sum(own.get(w, 0.0) for w in left[e]) for e in open_}
            found[name].append(place(scores, event, open_))
        found["popularity"].append(place({e: left.degree[e] for e in open_}, event, open_))
    return found


def main() -> None:
    """Ask, print."""
    for about, found in (("karate club, a hidden tie", karate()), ("Southern women, a hidden attendance", women())):
        print(f"\n{about}: {len(next(iter(found.values())))} questions")
        print("| method | hit rate@5 | mean reciprocal rank | m6.people less it |")
        own = 1 / np.asarray(found["m6.people"])
        for name, places in found.items():
            rank = np.asarray(places)
            print(f"| {name} | {interval((rank <= 5) * 1.0)} | {interval(1 / rank)} | {interval(own - 1 / rank)} |")


if __name__ == "__main__":
    main()
