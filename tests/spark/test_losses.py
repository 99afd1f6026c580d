"""What sqlglot's translation alone loses, run on Spark: the reason of every step of m6rec_udf/spark/dialect.py."""

from __future__ import annotations

import duckdb
import pytest
import sqlglot

from m6rec_udf.models import Model
from m6rec_udf.spark.dialect import spark_sql
from m6rec_udf.spark.engine import isolated

QUESTIONS = {
    "decimals": "select cast(7 as bigint) / 86400.0 as answer",
    "seconds begun": "select date_diff('second', timestamp '2024-03-31 00:59:59.9', timestamp '2024-03-31 03:00:00.1') "
    "as answer",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_translation_alone_is_wrong_and_ours_is_right(name, session):
    sql = QUESTIONS[name]
    own = isolated(session)
    wanted = float(duckdb.connect().execute(sql).fetchall()[0][0])
    alone = float(own.sql(sqlglot.transpile(sql, read="duckdb", write="spark")[0]).collect()[0][0])
    ours = float(own.sql(spark_sql(Model("q", "features", sql, "none"), {})).collect()[0][0])
    assert abs(alone / wanted - 1) > 1e-9, "the step is needed no more"
    assert ours == pytest.approx(wanted, rel=1e-12)


def test_the_zone_of_the_callers_session_changes_nothing(session):
    """A night with a clock set forward: the build's own session counts in UTC."""
    session.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    try:
        sql = "select date_diff('second', timestamp '2024-03-31 01:00:00', timestamp '2024-03-31 04:00:00') as answer"
        found = isolated(session).sql(spark_sql(Model("q", "features", sql, "none"), {})).collect()[0][0]
    finally:
        session.conf.unset("spark.sql.session.timeZone")
    assert found == 3 * 3600
