"""The command line: every verb reaches its function, every mistake gets one error and a hint."""

from __future__ import annotations

import datetime as dt
import io
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import duckdb
import loop_world
import pytest

import m6rec_udf
from m6rec_udf import arguments, cli, connection, console, policy_versions, project, schedule
from m6rec_udf.errors import LockedError, NotBuiltError, ParameterError

SERVING = """
create or replace view m6.known_users as select distinct user_id from m6.events;
create or replace macro m6.recommend(
    for_user, k := 10, in_domain := '*', among := 'm6.items', boosts := 'm6.items', diversity := 0.0
) as table
    select for_user as user_id, a.item_id,
        cast(row_number() over (order by a.item_id) as integer) as rank, 0.5 as score,
        0.25 as satisfaction, 'popular' as strategy, 'because ' || in_domain || diversity as reason, 'films' as domain,
        1 as policy_version, 1 as model_version
    from query_table(among) as a order by a.item_id limit k;
create or replace macro m6.recommend_many(users, k := 10) as table
    select u.user_id, r.* exclude (user_id) from query_table(users) as u cross join m6.recommend('x', k := k) as r;
create or replace macro m6.search_items(words, k := 10) as table
    select item_id, words as heard from m6.items order by item_id limit k;
create or replace macro m6.explain(for_user, for_item) as table select for_user as user_id, for_item as item_id;
"""


def fake_connect(path, *, encoder=None, read_only=False, project=None):
    is_new = not Path(path).exists()
    con = duckdb.connect(str(path), read_only=read_only)
    if is_new:
        connection.migrate(con)
        con.execute(SERVING)
    fake_connect.calls.append({"encoder": encoder, "read_only": read_only, "project": project})
    return con


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The API replaced by functions that record what they were given, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    fake_connect.calls = []
    recorded = []

    def record(name, result):
        def function(_con, **given):
            recorded.append((name, given))
            return result

        monkeypatch.setattr(m6rec_udf, name, function, raising=False)

    monkeypatch.setattr(m6rec_udf, "connect", fake_connect, raising=False)
    monkeypatch.setattr(connection, "connect", fake_connect)
    for name in ("load", "build", "evaluate", "reweight", "rollback"):
        record(name, {"rows": 3})
    return recorded


@pytest.fixture
def shop(calls, tmp_path):
    """A built database at the default place."""
    (tmp_path / "warehouse").mkdir()
    with fake_connect(tmp_path / connection.DEFAULT_PATH) as con:
        con.execute("insert into m6.items (item_id, title) values ('i1', 'One'), ('i2', 'Two')")
        con.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) "
            "values ('u1', 'i1', 'view', '2024-01-01')"
        )
        con.execute("insert into m6.models values (1, '2024-01-01', 1, 0, 'fake', 0, null, '2024-01-01')")
        con.execute("update m6.active set model_version = 1")
    return tmp_path / connection.DEFAULT_PATH


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = cli.main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_every_verb_is_documented_and_runnable():
    assert set(cli._VERBS) == set(arguments.VERBS)


