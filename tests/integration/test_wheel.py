"""The wheel carries the SQL that is in git, and answers a query from another folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import datetime as dt, pathlib, sys
import m6rec_udf as m6
from m6rec_udf import resources
from m6rec_udf.embed import HashEncoder

home = pathlib.Path(sys.prefix).resolve()
assert home in pathlib.Path(m6.__file__).resolve().parents, m6.__file__
assert home in resources.sql_root().resolve().parents, resources.sql_root()
con = m6.connect("shop.duckdb", encoder=HashEncoder(dimension=32))
con.execute("insert into m6.items (item_id, title) select 'i' || range, 'film ' || range from range(30)")
con.execute('''
    insert into m6.events (user_id, item_id, event_type, value, happened_at)
    select 'u' || u.range, 'i' || (u.range * 7 + e.range * e.range) % 30, 'rating', 1 + (u.range + e.range) % 5,
        timestamp '2024-01-01' + interval (u.range + 40 * e.range) hour
    from range(40) as u, range(12) as e
''')
m6.build(con)
rows = con.execute("select rank, item_id from m6.recommend('u1', k := 5) order by rank").fetchall()
assert [rank for rank, _ in rows] == [1, 2, 3, 4, 5], rows
assert con.execute("select count(*) from m6.data_dictionary where comment is null").fetchone() is not None
print("answered", len(rows))
"""


def sql_in_git() -> set[str]:
    """SQL files of the repository: what git tracks, or will track, and what is there."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "sql", "warehouse/migrations"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git working copy")
    return {name for name in listed if name.endswith(".sql") and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; the dependencies are borrowed from the current one by a .pth file."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=sys.platform != "win32")
    paths = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home


def test_the_wheel_has_the_sql_of_git(wheel: Path) -> None:
    packed = {
        name.replace("m6rec_udf/_sql/", "sql/").replace("m6rec_udf/_warehouse/", "warehouse/")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith(("m6rec_udf/_sql/", "m6rec_udf/_warehouse/")) and name.endswith(".sql")
    }
    assert packed
    assert packed == sql_in_git()


def test_the_wheel_holds_no_database_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith((".duckdb", ".wal")) or name.startswith("tests/")] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_the_app(wheel: Path) -> None:
    named = {"m6rec_udf/app/page.py", "m6rec_udf/dbt_plugin.py", "m6rec_udf/examples/fastapi_app.py"}
    assert named <= set(zipfile.ZipFile(wheel).namelist())


def test_the_installed_wheel_answers_a_query(environment: Path, tmp_path: Path) -> None:
    python = Path(sysconfig.get_path("scripts", "venv", {"base": str(environment)})) / "python"
    done = subprocess.run([str(python), "-I", "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "answered 5"
