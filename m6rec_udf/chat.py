"""One turn of a conversation: what was said becomes filters and a text query, the answer is items of the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from m6rec_udf.errors import ParameterError
from m6rec_udf.generated import checked
from m6rec_udf.language_model import ModelLike

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_NUMBER = r"(?:[$€£¥]\s*)?(\d+(?:\.\d+)?)(?:\s*(?:dollars|euros?|pounds|yuan|[$€£¥]|块钱?|元))?"
_AT_MOST = re.compile(
    rf"(?:\b(?:under|below|less than|cheaper than|at most|up to|no more than)\s+|低于|不超过|少于){_NUMBER}"
    rf"|{_NUMBER}\s*(?:以下|以内)",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(
    rf"(?:\b(?:over|above|more than|at least|from)\s+|高于|超过|至少){_NUMBER}|{_NUMBER}\s*以上", re.IGNORECASE
)
_BETWEEN = re.compile(rf"\bbetween\s+{_NUMBER}\s+and\s+{_NUMBER}", re.IGNORECASE)
_MORE = re.compile(
    r"\b(?:more|something else|anything else|others?|next|another)\b|换一批|别的|更多|其他", re.IGNORECASE
)
_NOT = r"(?:\b(?:no|not|without|except|but not|nothing)\s+(?:any\s+|about\s+)?|不要|不想要|除了|没有)"
_CHATTER = re.compile(
    r"\b(?:please|hello|hi|hey|thanks?|i(?:'d| would)? (?:like|want|need|am looking for)|i'm looking for|looking for"
    r"|show me|find me|give me|can you|could you|do you have|recommend|suggest|some|something|anything|things?"
    r"|me|only|a|an|the|for|in|and|but)\b|请|你好|谢谢|我想要?|推荐|给我|一些|有没有|帮我找?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Filters:
    """What a turn keeps to.

    Attributes:
        at_least, at_most: bounds of the price; an item without a price passes neither.
        domain: one of ``m6.items``.
        without: categories, tags, brands or words of titles and descriptions that are left out.
        shown: items of earlier turns, left out when more was asked for.
    """

    at_least: float | None = None
    at_most: float | None = None
    domain: str | None = None
    without: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """What was said and what came back.

    Attributes:
        said: the person's words.
        query: the part of it that is searched for; empty: the list is ``m6.recommend``.
        filters: the part of it that items must keep to.
        items: item_id, title, rank, score, price, domain: rows of the file, never others.
        reply: a sentence that names only these.
        by: "template" or "model".
    """

    said: str
    query: str
    filters: Filters
    items: pl.DataFrame
    reply: str
    by: str
    strayed: list[str] = field(default_factory=list)


def chat(
    con: duckdb.DuckDBPyConnection,
    said: str,
    *,
    for_user: str | None = None,
    before: Turn | None = None,
    k: int = 5,
    model: ModelLike | None = None,
) -> Turn:
    """Answer one turn with items of the file.

    Understood, in English and Chinese: bounds of the price ("under 20", "20元以下"), the name of a domain, what to
    leave out ("no horror", "不要恐怖"), "more" and the like. The rest is the text query; there is no dialogue beyond.

    Args:
        con: a dressed connection with a build.
        said: the person's words.
        for_user: whose seen items are left out, and whose list answers where nothing is searched for.
        before: the turn before: its filters stay in force, and its query where nothing new is asked.
        k: number of items.
        model: a language model that words the reply (extra ``[generate]``); its sentence is used where it names nothing
            but the items found, the template otherwise.

    Raises:
        ParameterError: nothing was said.
    """
    if not said or not said.strip():
        raise ParameterError("got an empty turn, expected what somebody says")
    filters, query = understood(con, said, before)
    items = _found(con, query, filters, for_user, k)
    titles = items["title"].to_list()
    template = _template(query, filters, titles)
    turn = Turn(said, query, filters, items, template, "template")
    if model is None or not titles:
        return turn
    listed = ", ".join(f'"{title}"' for title in titles)
    prompt = (
        f"A customer said: {said.strip()} The shop has {listed}. Write one short friendly sentence that offers some of "
        "these, by name. Name nothing else."
    )
    words = checked(con, model, prompt, template, titles, facts=[said], must_name=titles)
    return replace(turn, reply=words.text, by=words.by, strayed=words.strayed)


def understood(con: duckdb.DuckDBPyConnection, said: str, before: Turn | None = None) -> tuple[Filters, str]:
    """(filters, text query) of what was said."""
    now = before.filters if before is not None else Filters()
    rest = said
    if found := _BETWEEN.search(rest):
        now = replace(now, at_least=float(found[1]), at_most=float(found[2]))
        rest = _BETWEEN.sub(" ", rest)
    for pattern, name in ((_AT_MOST, "at_most"), (_AT_LEAST, "at_least")):
        if found := pattern.search(rest):
            bound: Any = {name: float(next(filter(None, found.groups())))}
            now = replace(now, **bound)
            rest = pattern.sub(" ", rest)
    wants_more = _MORE.search(rest) is not None and before is not None
    if wants_more and before is not None:
        rest = _MORE.sub(" ", rest)
        now = replace(now, shown=tuple(dict.fromkeys([*now.shown, *before.items["item_id"].to_list()])))
    for name in sorted(_names(con), key=len, reverse=True):
        pattern = re.compile(_NOT + _word(name), re.IGNORECASE)
        if pattern.search(rest):
            now = replace(now, without=tuple(dict.fromkeys([*now.without, name.lower()])))
            rest = pattern.sub(" ", rest)
    for found in re.finditer(_NOT + r"(\w+)", rest, re.IGNORECASE):  # a word the catalogue has no label for
        now = replace(now, without=tuple(dict.fromkeys([*now.without, found[1].lower()])))
    rest = re.sub(_NOT + r"\w+", " ", rest, flags=re.IGNORECASE)
    for (domain,) in con.execute("select distinct domain from m6.items order by domain").fetchall():
        if re.search(_word(domain), rest, re.IGNORECASE):
            now = replace(now, domain=domain)
            rest = re.sub(_word(domain), " ", rest, flags=re.IGNORECASE)
    query = " ".join(re.sub(r"[,.;:!?，。；：！？]+", " ", _CHATTER.sub(" ", rest)).split())
    if not query and before is not None:
        query = before.query
    return now, query


def _word(name: str) -> str:
    return rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"


def _names(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Labels of the catalogue: categories, tags, brands."""
    rows = con.execute(
        "select distinct trim(unnest(string_split(category, '|'))) from m6.items where category is not null "
        "union select distinct trim(unnest(tags)) from m6.items union select distinct trim(brand) from m6.items"
    ).fetchall()
    return {name for (name,) in rows if name and len(name) > 1}


