"""The arguments of the command ``m6rec``: its verbs, their options, and how their texts are read."""

from __future__ import annotations

import argparse
import datetime as dt
import re
from collections.abc import Sequence

from m6rec_udf.errors import ParameterError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LOADABLE = ("events", "items", "users", "relations", "feedback")
VERBS = {
    "demo": "load real data, build, recommend and turn the loop once",
    "init": "make a project folder for your own SQL",
    "load": "load events, items, users, relations and feedback from Parquet, CSV or JSON",
    "build": "build features, vectors, candidates and the satisfaction model: one new version",
    "recommend": "the best list for a user",
    "search": "items whose text is close to yours",
    "explain": "why a user would, or would not, get an item",
    "evaluate": "offline figures on a later slice of the data, against baselines",
    "reweight": "one period of the loop: feedback moves the strategy weights",
    "adopt": "put a shadow or candidate version of the strategy weights in force",
    "rollback": "go back to the strategy weights before",
    "publish": "write m6.recommendations for readers without Python",
    "snapshot": "copy the database in one step, for read-only processes",
    "doctor": "check the database and say what to do",
    "forget": "delete a person from the database and its copies",
    "sql": "run SQL with everything registered; a prompt without a query",
    "app": "a page in the browser: lists, clicks, weights, tables",
}


def parse_columns(pairs: Sequence[str], *, tables: Sequence[str]) -> dict[str, dict[str, str]]:
    """``old=new`` or ``table.old=new`` as the column mapping of ``load``.

    >>> parse_columns(["customer=user_id"], tables=["events"])
    {'events': {'customer': 'user_id'}}
    """
    mapping: dict[str, dict[str, str]] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        table, dot, column = old.partition(".")
        if not dot or table not in LOADABLE:
            table, column = (tables[0] if len(tables) == 1 else ""), old
        if not equals or not column or not new or table not in tables:
            raise ParameterError(
                f"--columns {pair} is not understood, expected old=new, "
                f"or with several files table.old=new for one of {', '.join(tables)}",
                "for example --columns events.customer=user_id",
            )
        mapping.setdefault(table, {})[column] = new
    return mapping


def parse_duration(text: str) -> int:
    """Seconds of ``90s``, ``15m``, ``1h`` or ``1d``.

    >>> parse_duration("15m")
    900
    """
    match = re.fullmatch(r"([1-9][0-9]*)([smhd])", text)
    if match is None:
        raise ParameterError(f"{text} is not a duration, expected for example 90s, 15m, 1h or 1d", "--every 1h")
    return int(match[1]) * _SECONDS[match[2]]


