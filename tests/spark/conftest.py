"""A local Spark session for these tests; skipped with the reason where pyspark, sqlglot or Java is missing."""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from m6rec_udf import spark
from m6rec_udf.errors import MissingExtraError


@pytest.fixture(scope="session")
def session(tmp_path_factory):
    try:
        spark.require()
    except MissingExtraError as error:
        pytest.skip(str(error))
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # the workers are those of this environment
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = (
            SparkSession.builder.master("local[2]")
            .appName("m6rec tests")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.driver.memory", "2g")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "4")
            .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
    yield found
    found.stop()
