"""What the app asks the database and what it writes: plain functions of a connection, none knows the framework.

Writes are what an application would do: rows of ``m6.serve`` into ``m6.impressions``, reactions into ``m6.feedback``,
candidate weights. The clock is the data's where the data has ended long ago (see ``moment``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb

from m6rec_udf import plots
from m6rec_udf.errors import M6Error, ParameterError, UnknownNameError
from m6rec_udf.policy_versions import FLOOR, insert_weights, next_version, strategy_names
from m6rec_udf.publish import first_row, quote_name
from m6rec_udf.query import one

if TYPE_CHECKING:
    import polars as pl

STALE_DAYS = 30
ROWS = 1000
REACTIONS = {"click": "click", "dismiss": "dismiss"}
_ARGUMENTS = (
    "k := $k, in_domain := $domain, among := $among, boosts := $boosts, diversity := $diversity, "
    "calibrated := $calibrated, policy := $policy"
)


@dataclass(frozen=True)
class Question:
    """What is asked of one person's list; the arguments of ``m6.recommend``, and the weights to try."""

    user: str
    k: int = 10
    domain: str | None = None
    among: str = "m6.available_items"
    boosts: str = "m6.no_boosts"
    diversity: float = 0.0
    calibrated: float = 0.0
    policy: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Named parameters of a query over ``m6.one_list`` or ``m6.serve``."""
        return dict(vars(self))


def summary(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """One dict: items, users, model_version, as_of, policy_version, encoder."""
    row = con.sql(
        "select (select count(*) from m6.items) as items, (select count(*) from m6.known_users) as users, "
        "a.model_version, m.as_of, a.policy_version, m.encoder "
        "from m6.active as a inner join m6.models as m using (model_version)"
    )
    values = first_row(con.execute(row.sql_query()))
    assert values is not None
    return dict(zip(row.columns, values, strict=True))


def people(con: duckdb.DuckDBPyConnection, limit: int = 200) -> list[str]:
    """Users to choose from: those with most items in their history first."""
    rows = con.execute("select user_id from m6.feat_user_activity order by items desc, user_id limit ?", [limit])
    return [row[0] for row in rows.fetchall()]


def is_known(con: duckdb.DuckDBPyConnection, user: str) -> bool:
    """Whether there is behaviour of the user, or a row in m6.users."""
    return first_row(con.execute("select 1 from m6.known_users where user_id = ? limit 1", [user])) is not None


def domains(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Domains of the catalogue, by name."""
    rows = con.execute("select distinct domain from m6.items where domain is not null order by domain").fetchall()
    return [row[0] for row in rows]


def rules(con: duckdb.DuckDBPyConnection, *, boosts: bool = False) -> list[str]:
    """The user's own tables and views a rule can name: with a column item_id, for ``boosts`` also with boost."""
    rows = con.execute(
        "select schema_name, table_name from duckdb_columns() "
        "where not internal and database_name = current_database() and schema_name <> 'm6' "
        "group by schema_name, table_name "
        "having bool_or(column_name = 'item_id') and (not $boosts or bool_or(column_name = 'boost')) "
        "order by schema_name, table_name",
        {"boosts": boosts},
    ).fetchall()
    return [_named(schema, table) for schema, table in rows]


def _named(schema: str, table: str) -> str:
    """A name that ``query_table`` reads, without the schema where that is the default."""
    return _quoted(table) if schema == "main" else f"{_quoted(schema)}.{_quoted(table)}"


def _quoted(name: str) -> str:
    """In double quotes where SQL needs them."""
    return name if name.isidentifier() and name.islower() else quote_name(name)


def best_list(con: duckdb.DuckDBPyConnection, question: Question) -> list[dict[str, Any]]:
    """The list of ``m6.recommend``, under the weights of ``question.policy`` where one is named; nothing is logged."""
    return _dicts(
        con,
        "select r.rank, r.item_id, coalesce(i.title, r.item_id) as title, i.category, r.domain, r.satisfaction, "
        f"r.strategy, r.reason from m6.one_list($user, {_ARGUMENTS}) as r "
        "left join m6.items as i on r.item_id = i.item_id order by r.rank",
        question.arguments(),
    )


def list_for_text(con: duckdb.DuckDBPyConnection, text: str, question: Question) -> list[dict[str, Any]]:
    """Items for somebody who says in words what they like (``m6.recommend_for_text``)."""
    if not text.strip():
        raise ParameterError("the text is empty, expected some words", "for example: a quiet film about a family")
    return _dicts(
        con,
        "select r.rank, r.item_id, coalesce(i.title, r.item_id) as title, i.category, r.domain, "
        "r.score as satisfaction, 'your words' as strategy, 'near your words' as reason "
        "from m6.recommend_for_text($text, k := $k, in_domain := $domain, among := $among) as r "
        "left join m6.items as i on r.item_id = i.item_id order by r.rank",
        {"text": text, "k": question.k, "domain": question.domain, "among": question.among},
    )


