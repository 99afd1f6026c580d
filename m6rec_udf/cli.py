"""The command ``m6rec``: one verb per function of the Python API."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from m6rec_udf import console
from m6rec_udf.arguments import LOADABLE, build_parser, parse_columns, parse_duration, parse_time
from m6rec_udf.errors import M6Error, ParameterError, UnknownNameError, damage
from m6rec_udf.publish import first_row

USAGE_ERROR = 2
CHECKS_FAILED = 1
_ARGUMENTS = {
    "k": "k := $k",
    "in_domain": "in_domain := $in_domain",
    "among": "among := $among",
    "boosts": "boosts := $boosts",
    "diversity": "diversity := $diversity",
    "calibrated": "calibrated := $calibrated",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0: done; 1: the doctor found a failure, or the last run of ``--every`` failed; 2: a mistake named on stderr.
    """
    arguments = build_parser().parse_args(argv)
    try:
        _apply_project(arguments)
        return _VERBS[arguments.verb](arguments) or 0
    except M6Error as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except duckdb.Error as error:
        found = damage(error)
        if found is None:
            raise
        print(f"error: {found}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, as in `m6rec ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _apply_project(arguments: argparse.Namespace) -> None:
    """Fill in what the command line left out: from the project's ``m6rec.toml``, then the defaults."""
    from m6rec_udf import connection, project

    if not hasattr(arguments, "project"):
        return
    if getattr(arguments, "file", None) is not None:
        if arguments.database not in (None, arguments.file):
            raise ParameterError(f"two files are named, {arguments.file} and {arguments.database}", "name one")
        arguments.database = arguments.file
    if arguments.project is None and Path(project.SETTINGS_FILE).is_file():
        arguments.project = "."
    if arguments.project is not None and not Path(arguments.project).is_dir():
        raise ParameterError(
            f"the project folder {arguments.project} does not exist", f"run `m6rec init {arguments.project}`"
        )
    found = project.settings(arguments.project) if arguments.project else {}
    arguments.has_database = arguments.database is not None or "database" in found
    arguments.database = arguments.database or found.get("database", connection.DEFAULT_PATH)
    arguments.encoder = arguments.encoder or found.get("encoder")


def _require_database(arguments: argparse.Namespace) -> None:
    """Refuse a file that does not exist, before a command makes an empty one."""
    if not Path(arguments.database).exists():
        raise M6Error(
            f"there is no database {arguments.database}, expected one to read",
            "run `m6rec demo`, or `m6rec load --events FILE --items FILE` and `m6rec build`; "
            "name another with --database",
        )


@contextmanager
def _opened(
    arguments: argparse.Namespace, *, read_only: bool = False, create: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The dressed connection of a command, closed after it."""
    import m6rec_udf

    if not create:
        _require_database(arguments)
    con = m6rec_udf.connect(
        arguments.database, encoder=arguments.encoder, read_only=read_only, project=arguments.project
    )
    try:
        yield con
    finally:
        con.close()


def _demo(arguments: argparse.Namespace) -> None:
    from m6rec_udf import demo

    given = {"database": arguments.database} if arguments.has_database else {}
    demo.run(dataset=arguments.dataset, **given)


def _init(arguments: argparse.Namespace) -> None:
    from m6rec_udf import project

    made = project.init(arguments.directory)
    for path in made:
        print(f"made {path}")
    if not made:
        print("nothing to do: everything is there")
    print("next: put files into data/, then `m6rec load --events data/... --items data/...` and `m6rec build`")


def _load(arguments: argparse.Namespace) -> None:
    import m6rec_udf

    given = {name: value for name in LOADABLE if (value := getattr(arguments, name))}
    if not given:
        expected = ", ".join(f"--{name}" for name in LOADABLE)
        raise ParameterError(f"nothing to load, expected at least one of {expected}", "m6rec load --events FILE")
    columns = parse_columns(arguments.columns, tables=list(given))
    with _opened(arguments, create=True) as con:
        print(m6rec_udf.load(con, columns=columns or None, **given))
    print("next: m6rec build")


def _build(arguments: argparse.Namespace) -> None:
    import m6rec_udf

    as_of = parse_time(arguments.as_of) if arguments.as_of else None
    with _opened(arguments) as con, console.Progress() as progress:
        result = m6rec_udf.build(
            con,
            as_of=as_of,
            seed=arguments.seed,
            satisfaction=arguments.satisfaction,
            retrain=arguments.retrain,
            progress=progress,
        )
        progress.close()
        console.print_result(result, title="built")


def _recommend(arguments: argparse.Namespace) -> None:
    names = [name for name in _ARGUMENTS if getattr(arguments, name) is not None]
    given = {name: getattr(arguments, name) for name in names} | {"user": arguments.user}
    call = ", ".join(["$user", *(_ARGUMENTS[name] for name in names)])
    with _opened(arguments, read_only=True) as con:
        _require_built(con)
        for name in ("among", "boosts"):
            if getattr(arguments, name):
                _require_relation(con, getattr(arguments, name))
        known = con.execute("select 1 from m6.known_users where user_id = ? limit 1", [arguments.user])
        if not first_row(known):
            print(f"note: {arguments.user} is unknown here; this is the list for unknown users", file=sys.stderr)
        console.print_result(
            con.sql(
                "select r.rank, r.item_id, i.title, r.domain, r.score, r.satisfaction, r.strategy, r.reason "
                f"from m6.recommend({call}) as r left join m6.items as i on r.item_id = i.item_id "
                "order by r.rank, r.item_id",
                params=given,
            )
        )


def _search(arguments: argparse.Namespace) -> None:
    with _opened(arguments, read_only=True) as con:
        _require_built(con)
        given = {"text": arguments.text, "k": arguments.k}
        console.print_result(con.sql("from m6.search_items($text, k := $k)", params=given))


def _explain(arguments: argparse.Namespace) -> None:
    with _opened(arguments, read_only=True) as con:
        _require_built(con)
        given = {"user": arguments.user, "item": arguments.item}
        if not first_row(con.execute("select 1 from m6.items where item_id = ?", [arguments.item])):
            raise UnknownNameError(
                f"there is no item {arguments.item}, expected an item_id of m6.items",
                f"m6rec search {arguments.item!r} finds items by their text",
            )
        console.print_result(con.sql("from m6.explain($user, $item)", params=given))


def _evaluate(arguments: argparse.Namespace) -> None:
    import m6rec_udf

    with _opened(arguments) as con:
        result = m6rec_udf.evaluate(con)
        if isinstance(result, duckdb.DuckDBPyRelation) and "run_id" in result.columns:
            result = result.project("* exclude (run_id)")
        console.print_result(result)


def _reweight(arguments: argparse.Namespace) -> int | None:
    if arguments.every is None:
        console.print_result(_reweight_once(arguments))
        return None
    from m6rec_udf import schedule

    pause = parse_duration(arguments.every)
    console.log(f"reweighting {arguments.database} every {arguments.every}; stop with Ctrl-C")
    is_done = schedule.run_every(lambda: _in_words(_reweight_once(arguments)), pause, turns=arguments.turns)
    return 0 if is_done else CHECKS_FAILED


def _reweight_once(arguments: argparse.Namespace) -> Any:
    """One period; the file is open only meanwhile, so that others can write in between."""
    import m6rec_udf

    given: dict[str, Any] = {"period": arguments.period} if arguments.period else {}
    if arguments.apprentice:
        given["parameters"] = {"apprentice": True}
    with _opened(arguments) as con:
        return m6rec_udf.reweight(con, **given)


def _in_words(result: dict[str, Any]) -> str:
    """What a reweighting did, in one line."""
    what = "new" if result.get("changed") else "unchanged"
    return f"{result.get('status')}, policy version {result.get('policy_version')} ({what}); {result.get('reason')}"


def _adopt(arguments: argparse.Namespace) -> None:
    import m6rec_udf

    with _opened(arguments) as con:
        console.print_result(m6rec_udf.adopt(con, arguments.version), title="adopted")


def _rollback(arguments: argparse.Namespace) -> None:
    import m6rec_udf

    given = {"to": arguments.to} if arguments.to else {}
    with _opened(arguments) as con:
        console.print_result(m6rec_udf.rollback(con, **given), title="rolled back")


def _publish(arguments: argparse.Namespace) -> None:
    from m6rec_udf.publish import publish

    with _opened(arguments, read_only=arguments.to is not None) as con:
        rows = publish(con, to=arguments.to, k=arguments.k)
    place = arguments.to or arguments.database
    print(f"{rows} rows in m6.recommendations of {place}; no Python needed to read them:")
    print(f"    duckdb {place} \"from m6.recommendations where user_id = '*'\"")


def _snapshot(arguments: argparse.Namespace) -> None:
    from m6rec_udf.publish import snapshot

    named = [name for name in (arguments.copy, arguments.to) if name is not None]
    if len(named) != 1:
        raise ParameterError(f"{len(named)} copies are named, expected one", "m6rec snapshot FILE TO")
    with _opened(arguments, read_only=True) as con:
        path = snapshot(con, named[0])
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it with read_only=True from any number of processes")


def _doctor(arguments: argparse.Namespace) -> int:
    from m6rec_udf.doctor import FAIL, OK, findings

    with _opened(arguments, read_only=True) as con:
        found = findings(con)
    rows = [(row.status, row.check, row.found, row.remedy) for row in found if row.status != OK or arguments.all]
    if rows:
        console.print_table(["status", "check", "found", "remedy"], rows, width=160)
    print(f"{len(found)} checks, {sum(row.status != OK for row in found)} with a finding")
    return CHECKS_FAILED if any(row.status == FAIL for row in found) else 0


def _forget(arguments: argparse.Namespace) -> None:
    from m6rec_udf.privacy import forget_user

    _require_database(arguments)
    report = forget_user(arguments.database, arguments.user, snapshots=arguments.snapshots, ticket=arguments.ticket)
    rows = [(table, count) for table, count in report["deleted"].items() if count]
    rows += list(report["snapshots"].items())
    console.print_table(["deleted from", "rows"], rows)
    for path, count in report["occurrences"].items():
        print(f"{path} was written afresh; the bytes of the id occur in it {count} times")
    for text in report["remains"]:
        print(f"remains: {text}")


def _sql(arguments: argparse.Namespace) -> int:
    with _opened(arguments, read_only=arguments.read_only) as con:
        done = console.run_sql(con, arguments.query) if arguments.query else console.prompt(con)
    return 0 if done else USAGE_ERROR


def _app(arguments: argparse.Namespace) -> None:
    from m6rec_udf.app import server

    _require_database(arguments)
    server.run(
        arguments.database,
        encoder=arguments.encoder,
        project=arguments.project,
        port=arguments.port,
        is_opening=not arguments.no_browser,
    )


def _require_built(con: duckdb.DuckDBPyConnection) -> None:
    from m6rec_udf.publish import require_built

    require_built(con)


def _require_relation(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Refuse a table or view that does not exist, before a macro names it."""
    try:
        con.execute("select 1 from query_table(?) limit 0", [name]).fetchall()
    except duckdb.Error as error:
        raise UnknownNameError(
            f"there is no table or view {name} ({str(error).splitlines()[0]})",
            'create it first, for example `m6rec sql "create view in_stock as select item_id from ..."`',
        ) from error


_VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "demo": _demo,
    "init": _init,
    "load": _load,
    "build": _build,
    "recommend": _recommend,
    "search": _search,
    "explain": _explain,
    "evaluate": _evaluate,
    "reweight": _reweight,
    "adopt": _adopt,
    "rollback": _rollback,
    "publish": _publish,
    "snapshot": _snapshot,
    "doctor": _doctor,
    "forget": _forget,
    "sql": _sql,
    "app": _app,
}


if __name__ == "__main__":
    sys.exit(main())
