"""Charts of what the tables say: small functions that return Altair charts, which notebooks render.

Needs the extra ``plots``. Every chart holds the rows it shows (``chart.to_dict()``); nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m6rec_udf.errors import MissingExtraError, ParameterError, UnknownNameError
from m6rec_udf.query import one

if TYPE_CHECKING:
    import duckdb

MOST_POINTS = 5000  # what a browser draws without pause; Altair's own limit
MOST_COLOURS = 9  # of the ten that eyes keep apart, one is for all other values
WIDTH = 520  # pixels


def reliability_curve(con: duckdb.DuckDBPyConnection, predictions: str = "eval_predictions", *, bins: int = 10) -> Any:
    """Satisfaction promised and seen, in bins of equal count; on the diagonal they agree.

    Args:
        predictions: a table as ``m6rec_udf.calibration`` leaves it.
    """
    data = _rows(
        con,
        "select bin, n, predicted, observed from m6.calibration(predictions := $table, bins := $bins) "
        "where group_kind = 'all'",
        {"table": predictions, "bins": bins},
        "run m6rec_udf.calibration(con) first",
    )
    alt = _altair()
    largest = max(max(row["predicted"], row["observed"]) for row in data)
    diagonal = alt.Chart(_values([{"predicted": v, "observed": v} for v in (0.0, largest)]))
    x, y = alt.X("predicted:Q", title="promised"), alt.Y("observed:Q", title="seen")
    curve = alt.Chart(_values(data)).mark_line(point=True).encode(x=x, y=y, tooltip=["bin:O", "n:Q", x, y])
    return _sized(diagonal.mark_line(strokeDash=[4, 4], color="grey").encode(x=x, y=y) + curve)


def weights_over_time(con: duckdb.DuckDBPyConnection, *, domain: str = "*", segment: str = "*") -> Any:
    """Strategy weights by version, of one (domain, segment), from the floor of each up to its weight as a band.

    The weights are decisions, not estimates: the band is the room down to the floor. What they are worth, with
    its interval, is ``policy_value``.
    """
    data = _rows(
        con,
        "select p.policy_version, cast(coalesce(p.as_of, p.created_at) as varchar) as moment, p.status, w.strategy, "
        "w.weight, w.floor from m6.strategy_weights as w inner join m6.policy_versions as p "
        "on w.policy_version = p.policy_version where w.domain = $domain and w.segment = $segment "
        "order by p.policy_version, w.strategy",
        {"domain": domain, "segment": segment},
        "from m6.strategy_weights shows the domains and segments there are",
    )
    alt = _altair()
    base = alt.Chart(_values(data)).encode(x=alt.X("policy_version:O", title="version"), color="strategy:N")
    line = base.mark_line(point=True).encode(y="weight:Q", tooltip=["strategy:N", "weight:Q", "moment:N", "status:N"])
    return _sized(base.mark_area(opacity=0.12).encode(y="floor:Q", y2="weight:Q") + line)


def policy_value(con: duckdb.DuckDBPyConnection, policies: Sequence[str | int]) -> Any:
    """What policies would have earned on the log, by estimator, with 95 % intervals; a panel per unit.

    The rows are those of ``m6.policy_value``.
    """
    if not policies:
        raise ParameterError("policies is empty, expected some policy versions", "from m6.policy_versions")
    data = []
    for policy in policies:
        rows = _rows(con, "from m6.policy_value($policy)", {"policy": str(policy)}, "serve and collect feedback first")
        data += [{"policy": str(policy), **row} for row in rows]
    alt = _altair()
    base = alt.Chart().encode(y=alt.Y("policy:N"), color="estimator:N", yOffset="estimator:N")
    x = alt.X("value:Q", title="value")
    rules = base.mark_rule().encode(x=alt.X("low:Q", title="value"), x2="high:Q")
    points = rules + base.mark_point(filled=True).encode(x=x)
    panels = _sized(points).facet(row=alt.Row("unit:N", title="per"), data=_values(data))
    return panels.resolve_scale(x="independent", y="independent")


def metric_by_segment(
    con: duckdb.DuckDBPyConnection, lists: str, after: Any, *, metric: str = "ndcg", group_kind: str = "segment"
) -> Any:
    """One metric of ``m6.list_metrics`` per group, with its interval over users.

    Args:
        lists: table of (user_id, item_id, rank).
        after: the moment the lists were made at.
        group_kind: segment, domain, user or item.
    """
    data = _rows(
        con,
        "select group_name, value, low, high, n from m6.list_metrics($lists, cast($after as timestamp)) "
        "where group_kind = $kind and metric = $metric",
        {"lists": lists, "after": after, "kind": group_kind, "metric": metric},
        "from m6.list_metrics(...) shows the groups and metrics there are",
    )
    alt = _altair()
    base = alt.Chart(_values(data)).encode(y=alt.Y("group_name:N", title=group_kind), tooltip=["n:Q", "value:Q"])
    points = base.mark_point(filled=True).encode(x=alt.X("value:Q", title=metric))
    return _sized(base.mark_rule().encode(x="low:Q", x2="high:Q") + points)


def score_distribution(con: duckdb.DuckDBPyConnection, lists: str, *, bins: int = 40) -> Any:
    """How satisfaction is spread over the rows of a table with a column satisfaction; bins of equal width."""
    data = _rows(
        con,
        "with s as (select satisfaction as s from query_table($lists) where satisfaction is not null), "
        "b as (select min(s) as low, greatest(max(s) - min(s), 1e-12) / $bins as width from s) "
        "select low + width * least(floor((s - low) / width), $bins - 1) as score, any_value(width) as width, "
        "count(*) as n from s cross join b group by 1 order by 1",
        {"lists": lists, "bins": bins},
        "create table mine as from m6.recommend_many('m6.known_users')",
    )
    alt = _altair()
    for row in data:
        row["end"] = row["score"] + row["width"]
    chart = alt.Chart(_values(data)).mark_bar()
    return _sized(chart.encode(x=alt.X("score:Q", bin="binned", title="satisfaction"), x2="end:Q", y="n:Q"))


def catalogue_map(con: duckdb.DuckDBPyConnection, *, color: str = "category", most: int = MOST_POINTS) -> Any:
    """Items by the two largest principal components of their text vectors: near each other, alike in words.

    Args:
        color: column of m6.items; all but its most frequent values of those shown are "other".
        most: items shown; of more, a sample by the hash of item_id.
    """
    import numpy as np

    known = [row[0] for row in con.execute("select column_name from (describe m6.items)").fetchall()]
    if color not in known:
        raise UnknownNameError(f"m6.items has no column {color!r}, expected one of {', '.join(known)}", "see m6.items")
    data = _rows(
        con,
        f'with chosen as (select v.item_id, i.title, cast(i."{color}" as varchar) as color, v.vector '
        "from m6.item_vectors as v inner join m6.items as i on v.item_id = i.item_id "
        "order by md5(v.item_id), v.item_id limit $most), "
        "frequent as (select color from chosen where color is not null group by color "
        "order by count(*) desc, color limit $colours) "
        "select c.item_id, c.title, case when c.color is null or f.color is not null then c.color else 'other' end "
        "as color, c.vector from chosen as c left join frequent as f on c.color = f.color order by c.item_id",
        {"most": min(most, MOST_POINTS), "colours": MOST_COLOURS},
        "build first: m6rec_udf.build(con)",
    )
    vectors = np.array([row.pop("vector") for row in data], np.float64)
    centred = vectors - vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    axes = directions[:, ::-1][:, :2]
    axes *= np.where(axes[np.abs(axes).argmax(0), [0, 1]] < 0, -1.0, 1.0)  # the same picture on every machine
    for row, (x, y) in zip(data, (centred @ axes).tolist(), strict=True):
        row |= {"x": x, "y": y}
    alt = _altair()
    chart = alt.Chart(_values(data)).mark_circle(size=30)
    shade = alt.Color("color:N", title=color)
    return _sized(chart.encode(x="x:Q", y="y:Q", color=shade, tooltip=["item_id:N", "title:N"]))


def coverage_curve(con: duckdb.DuckDBPyConnection, lists: str) -> Any:
    """Share of the catalogue that appears in the first k items of the lists, by k."""
    data = _rows(
        con,
        "with first as (select item_id, min(rank) as rank from query_table($lists) group by item_id), "
        "size as (select count(*) as n from m6.items) "
        "select rank as k, sum(count(*)) over (order by rank) / any_value(size.n) as coverage "
        "from first cross join size group by rank order by rank",
        {"lists": lists},
        "create table mine as from m6.recommend_many('m6.known_users')",
    )
    alt = _altair()
    return _sized(alt.Chart(_values(data)).mark_line(point=True).encode(x="k:Q", y=alt.Y("coverage:Q")))


def feature_importance(con: duckdb.DuckDBPyConnection, version: int | None = None, *, most: int = 20) -> Any:
    """Gain of the trees by feature, per part of the satisfaction model, the largest first.

    Args:
        version: a build; None: the one in force.
    """
    number = one(con, "select model_version from m6.active")[0] if version is None else version
    data = _rows(
        con,
        "with parts as (from m6.feature_importance where model_version = $version), "
        "best as (select feature from parts group by feature order by sum(gain) desc, feature limit $most) "
        "select part, feature, splits, gain from parts semi join best using (feature) order by feature, part",
        {"version": number, "most": most},
        "m6.models lists the builds; one that learned too little has no trees",
    )
    alt = _altair()
    bars = alt.Chart(_values(data)).mark_bar()
    return _sized(bars.encode(x="gain:Q", y=alt.Y("feature:N", sort="-x"), color="part:N"))


def _altair() -> Any:
    """The library.

    Raises MissingExtraError: it is not installed.
    """
    try:
        import altair
    except ImportError as error:
        raise MissingExtraError(
            "the package altair is not installed, expected it for charts", "pip install 'm6rec[plots]'"
        ) from error
    return altair


def _sized(chart: Any) -> Any:
    return chart.properties(width=WIDTH)


def _values(rows: list[dict[str, Any]]) -> Any:
    return _altair().Data(values=rows)


def _rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any], hint: str) -> list[dict[str, Any]]:
    """Rows as dicts.

    Raises ParameterError: there are none; a table that is named does not exist.
    """
    import duckdb

    _altair()
    try:
        cursor = con.execute(sql, parameters)
    except duckdb.CatalogException as error:
        raise ParameterError(f"{str(error).splitlines()[0]}, expected a table to draw", hint) from error
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    if not rows:
        raise ParameterError(f"there is nothing to draw for {parameters}, expected at least one row", hint)
    return rows