def moves(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """What happened to each item of a list since the one before: "new", "+2" (places up), "-1", or nothing."""
    place = {row["item_id"]: row["rank"] for row in before}
    out = []
    for row in after:
        old = place.get(row["item_id"])
        out.append("" if not before or old == row["rank"] else "new" if old is None else f"{old - row['rank']:+d}")
    return out


def moment(con: duckdb.DuckDBPyConnection) -> datetime:
    """When something done in the app happens, UTC: now, or just after the latest row of data that ended long ago.

    Data that ended more than 30 days ago is somebody's test data or history; a click of today would make all of it old.
    """
    value: datetime = one(
        con,
        "with latest as (select greatest((select max(happened_at) from m6.events), "
        "(select max(happened_at) from m6.feedback), (select max(shown_at) from m6.impressions)) as last_at), "
        "clock as (select last_at, cast(now() at time zone 'UTC' as timestamp) as wall from latest) "
        f"select case when last_at < wall - interval {STALE_DAYS} day then last_at + interval 1 second else wall end "
        "from clock",
    )[0]
    return value


def show(con: duckdb.DuckDBPyConnection, question: Question) -> str:
    """Draw a list with the weights in force and log it in m6.impressions; returns its request_id."""
    request = f"app-{uuid.uuid4().hex[:8]}"
    given = question.arguments()
    con.execute(
        f"insert into m6.impressions by name from m6.serve($user, {_ARGUMENTS}, request := $request, "
        "moment := cast($moment as timestamp))",
        {**given, "request": request, "moment": moment(con)},
    ).fetchall()
    return f"{request}-{question.user}"


def shown(con: duckdb.DuckDBPyConnection, request_id: str) -> list[dict[str, Any]]:
    """The rows of a logged list with what was done about each, best slot first."""
    return _dicts(
        con,
        "with reactions as (select impression_id, string_agg(event_type, ', ' order by feedback_seq) as reaction "
        "from m6.feedback group by impression_id) "
        "select s.impression_id, s.rank, s.item_id, coalesce(i.title, s.item_id) as title, i.category, s.strategy, "
        "s.propensity, s.satisfaction, r.reaction from m6.impressions as s "
        "left join m6.items as i on s.item_id = i.item_id left join reactions as r using (impression_id) "
        "where s.request_id = $request order by s.rank",
        {"request": request_id},
    )


def react(con: duckdb.DuckDBPyConnection, impression_id: str, event_type: str) -> None:
    """Log a reaction to an impression; it counts in the next list."""
    if not first_row(con.execute("select 1 from m6.impressions where impression_id = ?", [impression_id])):
        raise UnknownNameError(f"there is no impression {impression_id}, expected one of m6.impressions")
    con.execute(
        "insert into m6.feedback by name select $feedback as feedback_id, $impression as impression_id, "
        "$event as event_type, cast($moment as timestamp) as happened_at, cast($moment as timestamp) as ingested_at",
        {
            "feedback": f"app-{uuid.uuid4().hex}",
            "impression": impression_id,
            "event": REACTIONS[event_type],
            "moment": moment(con),
        },
    ).fetchall()


def history(con: duckdb.DuckDBPyConnection, user: str, k: int = 12) -> list[dict[str, Any]]:
    """The latest behaviour of a user, feedback included."""
    return _dicts(
        con,
        "select happened_at, event_type, value, coalesce(title, item_id) as title from m6.history($user, k := $k)",
        {"user": user, "k": k},
    )


def explanation(con: duckdb.DuckDBPyConnection, question: Question, item: str) -> pl.DataFrame:
    """The rows of ``m6.explain`` for an item of the list that the question gives."""
    given = {name: question.arguments()[name] for name in ("user", "k", "domain", "among")}
    rows: pl.DataFrame = con.sql(
        "from m6.explain($user, $item, k := $k, in_domain := $domain, among := $among)", params={**given, "item": item}
    ).pl()
    return rows


def named_item(con: duckdb.DuckDBPyConnection, text: str) -> str:
    """The item_id of an id, a title, or a part of a title (the shortest title that has it).

    Raises UnknownNameError: no item has it.
    """
    found = first_row(
        con.execute(
            "select item_id from m6.items where item_id = $text or contains(lower(title), lower($text)) "
            "order by item_id <> $text, length(title), item_id limit 1",
            {"text": text.strip()},
        )
    )
    if found is None:
        raise UnknownNameError(f"no item is called {text.strip()!r}, expected an item_id or a part of a title")
    return str(found[0])


def left_out(con: duckdb.DuckDBPyConnection, question: Question, text: str) -> pl.DataFrame:
    """The rows of ``m6.why_not`` for an item that is named by id or title, in the list that the question gives."""
    given = {name: value for name, value in question.arguments().items() if name != "policy"}
    rows: pl.DataFrame = con.sql(
        "from m6.why_not($user, $item, k := $k, in_domain := $domain, among := $among, boosts := $boosts, "
        "diversity := $diversity, calibrated := $calibrated)",
        params={**given, "item": named_item(con, text)},
    ).pl()
    return rows


CHARTS: dict[str, Callable[[duckdb.DuckDBPyConnection], Any]] = {
    "Catalogue map": plots.catalogue_map,
    "Weights over time": plots.weights_over_time,
    "Policy value": lambda con: plots.policy_value(con, ["active", *(["candidate"] if candidate(con) else [])]),
    "Feature importance": plots.feature_importance,
}


def chart(con: duckdb.DuckDBPyConnection, name: str) -> Any:
    """One of CHARTS as an Altair chart.

    Raises MissingExtraError: Altair is not installed. ParameterError: there is nothing to draw yet.
    """
    return CHARTS[name](con)


def candidate(con: duckdb.DuckDBPyConnection) -> int | None:
    """The newest shadow or candidate version after the one in force, or None."""
    version = one(
        con,
        "select max(p.policy_version) from m6.policy_versions as p cross join m6.active as a "
        "where p.status in ('candidate', 'shadow') and p.policy_version > a.policy_version",
    )[0]
    return None if version is None else int(version)


def weights(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Per enabled strategy: weight in force and of the candidate (domain and segment ``*``), and what it earned."""
    return _dicts(
        con,
        "with earned as (select strategy, count(*) as impressions, avg(reward) as mean_reward "
        "from m6.impression_rewards group by strategy) "
        "select s.strategy, coalesce(f.weight, 0) as weight, c.weight as candidate, "
        "coalesce(e.impressions, 0) as impressions, e.mean_reward from m6.strategies as s "
        "cross join m6.active as a "
        "left join m6.strategy_weights as f on f.strategy = s.strategy and f.policy_version = a.policy_version "
        "and f.domain = '*' and f.segment = '*' "
        "left join m6.strategy_weights as c on c.strategy = s.strategy and c.policy_version = $candidate "
        "and c.domain = '*' and c.segment = '*' "
        "left join earned as e on e.strategy = s.strategy where s.is_enabled order by s.bit",
        {"candidate": candidate(con)},
    )


def propose(con: duckdb.DuckDBPyConnection, wanted: dict[str, float]) -> int:
    """Write a candidate version of the weights, for everybody; returns its number.

    The weights are scaled to sum 1 and kept above the floor that off-policy evaluation needs.

    Raises:
        ParameterError: a weight is below 0, or all are 0.
        UnknownNameError: no enabled strategy of that name.
    """
    names = strategy_names(con)
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise UnknownNameError(f"there is no strategy {unknown[0]}, expected some of {', '.join(names)}")
    raw = [float(wanted.get(name) or 0.0) for name in names]
    if min(raw) < 0 or sum(raw) <= 0:
        raise ParameterError(f"the weights are {raw}, expected none below 0 and one above", "raise one of them")
    floor = min(FLOOR, 1 / len(names))
    free = 1 - floor * len(names)
    own = [floor + free * weight / sum(raw) for weight in raw]
    con.execute("begin")
    try:
        version = next_version(con)
        con.execute(
            "insert into m6.policy_versions (policy_version, parent, status, reason) "
            "select ?, policy_version, 'candidate', 'set by hand in the app' from m6.active",
            [version],
        )
        insert_weights(con, version, {("*", "*"): own}, names=names, floor=floor)
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return version


def judgement(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """What the log says of the weights in force, and of the candidate where there is one (``m6.policy_value``)."""
    names = ["active", *(["candidate"] if candidate(con) else [])]
    query = " union all ".join(
        f"select '{name}' as policy, estimator, unit, value, low, high, status, reason from m6.policy_value('{name}') "
        "where estimator in ('snips', 'dr')"
        for name in names
    )
    return _dicts(con, query, {})


def tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the tables and views in the file, schema first; the user's own before those of m6."""
    rows = con.execute(
        "select schema_name, name from (select schema_name, table_name as name, internal, database_name "
        "from duckdb_tables() union all select schema_name, view_name, internal, database_name from duckdb_views()) "
        "where not internal and database_name = current_database() order by schema_name = 'm6', schema_name, name"
    ).fetchall()
    return [
        f"{quote_name(s)}.{quote_name(n)}".replace('"', "") for s, n in rows if s.isidentifier() and n.isidentifier()
    ]


def look(con: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """At most 1,000 rows of one query, in a transaction that cannot write.

    Raises M6Error: the query is none, more than one, writes, or fails; DuckDB's message is in it.
    """
    cursor = con.cursor()
    try:
        statements = cursor.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ParameterError(
                "the text is not one query, expected one SELECT (or FROM)", "write with `m6rec sql`, not here"
            )
        cursor.execute("begin transaction read only")
        rows: pl.DataFrame = cursor.sql(query.strip().rstrip(";")).limit(ROWS).pl()
    except duckdb.Error as error:
        raise M6Error(str(error)) from error
    else:
        return rows
    finally:
        cursor.close()


def _dicts(con: duckdb.DuckDBPyConnection, query: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    result = con.execute(query, given)
    names = [column[0] for column in result.description or []]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