def parse_time(text: str) -> dt.datetime:
    """A moment in UTC without time zone, from ISO text; a time zone in it is converted."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ParameterError(f"{text} is not a time, expected ISO form", "--as-of 2024-03-01T12:00:00") from error
    return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} found, expected a whole number from 1")
    return number


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; every verb sets ``verb`` and takes ``--database`` and ``--project``."""
    parser = argparse.ArgumentParser(
        prog="m6rec", description="A recommender in one DuckDB file: SQL models, a small Python core, a feedback loop."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    options = {name: verbs.add_parser(name, help=text, description=text) for name, text in VERBS.items()}
    for name, verb in options.items():
        if name != "init":
            _add_common(verb)
    _add_reading(options)
    _add_writing(options)
    return parser


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--database", metavar="PATH", help="the file (default: m6rec.toml's, or warehouse/m6rec.duckdb)")
    verb.add_argument("--project", metavar="DIR", help="folder with m6rec.toml and your SQL (default: this folder)")
    verb.add_argument("--encoder", metavar="NAME", help="sentence-transformers model (default: all-MiniLM-L6-v2)")


def _add_reading(options: dict[str, argparse.ArgumentParser]) -> None:
    recommend = options["recommend"]
    recommend.add_argument("user", metavar="USER")
    recommend.add_argument("-k", type=_positive, default=10, help="length of the list (default: 10)")
    recommend.add_argument("--in-domain", metavar="DOMAIN", help="only items of this domain")
    recommend.add_argument("--among", metavar="TABLE", help="only items in this table or view of item_id")
    recommend.add_argument("--boosts", metavar="TABLE", help="table or view of item_id and boost")
    recommend.add_argument("--diversity", type=float, help="0 (none) to 1")
    recommend.add_argument("--calibrated", type=float, help="keep the user's own mix of categories: 0 (no) to 1")
    options["search"].add_argument("text", metavar="TEXT")
    options["search"].add_argument("-k", type=_positive, default=10, help="number of items (default: 10)")
    options["explain"].add_argument("user", metavar="USER")
    options["explain"].add_argument("item", metavar="ITEM")
    options["doctor"].add_argument("--all", action="store_true", help="also show the checks without a finding")
    options["app"].add_argument("file", metavar="FILE", nargs="?", help="the same as --database FILE")
    options["app"].add_argument("--port", type=_positive, default=2719, help="on 127.0.0.1 (default: 2719)")
    options["app"].add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    options["sql"].add_argument("query", metavar="QUERY", nargs="?")
    options["sql"].add_argument("--read-only", action="store_true", help="so that others can read at the same time")


def _add_writing(options: dict[str, argparse.ArgumentParser]) -> None:
    options["demo"].add_argument("--dataset", choices=("movielens", "grocery"), default="movielens")
    options["init"].add_argument("directory", metavar="DIR", nargs="?", default=".")
    for name in LOADABLE:
        options["load"].add_argument(f"--{name}", metavar="FILE", help="a file or a quoted glob")
    options["load"].add_argument(
        "--columns", metavar="OLD=NEW", nargs="+", action="extend", default=[], help="such as events.customer=user_id"
    )
    options["build"].add_argument("--as-of", metavar="TIME", help="read nothing later (default: the latest event)")
    options["build"].add_argument("--seed", type=int, default=0)
    options["build"].add_argument("--satisfaction", help="satisfaction function: sql/satisfaction/sat_<name>.sql")
    options["build"].add_argument("--retrain", action="store_true", help="learn afresh even where little has changed")
    reweight = options["reweight"]
    reweight.add_argument("file", metavar="FILE", nargs="?", help="the same as --database FILE")
    reweight.add_argument("--period", metavar="PERIOD", help="length of a calendar period in UTC (default: 1d)")
    reweight.add_argument("--apprentice", action="store_true", help="the new weights stay in shadow, nothing is served")
    reweight.add_argument("--every", metavar="PAUSE", help="keep going in the foreground, such as 15m, 1h or 1d")
    reweight.add_argument("--turns", type=_positive, metavar="N", help="stop after N runs of --every")
    options["adopt"].add_argument("version", metavar="VERSION", type=_positive, help="see m6.policy_versions")
    options["rollback"].add_argument("--to", metavar="VERSION", type=_positive, help="default: champion, or the parent")
    options["publish"].add_argument("--to", metavar="FILE", help="a file of its own, readable by older DuckDB shells")
    options["publish"].add_argument("-k", type=_positive, default=10, help="length of each list (default: 10)")
    options["snapshot"].add_argument("file", metavar="FILE", nargs="?", help="the same as --database FILE")
    options["snapshot"].add_argument("copy", metavar="TO", nargs="?", help="the same as --to TO")
    options["snapshot"].add_argument("--to", metavar="TO", help="the copy; an earlier one is replaced in one step")
    options["forget"].add_argument("user", metavar="USER")
    options["forget"].add_argument("--ticket", metavar="TEXT", help="number of the request, kept in m6.audit")
    options["forget"].add_argument(
        "--snapshots", metavar="FILE", nargs="+", action="extend", default=[], help="copies that must forget too"
    )