def _found(con: duckdb.DuckDBPyConnection, query: str, filters: Filters, for_user: str | None, k: int) -> pl.DataFrame:
    con.execute(
        "create or replace temp table m6_chat_items as select i.item_id from m6.items as i "
        "where i.title is not null and ($low is null or i.price >= $low) and ($high is null or i.price <= $high) "
        "and ($domain is null or i.domain = $domain) and not list_contains($shown, i.item_id) "
        "and not exists (select 1 from (select unnest($without) as word) as w where regexp_matches(lower(concat_ws("
        "' | ', i.title, i.category, i.brand, array_to_string(i.tags, ' | '), i.description)), '(^|[^a-z0-9])' || "
        "regexp_escape(w.word) || '($|[^a-z0-9])')) "
        "and ($who is null or i.item_id not in (select item_id from m6.behaviour where user_id = $who))",
        {
            "low": filters.at_least,
            "high": filters.at_most,
            "domain": filters.domain,
            "shown": list(filters.shown),
            "without": list(filters.without),
            "who": for_user,
        },
    )
    if query:
        sql, given = "m6.search_items($q, k := $k, among := 'm6_chat_items')", {"q": query, "k": k}
    else:
        sql, given = "m6.recommend($q, k := $k, among := 'm6_chat_items')", {"q": for_user or "", "k": k}
    found: pl.DataFrame = con.sql(
        f"select l.item_id, i.title, l.rank, l.score, i.price, i.domain from {sql} as l "
        "inner join m6.items as i on l.item_id = i.item_id order by l.rank",
        params=given,
    ).pl()
    con.execute("drop table m6_chat_items")
    return found


def _template(query: str, filters: Filters, titles: list[str]) -> str:
    kept = [f'for "{query}"' if query else "by what is liked"]
    if filters.domain:
        kept.append(f"in {filters.domain}")
    if filters.at_least is not None:
        kept.append(f"from {filters.at_least:g}")
    if filters.at_most is not None:
        kept.append(f"up to {filters.at_most:g}")
    kept += [f"without {word}" for word in filters.without]
    if filters.shown:
        kept.append("not shown before")
    what = ", ".join(kept)
    if not titles:
        return f"Nothing in the catalogue fits: {what}."
    return f"Found {what}: " + "; ".join(f'"{title}"' for title in titles) + "."
