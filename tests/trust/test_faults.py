"""A full disk, a folder that cannot be written, damaged files, a clock that goes backwards."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import shop_world as world

import m6rec_udf as m6
from m6rec_udf.errors import M6Error
from m6rec_udf.registry import context_of

TESTS = Path(__file__).resolve().parents[1]
USERS = ("u00", "u17", "nobody")
BACKUP = "m6rec snapshot FILE TO"
FULL = """
import os, resource, sys
import polars as pl, shop_world as world, m6rec_udf as m6
path, limit = sys.argv[1], int(sys.argv[2])
con = world.connect(path)
world.recommend(con, "u00")
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def attempt(name, do):
    try:
        do()
        print(name, "done")
    except Exception as error:
        print(name, type(error).__name__, str(error).replace("\\n", " "))
rows = 300_000
frame = {"user_id": [f"u{n}" for n in range(rows)], "item_id": ["i01"] * rows, "happened_at": ["2024-08-01"] * rows}
frame["event_id"] = [os.urandom(24).hex() for _ in range(rows)]
attempt("load", lambda: m6.load(con, events=pl.DataFrame(frame)))
attempt("build", lambda: m6.build(con))
attempt("snapshot", lambda: m6.snapshot(con, sys.argv[3]))
attempt("recommend", lambda: world.recommend(con, "u00"))
try:
    con.close()
except Exception:
    pass
