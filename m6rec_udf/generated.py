"""Texts about recommendations: template sentences, or a language model's where it keeps to the facts it was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from m6rec_udf.errors import UnknownNameError
from m6rec_udf.grounding import names_one_of, strays
from m6rec_udf.language_model import ModelLike, as_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

LONGEST = 300  # letters of a sentence


@dataclass(frozen=True)
class Written:
    """A text and where it comes from.

    Attributes:
        text: one line.
        by: "model", or "template": no model was given, there was no evidence, or the model strayed.
        titles: what it may name, all of it in the file.
        strayed: what the model named that it was not given; empty where it kept to its facts or was not asked.
    """

    text: str
    by: str
    titles: list[str] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)


def explain_in_words(
    con: duckdb.DuckDBPyConnection, for_user: str, of_item: str, *, model: ModelLike | None = None
) -> Written:
    """Why an item for a user, in one sentence that names nothing but the evidence of ``m6.explain``.

    Args:
        con: a dressed connection with a build.
        for_user, of_item: as in ``m6.explain``.
        model: a causal language model (extra ``[generate]``), see ``LanguageModel``; None gives the template sentence.

    Raises:
        UnknownNameError: no such item.
        MissingExtraError: the model's packages are not installed.
    """
    title = _item(con, of_item)["title"]
    evidence, sentence = _evidence(con, for_user, of_item)
    template = f'"{title}": {sentence}'
    if model is None or not evidence:
        return Written(template, "template", [title, *evidence])
    facts = ", ".join(f'"{name}"' for name in evidence)
    prompt = (
        f'A person liked {facts}. The shop recommends "{title}". Write one short sentence that tells the person why, '
        "naming what they liked. Use no other names and no numbers."
    )
    return checked(con, model, prompt, template, [title, *evidence], must_name=evidence)


def describe_item(
    con: duckdb.DuckDBPyConnection, of_item: str, *, for_user: str | None = None, model: ModelLike | None = None
) -> Written:
    """One line about an item for a user, from its own columns and the user's evidence for it.

    Args and errors as in ``explain_in_words``; without a user the line is the same for everybody.
    """
    item = _item(con, of_item)
    evidence = _evidence(con, for_user, of_item)[0] if for_user is not None else []
    parts = [f'"{item["title"]}"', item["category"].replace("|", ", "), f"by {item['brand']}" if item["brand"] else ""]
    template = ", ".join(part for part in parts if part)
    if evidence:
        template += f', for somebody who liked "{evidence[0]}"'
    allowed = [name for name in (item["title"], *evidence, *item["category"].split("|"), item["brand"]) if name]
    if model is None:
        return Written(template, "template", allowed)
    facts = "; ".join(value for value in (item["title"], item["category"], item["brand"], item["description"]) if value)
    prompt = f"Product: {facts}. "
    if evidence:
        prompt += f'The reader liked "{evidence[0]}". '
    prompt += f'Write one line that makes the reader curious about "{item["title"]}". Invent nothing.'
    return checked(con, model, prompt, template, allowed, facts=[facts], must_name=[item["title"]])


def checked(
    con: duckdb.DuckDBPyConnection,
    model: ModelLike,
    prompt: str,
    template: str,
    titles: Sequence[str],
    *,
    must_name: Sequence[str],
    facts: Sequence[str] = (),
) -> Written:
    """What a model writes where it names one of ``must_name`` and nothing it was not given; the template otherwise."""
    said = " ".join(as_model(model).complete(prompt, most_tokens=60).split())
    text = _first_sentence(said)
    wrong = strays(con, text, titles, facts)
    if not names_one_of(text, must_name):
        wrong.append("names nothing it was given")
    if len(text) > LONGEST or not text.rstrip('"”').endswith((".", "!", "?", "。", "！", "？")):
        wrong.append("no short, finished sentence")
    if any(text.count(f'"{title}"') > 1 for title in titles):
        wrong.append("repeats itself")
    return Written(template, "template", list(titles), wrong) if wrong else Written(text, "model", list(titles))


def _first_sentence(text: str) -> str:
    """Up to the first full stop, exclamation or question mark that ends a sentence; the rest is cut."""
    for at, letter in enumerate(text):
        if letter in "。！？" or (letter in ".!?" and (at + 1 == len(text) or text[at + 1] in ' "”')):
            end = at + 2 if text[at + 1 : at + 2] in {'"', "”"} else at + 1
            return text[:end].strip()
    return text.strip()


def _item(con: duckdb.DuckDBPyConnection, item: str) -> dict[str, str]:
    rows = con.execute(
        "select coalesce(title, item_id), coalesce(category, ''), coalesce(brand, ''), "
        "coalesce(left(description, 300), '') from m6.items where item_id = ?",
        [item],
    ).fetchall()
    if not rows:
        raise UnknownNameError(f"there is no item {item!r} in m6.items, expected one to write about")
    return dict(zip(("title", "category", "brand", "description"), rows[0], strict=True))


def _evidence(con: duckdb.DuckDBPyConnection, user: str, item: str) -> tuple[list[str], str]:
    """Titles of the evidence, the strongest first, and the sentence of ``m6.explain``."""
    rows = con.execute(
        "select part, name from m6.explain($user, $item) where part in ('evidence', 'sentence') "
        "order by part, value desc nulls last, name",
        {"user": user, "item": item},
    ).fetchall()
    sentence = next((name for part, name in rows if part == "sentence"), "popular lately")
    return [name for part, name in rows if part == "evidence"], sentence
