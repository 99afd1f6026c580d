"""What SECURITY.md promises of the connection, the source and the lock."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import duckdb
import polars as pl
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf.errors import ParameterError
from m6rec_udf.files import occurrences

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "m6rec_udf").rglob("*.py"))
FORBIDDEN = {
    "pickle",
    "cPickle",
    "dill",
    "joblib",
    "cloudpickle",
    "shelve",
    "marshal",
    "subprocess",
    "ctypes",
    "socket",
}


@pytest.fixture
def closed(shop_file):
    con = shop_world.connect(shop_file, external_access=False)
    yield con
    con.close()


def test_without_external_access_serving_learning_and_loading_work(closed):
    frames = shop_world.frames(1)
    assert m6.load(closed, events=frames["events"].with_columns(event_id=pl.lit("x") + pl.col("event_id")))[
        "events"
    ].loaded
    m6.build(closed)
    assert len(closed.execute("from m6.recommend('u01')").fetchall()) == 10
    assert len(closed.execute("from m6.search_items('drama')").fetchall()) == 10
    assert closed.execute("from m6.recommend_many('audience')").fetchall()
    assert closed.cursor().execute("from m6.recommend('u01', among := 'picked', boosts := 'margin')").fetchall()
    closed.execute("insert into m6.impressions by name from m6.serve('u01', k := 5, seed := 1, request := 'r')")
    closed.execute("insert into m6.feedback (impression_id, event_type) values ('r-u01-1', 'click')")
    m6.publish(closed)
    assert m6.forget_user(closed, "u01")["total"] > 0


def test_the_answers_are_the_same_without_external_access(closed, reader):
    question = "from m6.recommend('u03', k := 20)"
    assert closed.execute(question).fetchall() == reader.execute(question).fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "from read_csv('/etc/passwd')",
        "from read_text('/etc/passwd')",
        "from '/etc/passwd'",
        "from glob('/*')",
        "copy m6.events to '{folder}/out.csv'",
        "attach '{folder}/other.duckdb' as other",
        "export database '{folder}/all'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set autoload_known_extensions = true",
        "set lock_configuration = false",
        "set temp_directory = '{folder}'",
        "from m6.recommend('u01', among := '/etc/passwd')",
        "from secret",
    ],
)
def test_without_external_access_nothing_outside_is_reached(closed, tmp_path, statement):
    secret = pl.DataFrame({"item_id": ["i01"]})
    assert len(secret) == 1
    before = sorted(tmp_path.iterdir())
    with pytest.raises(duckdb.Error):
        closed.execute(statement.format(folder=tmp_path)).fetchall()
    assert sorted(tmp_path.iterdir()) == before


def test_files_are_refused_with_a_hint_without_external_access(closed, tmp_path):
    (tmp_path / "events.csv").write_text("user_id,item_id,happened_at\nu1,i1,2024-01-01\n")
    for call in (
        lambda: m6.load(closed, events=str(tmp_path / "events.csv")),
        lambda: m6.publish(closed, to=tmp_path / "lists.duckdb"),
        lambda: m6.snapshot(closed, tmp_path / "copy.duckdb"),
    ):
        with pytest.raises(ParameterError, match=r"without external access(.|\n)*Hint:"):
            call()


def test_an_encrypted_file_that_cannot_be_written_says_what_is_missing(tmp_path):
    with pytest.raises(ParameterError, match=r"httpfs(.|\n)*Hint:"):
        shop_world.connect(tmp_path / "secret.duckdb", encryption_key="key")
    assert list(tmp_path.iterdir()) == []


UNSAFE = {"force_mbedtls_unsafe": "true"}  # lets a test write what DuckDB writes with httpfs


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory, shop_frames):
    path = tmp_path_factory.mktemp("encrypted") / "secret.duckdb"
    con = shop_world.connect(path, encryption_key="key", config=UNSAFE)
    m6.load(con, **shop_frames)
    m6.build(con)
    con.close()
    return path


def test_an_encrypted_file_serves_and_hides_its_text(secret_file, built_file, reader):
    assert occurrences(secret_file, "cooking") == 0 < occurrences(built_file, "cooking")
    for options in ({"read_only": True}, {"config": UNSAFE}):
        con = shop_world.connect(secret_file, encryption_key="key", **options)
        question = "select item_id from m6.recommend('u03')"
        assert con.execute(question).fetchall() == reader.execute(question).fetchall()
        assert con.execute("from m6.search_items('drama')").fetchall()
        con.close()


def test_an_encrypted_file_learns_and_forgets(secret_file):
    con = shop_world.connect(secret_file, encryption_key="key", config=UNSAFE)
    con.execute("insert into m6.impressions by name from m6.serve('u01', k := 5, seed := 1, request := 'r')")
    con.execute("insert into m6.feedback (impression_id, event_type) values ('r-u01-1', 'click')")
    assert m6.forget_user(con, "u01")["total"] > 0
    m6.build(con)
    m6.publish(con)
    assert con.execute("from m6.recommendations limit 1").fetchall()
    con.close()


def test_an_encrypted_file_without_external_access(secret_file, tmp_path):
    con = shop_world.connect(secret_file, encryption_key="key", read_only=True, external_access=False)
    assert len(con.execute("from m6.recommend('u03')").fetchall()) == 10
    for statement in ("from read_text('/etc/passwd')", f"attach '{tmp_path}/x.duckdb' as x", "set threads = 1"):
        with pytest.raises(duckdb.Error):
            con.execute(statement)
    con.close()


@pytest.mark.parametrize("key", ["wrong", "", None])
def test_a_wrong_or_missing_key_is_refused(secret_file, key):
    with pytest.raises(m6.M6Error, match="expected"):
        shop_world.connect(secret_file, encryption_key=key, read_only=True)


def test_a_plain_file_and_a_key_do_not_go_together(shop_file):
    with pytest.raises(ParameterError, match="expected"):
        shop_world.connect(shop_file, encryption_key="key", read_only=True)


def test_no_source_can_run_what_it_reads():
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [own.name for own in node.names]
                found += [f"{path.name}: import {name}" for name in names if name.split(".")[0] in FORBIDDEN]
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"eval", "exec", "compile"}
            ):
                found.append(f"{path.name}:{node.lineno} {node.func.id}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert ast.unparse(node.value) == "False", path
    assert found == ["server.py: import socket"]  # m6rec app listens on 127.0.0.1


def test_ruff_looks_for_weaknesses_in_the_package():
    if not Path(sys.executable).with_name("ruff").exists() and not _has("ruff"):
        pytest.skip("ruff is not installed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--select",
            "S",
            "--ignore",
            "S608,S101",
            str(ROOT / "m6rec_udf"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_everything_installed_is_pinned():
    pins = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(
            r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
        )
    }
    assert pins
    todo, seen, loose = ["m6rec"], set(), []
    while todo:  # what the package and its extras need, as installed here
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            own = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra or a platform that is not this one
        if name not in ("m6rec", "setuptools") and not name.startswith("nvidia-"):
            if name not in pins:
                loose.append(f"{name}=={own.version}")
            elif pins[name].split("+")[0] != own.version.split("+")[0]:
                loose.append(f"{name}: installed {own.version}, pinned {pins[name]}")
        for line in own.requires or []:
            if "extra ==" in line and name != "m6rec":
                continue
            if "bench-" in line:
                continue
            todo.append(re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", line)[0]).lower())
    assert loose == []
    assert len(seen) > 30