"""


def answers(con):
    lists = [[(r["item_id"], round(r["satisfaction"], 6)) for r in world.recommend(con, user)] for user in USERS]
    many = world.rows(con, "select user_id, item_id, rank from m6.recommend_many('audience', k := 3) order by all")
    return lists, many


def fill_up(path, limit, copy) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run(
        [sys.executable, "-c", world.QUIET + FULL, str(path), str(limit), str(copy)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def is_whole(path):
    with world.connect(path) as con:
        rows = world.rows(con, "select count(*), count(distinct event_seq) from m6.events")[0]
        given = world.rows(con, "select sum(loaded) from m6.load_batches where table_name = 'events'")[0][0]
        assert rows == (given, given)
        assert {row["model_version"] for row in world.recommend(con, "u00")} == {
            world.rows(con, "select model_version from m6.active")[0][0]
        }
        m6.build(con)


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE")
def test_files_that_may_not_grow(shop_file, tmp_path):
    """RLIMIT_FSIZE: no file of the process may become longer than the database is now and a little."""
    said = fill_up(shop_file, shop_file.stat().st_size + 1_000_000, tmp_path / "copy.duckdb")
    assert said["load"].startswith("M6Error events: loading stopped, nothing was loaded")
    assert "free space" in said["load"]
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())
    is_whole(shop_file)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB; skipped where mounting is not permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(shop_file, small_disk, tmp_path):
    path = small_disk / "shop.duckdb"
    path.write_bytes(shop_file.read_bytes())
    said = fill_up(path, 0, small_disk / "copy.duckdb")
    assert "No space left on device" in said["snapshot"]
    assert not any(found.name.startswith(".") or found.name == "copy.duckdb" for found in small_disk.iterdir())
    roomy = tmp_path / "roomy"
    roomy.mkdir()
    for found in small_disk.iterdir():
        (roomy / found.name).write_bytes(found.read_bytes())
    is_whole(roomy / "shop.duckdb")


def test_a_folder_that_cannot_be_written(shop_file, tmp_path, request):
    folder = tmp_path / "closed"
    folder.mkdir()
    if os.geteuid() == 0:  # may write everywhere but on a file system mounted for reading
        bind = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
        if subprocess.run(bind, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")
        request.addfinalizer(lambda: subprocess.run(["umount", str(folder)], check=True))
    path = folder / "shop.duckdb"
    path.write_bytes(shop_file.read_bytes())
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        path.chmod(0o400)
        folder.chmod(0o500)
        request.addfinalizer(lambda: folder.chmod(0o700))
    with pytest.raises(M6Error, match=r"cannot be opened"):
        world.connect(path)
    with pytest.raises((M6Error, OSError)):
        world.connect(folder / "new.duckdb")
    with world.connect(path, read_only=True) as con, world.connect(shop_file) as whole:
        assert answers(con) == answers(whole)
        with pytest.raises(OSError, match=r"new\.duckdb"):
            m6.snapshot(con, folder / "new.duckdb")


def damaged(path, expected):
    """What opening and asking a file says: "same", or the error."""
    try:
        con = world.connect(path)
    except M6Error as error:
        return "refused" if BACKUP in str(error) else str(error)
    with con:
        try:
            return "same" if answers(con) == expected else "wrong"
        except duckdb.Error as error:
            return "stopped" if "orrupt" in str(error) else str(error)


def test_flipped_bits_are_never_a_wrong_answer(shop_file, tmp_path):
    with world.connect(shop_file) as con:
        expected = answers(con)
    whole, chance, said = shop_file.read_bytes(), random.Random(5), []
    for turn in range(40):
        at = chance.randrange(len(whole)) if turn else 4096 * 2 + 8  # the first: in the header
        broken = bytearray(whole)
        broken[at] ^= 1 << chance.randrange(8)
        path = tmp_path / "broken.duckdb"
        path.write_bytes(broken)
        said.append(damaged(path, expected))
    assert {"same", "refused", "stopped"} >= set(said)
    assert said.count("same") < 40


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_file_that_was_cut_off_is_refused(shop_file, share):
    whole = shop_file.read_bytes()
    shop_file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(M6Error, match=BACKUP):
        world.connect(shop_file)


def test_a_file_without_its_last_bytes_gives_no_wrong_answer(shop_file, tmp_path):
    """The last block may be a free one, or of a table that no list reads: then the file opens."""
    with world.connect(shop_file) as con:
        expected = answers(con)
    whole = shop_file.read_bytes()
    for missing in (1, 12, 4096, 200_000):
        path = tmp_path / f"cut{missing}.duckdb"
        path.write_bytes(whole[:-missing])
        assert damaged(path, expected) in ("same", "refused", "stopped")


def test_a_changed_artefact_is_refused(shop):
    changed = (
        "update m6.artefact_contents set content = ? "
        "where content_hash in (select content_hash from m6.artefact_names where name = ?)"
    )
    for name in ("settings", "factors", "satisfaction", "item_item.data"):
        [(content,)] = world.rows(shop, "select content from m6.artefacts where name = ?", [name])
        broken = bytearray(content)
        broken[len(broken) // 2] ^= 4
        shop.execute(changed, [bytes(broken), name])
        context_of(shop).snapshots.clear()
        with pytest.raises(duckdb.Error, match=rf"(?s)'{name}' of model_version 1 does not match.*{BACKUP}"):
            world.recommend(shop, "u00")
        shop.execute(changed, [content, name])
    context_of(shop).snapshots.clear()
    assert len(world.recommend(shop, "u00")) == 10


def test_a_log_that_was_cut_off_gives_whole_transactions_or_is_refused(shop_file, tmp_path):
    """The write-ahead log of a killed process, shortened or with a bit flipped."""
    code = (
        "import os, sys, signal, shop_world as world\ncon = world.connect(sys.argv[1])\n"
        "for n in range(30):\n    con.execute("
        '"insert into m6.events (event_id, user_id, item_id, event_type, happened_at) '
        "select 'w' || $1 || '-' || i, 'u00', 'i01', 'view', timestamp '2024-08-01' from range(7) as r(i)\", [n])\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    subprocess.run([sys.executable, "-c", world.QUIET + code, str(shop_file)], env=environment, check=False)
    base, log = shop_file.read_bytes(), Path(f"{shop_file}.wal").read_bytes()
    chance, counts, refused = random.Random(3), [], []
    for turn in range(24):
        path = tmp_path / "again.duckdb"
        path.write_bytes(base)
        broken = bytearray(log[: chance.randrange(len(log))] if turn % 2 else log)
        if turn and not turn % 2:
            broken[chance.randrange(len(log))] ^= 1 << chance.randrange(8)
        Path(f"{path}.wal").write_bytes(broken)
        try:
            con = world.connect(path)
        except M6Error as error:
            refused.append(str(error))
            continue
        with con:
            rows = world.rows(con, "select event_id from m6.events where event_id like 'w%'")
        batches = {row[0].split("-")[0] for row in rows}
        assert len(rows) == 7 * len(batches)
        assert batches == {f"w{n}" for n in range(len(batches))}  # none is left out in the middle
        counts.append(len(batches))
    assert all(BACKUP in text for text in refused)
    assert counts[0] == 30
    assert len(set(counts)) > 2


def test_a_clock_that_goes_backwards_loses_nothing(shop):
    """Rows written after the clock was set back carry earlier times; they come later by number, and count."""
    ahead, behind = "2026-01-01 00:00:00", "2024-07-22 00:00:00"
    items = [row["item_id"] for row in world.recommend(shop, "u21", "exclude_seen := true")]

    def seen():
        return {item for (item,) in world.rows(shop, "select item_id from m6.history('u21', k := 1000)")}

    add = "insert into m6.events (user_id, item_id, event_type, happened_at) values ('u21', ?, 'view', ?)"
    react = "insert into m6.feedback (user_id, item_id, event_type, happened_at, ingested_at) "
    react += "values ('u21', ?, 'click', ?, ?)"
    shop.execute(add, [items[0], ahead])
    m6.build(shop)
    shop.execute(add, [items[1], behind])
    shop.execute(react, [items[2], behind, behind])
    assert set(items[:3]) <= seen()
    assert not set(items[:3]) & set(world.items_of(world.recommend(shop, "u21", "exclude_seen := true")))
    report = m6.build(shop)
    assert str(report.as_of) == ahead  # the data's clock does not go back
    assert set(items[:3]) <= seen()
    served = "insert into m6.impressions by name from m6.serve('u21', k := 3, request := ?, moment := ?)"
    for request, moment in (("later", ahead), ("earlier", behind)):
        shop.execute(served, [request, moment])
        shop.execute(
            "insert into m6.feedback (impression_id, event_type, happened_at, ingested_at) "
            "select impression_id, 'purchase', $2, $2 from m6.impressions where request_id = $1 || '-u21'",
            [request, moment],
        )
        m6.reweight(shop, parameters={"gate": False})
    rewards = world.rows(shop, "select count(*) from m6.impression_rewards where is_answered")
    assert rewards[0][0] >= 1
    assert not m6.reweight(shop, parameters={"gate": False})["changed"]