@pytest.mark.parametrize("verb", sorted(arguments.VERBS))
def test_help_of_every_verb(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage: m6rec" in capsys.readouterr().out


def test_load_hands_over_files_and_columns(calls, capsys):
    code, out, _ = run(
        capsys, "load", "--events", "e.csv", "--items", "i.csv", "--columns", "events.customer=user_id",
        "items.sku=item_id", "--database", "shop.duckdb",
    )  # fmt: skip
    assert code == 0
    assert calls == [
        ("load", {"events": "e.csv", "items": "i.csv",
                  "columns": {"events": {"customer": "user_id"}, "items": {"sku": "item_id"}}})
    ]  # fmt: skip
    assert "next: m6rec build" in out


def test_build_hands_over_time_seed_and_progress(calls, shop, capsys):
    code, _, _ = run(capsys, "build", "--as-of", "2024-01-02T01:00:00+01:00", "--seed", "7")
    ((name, given),) = calls
    assert (code, name, given["as_of"], given["seed"]) == (0, "build", dt.datetime(2024, 1, 2), 7)
    given["progress"]("features", 1, 2)


@pytest.mark.parametrize("verb", ["evaluate", "reweight", "rollback"])
def test_verbs_without_options(calls, shop, capsys, verb):
    code, out, _ = run(capsys, verb)
    assert code == 0
    assert calls == [(verb, {})]
    assert "rows" in out


def test_demo_is_called_with_its_data_set(monkeypatch, calls, capsys):
    seen = []
    demo = SimpleNamespace(run=lambda **given: seen.append(given))
    monkeypatch.setitem(sys.modules, "m6rec_udf.demo", demo)
    monkeypatch.setattr(m6rec_udf, "demo", demo, raising=False)
    assert run(capsys, "demo")[0] == 0
    assert run(capsys, "demo", "--dataset", "grocery", "--database", "g.duckdb")[0] == 0
    assert seen == [{"dataset": "movielens"}, {"dataset": "grocery", "database": "g.duckdb"}]


def test_recommend_prints_titles_and_passes_every_option(shop, capsys):
    code, out, err = run(
        capsys, "recommend", "u1", "-k", "1", "--in-domain", "films", "--among", "m6.items", "--boosts", "m6.items",
        "--diversity", "0.5",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "One" in out
    assert "Two" not in out
    assert "because films0.5" in out
    assert fake_connect.calls[-1]["read_only"] is True


def test_recommend_for_an_unknown_user_says_so(shop, capsys):
    code, out, err = run(capsys, "recommend", "who")
    assert code == 0
    assert "One" in out
    assert "who is unknown here" in err


def test_recommend_does_not_read_the_text_of_a_user_as_sql(shop, capsys):
    code, _, err = run(capsys, "recommend", "'; drop table m6.items; --")
    assert code == 0
    assert "unknown" in err
    assert run(capsys, "sql", "select count(*) as n from m6.items")[0] == 0


@pytest.mark.parametrize("option", ["--among", "--boosts"])
def test_recommend_refuses_a_table_that_is_not_there(shop, capsys, option):
    code, _, err = run(capsys, "recommend", "u1", option, "in_stock")
    assert code == 2
    assert "there is no table or view in_stock" in err
    assert "Hint:" in err


def test_search_and_explain(shop, capsys):
    assert "quiet jazz" in run(capsys, "search", "quiet jazz", "-k", "1")[1]
    assert "i2" in run(capsys, "explain", "u1", "i2")[1]
    code, _, err = run(capsys, "explain", "u1", "i9")
    assert code == 2
    assert "there is no item i9" in err


def test_an_unbuilt_database_names_the_next_command(calls, capsys):
    fake_connect("shop.duckdb").close()
    for verb in (["recommend", "u"], ["search", "x"], ["explain", "u", "i"], ["publish"]):
        code, _, err = run(capsys, *verb, "--database", "shop.duckdb")
        assert code == 2
        assert "m6rec build" in err


@pytest.mark.parametrize(
    "verb", [["build"], ["recommend", "u"], ["doctor"], ["sql", "select 1"], ["publish"], ["forget", "u"]]
)
def test_a_missing_database_is_not_created(calls, capsys, verb):
    code, _, err = run(capsys, *verb, "--database", "none.duckdb")
    assert code == 2
    assert err.startswith("error: there is no database none.duckdb")
    assert not Path("none.duckdb").exists()


def test_errors_of_m6rec_are_one_message_and_others_keep_their_traceback(monkeypatch, shop, capsys):
    def fail(_con):
        raise NotBuiltError("nothing here", "do this")

    monkeypatch.setattr(m6rec_udf, "evaluate", fail, raising=False)
    assert run(capsys, "evaluate") == (2, "", "error: nothing here\nHint: do this\n")
    monkeypatch.setattr(m6rec_udf, "evaluate", lambda _con: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate"])


REWEIGHTED = {"policy_version": 4, "status": "active", "reason": "groups: 1 accepted", "changed": True, "groups": []}


def test_reweight_every_goes_on_after_an_error(monkeypatch, shop, capsys):
    """One line a run, a run keeps to its time, and the exit code says how the last one ended."""
    turns = []

    def reweight(_con):
        turns.append(1)
        if len(turns) == 3:
            raise LockedError("busy", "wait")
        return REWEIGHTED

    monkeypatch.setattr(m6rec_udf, "reweight", reweight, raising=False)
    monkeypatch.setattr(schedule.time, "sleep", turns.append)
    code, out, _ = run(capsys, "reweight", "--every", "1h", "--turns", "3")
    assert code == 0
    assert turns == [1, pytest.approx(3600, abs=5), 1, pytest.approx(3600, abs=5), 1]
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    expected = [
        r"reweighting warehouse/m6rec.duckdb every 1h; stop with Ctrl-C",
        rf"run 1: active, policy version 4 \(new\); groups: 1 accepted; \d\.\d s; next run {moment}",
        rf"run 2: failed, the next one tries again: busy Hint: wait; \d\.\d s; next run {moment}",
        r"run 3: active, policy version 4 \(new\); groups: 1 accepted; \d\.\d s; the last run",
    ]
    for line, pattern in zip(out.splitlines(), expected, strict=True):
        assert re.fullmatch(f"{moment} {pattern}", line)
    turns.clear()
    assert run(capsys, "reweight", "--every", "1h", "--turns", "2")[0] == 1


def test_a_mistake_in_the_code_is_not_swallowed_by_the_loop(monkeypatch, shop, capsys):
    monkeypatch.setattr(m6rec_udf, "reweight", lambda _con: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        cli.main(["reweight", "--every", "1h", "--turns", "1"])


def test_reweight_takes_a_file_a_period_and_an_apprentice(calls, shop, capsys):
    assert run(capsys, "reweight", str(shop), "--period", "12h", "--apprentice")[0] == 0
    assert calls == [("reweight", {"period": "12h", "parameters": {"apprentice": True}})]
    code, _, err = run(capsys, "reweight", "other.duckdb", "--database", str(shop))
    assert (code, "two files are named" in err) == (2, True)


def test_adopt_and_rollback_name_a_version(calls, shop, capsys):
    assert run(capsys, "rollback", "--to", "2")[0] == 0
    assert calls == [("rollback", {"to": 2})]
    code, _, err = run(capsys, "adopt", "2")
    assert (code, "no strategy weights are in force" in err) == (2, True)


@pytest.fixture
def logged_file(tmp_path):
    """A file with one day of lists and clicks, ready to be reweighted."""
    path = tmp_path / "loop.duckdb"
    con = connection.connect(path, encoder="nobody")
    con.executemany("insert into m6.strategies values (?, ?, true, '')", [["blended", 0], ["popular", 1]])
    policy_versions.ensure_default_policy(con)
    con.execute("update m6.strategy_weights set weight = 0.5")
    loop_world.play(con, day=0, quality=[0.1, 0.5], requests=300)
    con.close()
    return path


def start(path, *options):
    command = [sys.executable, "-m", "m6rec_udf.cli", "reweight", str(path), "--every", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loop_cleanly(logged_file, number):
    process = start(logged_file, "1h")
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert "run 1: active" in lines[1]
    with duckdb.connect(str(logged_file)) as con:  # open to others while the loop waits
        assert con.execute("select max(policy_version) from m6.policy_versions").fetchall() == [(2,)]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest.splitlines()[-1].endswith("stopped after 1 runs")


def test_a_signal_during_a_run_lets_it_finish(monkeypatch, shop, capsys):
    def reweight(_con):
        signal.raise_signal(signal.SIGTERM)
        return REWEIGHTED

    monkeypatch.setattr(m6rec_udf, "reweight", reweight, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    code, out, _ = run(capsys, "reweight", "--every", "1h")
    assert code == 0
    assert "run 1: active" in out
    assert out.splitlines()[-1].endswith("stopped after 1 runs")
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_processes_at_once_do_no_harm(logged_file):
    """Whoever finds the file taken tries again; together they move the weights once."""
    processes = [start(logged_file, "1s", "--turns", "4") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert not any("Traceback" in output for output in outputs)
    done = [line for output in outputs for line in output.splitlines() if "policy version 2" in line]
    assert len([line for line in done if "(new)" in line]) == 1
    assert len(done) > 2
    assert all(line in done or "is open in another process" in line or "reweighting" in line
               for output in outputs for line in output.splitlines())  # fmt: skip
    with duckdb.connect(str(logged_file), read_only=True) as con:
        assert con.execute("select policy_version, status from m6.policy_versions order by 1").fetchall() == [
            (1, "champion"),
            (2, "active"),
        ]
        sums = con.execute(
            "select sum(weight) from m6.strategy_weights where policy_version = 2 group by domain, segment"
        ).fetchall()
    assert [round(total, 9) for (total,) in sums] == [1.0] * 3


def test_publish_snapshot_and_doctor(shop, capsys):
    code, out, _ = run(capsys, "publish", "--to", "lists.duckdb", "-k", "1")
    assert (code, out.splitlines()[0].split(" rows")[0]) == (0, "2")
    assert run(capsys, "publish")[0] == 0
    assert run(capsys, "snapshot", "--to", "copy.duckdb")[0] == 0
    with duckdb.connect("copy.duckdb", read_only=True) as con:
        assert con.execute("select count(*) from m6.recommendations").fetchone() == (4,)
    code, out, _ = run(capsys, "doctor", "--all")
    assert code == 0
    assert "functions" in out
    with duckdb.connect(str(shop)) as con:
        con.execute("delete from m6.event_types")
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "unknown_event_types" in out


def test_forget_deletes_and_writes_the_file_afresh(shop, capsys):
    before = shop.stat().st_ino
    code, out, _ = run(capsys, "forget", "u1")
    assert code == 0
    assert "events" in out
    assert "written afresh" in out
    assert shop.stat().st_ino != before
    with duckdb.connect(str(shop), read_only=True) as con:
        assert con.execute("select count(*) from m6.events").fetchone() == (0,)
        assert con.execute("from m6.recommend('x', k := 1)").fetchall()
    assert run(capsys, "forget", "nobody")[1].startswith("(no rows)")


def test_sql_runs_a_query_and_reports_a_mistake(shop, capsys):
    code, out, _ = run(capsys, "sql", "select 41 + 1 as answer; select 'b;c' as text")
    assert code == 0
    assert "42" in out
    assert "b;c" in out
    code, _, err = run(capsys, "sql", "select nothing")
    assert code == 2
    assert err.startswith("error: ")


def test_the_prompt_goes_on_after_an_error_and_stops_at_quit(shop, capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.stdin",
        io.StringIO("select\n  40 + 2 as a; -- why\nselect wrong;\nselect 'a;\nb' as t;\n.quit\nselect 9;\n"),
    )
    code, out, err = run(capsys, "sql")
    assert code == 2  # a script with a mistake in it
    assert "42" in out
    assert "wrong" in err
    assert "9" not in out
    assert "a;" in out
    monkeypatch.setattr("sys.stdin", io.StringIO("create table t as select 7 as n;\nfrom t"))
    code, out, _ = run(capsys, "sql")
    assert code == 0
    assert "7" in out


def test_init_makes_a_project_and_never_overwrites(tmp_path, capsys):
    root = tmp_path / "shop"
    assert run(capsys, "init", str(root))[0] == 0
    assert {"m6rec.toml", "README.md", ".gitignore", "data", "sql"} <= {path.name for path in root.iterdir()}
    (root / "README.md").write_text("mine")
    (root / "m6rec.toml").unlink()
    assert project.init(root) == [root / "m6rec.toml"]
    assert (root / "README.md").read_text() == "mine"
    assert project.init(root) == []
    with pytest.raises(ParameterError, match="is a file"):
        project.init(root / "README.md")


def test_settings_of_the_project_are_used(calls, tmp_path, capsys):
    project.init(tmp_path)
    (tmp_path / "m6rec.toml").write_text('database = "warehouse/mine.duckdb"\nencoder = "tiny"\n')
    assert run(capsys, "load", "--items", "i.csv")[0] == 0
    assert (tmp_path / "warehouse" / "mine.duckdb").exists()
    assert fake_connect.calls[-1] == {"encoder": "tiny", "read_only": False, "project": "."}
    (tmp_path / "m6rec.toml").write_text("databse = 'x'\n")
    code, _, err = run(capsys, "doctor")
    assert code == 2
    assert "databse" in err
    (tmp_path / "m6rec.toml").write_text("database = \n")
    assert "not valid TOML" in run(capsys, "doctor")[2]


def test_own_models_and_overrides_are_recognised(tmp_path):
    project.init(tmp_path)
    (tmp_path / "sql/strategies/cand_mine.sql").write_text("select 1")
    (tmp_path / "sql/strategies/cand_popular.sql").write_text("select 1")
    mine, popular = project.own_models(tmp_path)
    assert (project.is_override(mine), project.is_override(popular)) == (False, True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["load"], "nothing to load"),
        (["load", "--events", "e", "--columns", "customer"], "not understood"),
        (["load", "--events", "e", "--items", "i", "--columns", "customer=user_id"], "table.old=new"),
        (["build", "--as-of", "yesterday"], "not a time"),
        (["reweight", "--every", "soon"], "not a duration"),
        (["doctor", "--project", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_in_arguments(shop, capsys, argv, words):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert words in err
    assert "Hint:" in err


@pytest.mark.parametrize("k", ["0", "-1", "many"])
def test_k_is_checked_by_the_parser(capsys, k):
    with pytest.raises(SystemExit) as stop:
        cli.main(["recommend", "u", "-k", k])
    assert stop.value.code == 2
    assert "from 1" in capsys.readouterr().err


def test_columns_with_a_dot_in_the_name():
    assert arguments.parse_columns(["user.id=user_id"], tables=["events"]) == {"events": {"user.id": "user_id"}}
    assert arguments.parse_duration("90s") == 90


def test_tables_are_aligned_and_long_text_is_cut(capsys):
    console.print_table(["name", "n"], [("a" * 80, 1.5), (None, None)], width=10)
    assert capsys.readouterr().out.splitlines() == [
        "name             n",
        "----------  ------",
        "aaaaaaaaa…  1.5000",
        "-                -",
    ]


def test_progress_names_each_step_once_off_a_terminal():
    out = io.StringIO()
    with console.Progress(out) as progress:
        progress("features", 1, 2)
        progress("features", 2, 2)
        progress("vectors")
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["features", "vectors"]


def test_the_verbs_on_the_real_core(monkeypatch, tmp_path, capsys):
    from m6rec_udf.embed import HashEncoder

    monkeypatch.chdir(tmp_path)
    real = connection.connect
    encoder = HashEncoder(dimension=16)

    def connect(path, **given):
        return real(path, **(given | {"encoder": encoder}))

    monkeypatch.setattr(m6rec_udf, "connect", connect, raising=False)
    monkeypatch.setattr(connection, "connect", connect)
    items = [f"i{n},Film {n},c{n % 3}" for n in range(20)]
    events = [f"u{n % 7},i{n * n % 19},rating,{1 + n % 5},2024-01-{1 + n % 28:02d}" for n in range(150)]
    Path("items.csv").write_text("\n".join(["item_id,title,category", *items]))
    Path("events.csv").write_text("\n".join(["customer,item_id,event_type,value,happened_at", *events]))
    code, out, _ = run(
        capsys, "load", "--events", "events.csv", "--items", "items.csv", "--columns", "events.customer=user_id"
    )
    assert (code, "150" in out) == (0, True)
    assert run(capsys, "doctor")[0] == 1
    assert run(capsys, "build")[0] == 0
    code, out, _ = run(capsys, "recommend", "u1", "-k", "3")
    assert (code, len(out.splitlines())) == (0, 5)
    assert run(capsys, "search", "Film 3", "-k", "2")[0] == 0
    assert run(capsys, "publish", "--to", "lists.duckdb", "-k", "3")[0] == 0
    assert run(capsys, "snapshot", "--to", "copy.duckdb")[0] == 0
    code, out, _ = run(capsys, "doctor", "--all")
    assert (code, "encoder" in out) == (0, True)
    assert run(capsys, "forget", "u1", "--snapshots", "copy.duckdb", "lists.duckdb")[0] == 0
    code, _, err = run(capsys, "recommend", "u1", "-k", "3", "--database", "copy.duckdb")
    assert (code, "u1 is unknown here" in err) == (0, True)


def test_build_picks_up_the_examples_of_the_project_readme(tmp_path):
    from m6rec_udf import builder
    from m6rec_udf.embed import HashEncoder

    project.init(tmp_path)
    text = (tmp_path / "README.md").read_text()
    examples = dict(re.findall(r"`(sql/[a-z_/]+\.sql)`:\n\n```sql\n(.*?)```", text, re.DOTALL))
    assert {path.split("/")[1] for path in examples} == {"strategies", "features", "satisfaction"}
    for path, sql in examples.items():
        (tmp_path / path).write_text(sql)
    with connection.connect(":memory:", encoder=HashEncoder(dimension=16), project=tmp_path) as con:
        con.execute(
            "insert into m6.items (item_id, title, price) select 'i' || x, 'Film ' || x, x from range(30) as t(x)"
        )
        con.execute(
            "insert into m6.events (user_id, item_id, event_type, happened_at) select 'u' || (x % 9), "
            "'i' || (x * x % 29), 'purchase', timestamp '2024-01-01' + to_hours(x) from range(200) as t(x)"
        )
        builder.build(con)
        own = con.execute("select distinct model from m6.lineage where path <> 'shipped' order by 1").fetchall()
        assert [row[0] for row in own] == sorted(Path(path).stem for path in examples)


def test_the_command_needs_nothing_heavy_to_say_its_help():
    code = (
        "import sys, m6rec_udf.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('polars', 'pandas', 'torch', 'lightgbm', 'numpy', 'pyarrow')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_snapshot_takes_a_file_and_its_copy(shop, capsys):
    assert run(capsys, "snapshot", str(shop), "copy.duckdb")[0] == 0
    with duckdb.connect("copy.duckdb", read_only=True) as con:
        assert con.execute("select count(*) from m6.items").fetchone() == (2,)
    for given in ((), ("copy.duckdb",), (str(shop), "copy.duckdb", "--to", "other.duckdb")):
        code, _, err = run(capsys, "snapshot", *given)
        assert code == 2
        assert "m6rec snapshot FILE TO" in err


def test_a_damaged_file_is_named_with_the_way_back(shop, capsys, monkeypatch):
    def stop(*_):
        raise duckdb.IOException(
            "Corrupt database file: computed checksum 1 does not match stored checksum 2 in block 3"
        )

    monkeypatch.setitem(cli._VERBS, "doctor", stop)
    code, _, err = run(capsys, "doctor")
    assert code == 2
    assert "m6rec snapshot FILE TO" in err
    monkeypatch.setitem(cli._VERBS, "doctor", lambda _: (_ for _ in ()).throw(duckdb.IOException("something else")))
    with pytest.raises(duckdb.IOException, match="something else"):
        run(capsys, "doctor")
