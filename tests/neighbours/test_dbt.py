"""A small real dbt project, run by dbt itself: its models select from m6.recommend, its tests look at what came out."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import shop_world

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("M6REC_DBT_PYTHON", sys.executable)  # dbt may live in an environment of its own
HAS_DBT = sys.executable != PYTHON or (find_spec("dbt") is not None and find_spec("dbt.adapters.duckdb") is not None)
pytestmark = pytest.mark.skipif(not HAS_DBT, reason="dbt-duckdb is not installed: pip install -e '.[dbt]'")

PROFILE = """
shop:
  target: dev
  outputs:
    dev:
      type: duckdb
      path: {path}
      threads: 2
      plugins:
        - module: m6rec_udf.dbt_plugin
          config: {{encoder: static}}
"""
PROJECT = "name: shop\nprofile: shop\nversion: '1.0'\nmodel-paths: [models]\nmodels: {shop: {+materialized: table}}\n"
MODELS = {
    "in_stock.sql": "{{ config(materialized='view') }}\nselect item_id from m6.items where price < 20",
    "vip_users.sql": "select user_id from m6.users where segment = 'loyal'",
    "vip_lists.sql": (
        "-- depends_on: {{ ref('in_stock') }}\n"
        "select * from m6.recommend_many('{{ ref(\"vip_users\").identifier }}', k := 5, among := 'in_stock')"
    ),
    "one_list.sql": "select r.*, i.title from m6.recommend('u00', k := 3) as r join m6.items as i using (item_id)",
    "schema.yml": (
        "models:\n  - name: vip_lists\n    columns:\n"
        "      - {name: item_id, data_tests: [not_null]}\n      - {name: user_id, data_tests: [not_null]}\n"
    ),
}


def dbt(folder, *call):
    quiet = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}
    program = "from dbt.cli.main import cli; cli()"
    return subprocess.run(
        [PYTHON, "-c", program, *call, "--project-dir", str(folder), "--profiles-dir", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **quiet},
        check=False,
        cwd=folder,
        timeout=300,
    )


@pytest.fixture
def project(shop_file, tmp_path):
    folder = tmp_path / "dbt"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "profiles.yml").write_text(PROFILE.format(path=shop_file))
    for name, text in MODELS.items():
        (folder / "models" / name).write_text(text)
    return folder


def test_models_select_from_m6_and_are_tested_by_dbt(project, shop_file):
    done = dbt(project, "build")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR=0" in done.stdout
    con = shop_world.connect(shop_file)
    loyal = shop_world.rows(con, "select user_id from m6.users where segment = 'loyal' order by 1")
    assert shop_world.rows(con, "select distinct user_id from vip_lists order by 1") == loyal
    assert shop_world.rows(con, "select count(*), max(price) < 20 from vip_lists join m6.items using (item_id)") == [
        (5 * len(loyal), True)
    ]
    alone = [row["item_id"] for row in shop_world.recommend(con, "u00", "k := 3")]
    assert [row[0] for row in shop_world.rows(con, "select item_id from one_list order by rank")] == alone
    con.close()


def test_a_wrong_option_is_refused_with_its_name(project):
    profile = project / "profiles.yml"
    profile.write_text(profile.read_text().replace("encoder: static", "encodr: static"))
    done = dbt(project, "build")
    assert done.returncode != 0
    assert "no option 'encodr'" in done.stdout + done.stderr
