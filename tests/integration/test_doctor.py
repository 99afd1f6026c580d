"""doctor: each thing that can be wrong is found, and a healthy database has no finding."""

from __future__ import annotations

import datetime as dt
import hashlib

import duckdb
import pytest

from m6rec_udf import connection, resources
from m6rec_udf.doctor import FAIL, OK, WARN, Check, _run, doctor, findings, load_checks
from m6rec_udf.publish import compact

NOW = dt.datetime(2024, 6, 1)
HEALTHY = """
insert into m6.items (item_id, title) values ('i1', 'One'), ('i2', 'Two');
insert into m6.events (user_id, item_id, event_type, happened_at) values
    ('u1', 'i1', 'view', '2024-01-01'), ('u1', 'i2', 'view', '2024-01-02'), ('u2', 'i1', 'view', '2024-01-01');
insert into m6.strategies (strategy, bit) values ('popular', 0), ('fresh', 1);
insert into m6.policy_versions (policy_version, status) values (1, 'active');
insert into m6.strategy_weights (policy_version, strategy, weight) values (1, 'popular', 0.7), (1, 'fresh', 0.3);
insert into m6.models values
    (1, '2024-01-02', (select max(event_seq) from m6.events), 0, 'fake', 0, null, '2024-01-03');
update m6.active set model_version = 1, policy_version = 1;
insert into m6.load_batches (batch_id, table_name, given, loaded, rejected, already_there) values
    ('b', 'events', 3, 3, 0, 0);
"""
IMPRESSIONS = """
insert into m6.impressions (
    impression_id, request_id, user_id, item_id, rank, strategy, supporters, eligible, propensity,
    policy_version, shown_at
)
select 'r' || x, 'r' || x, 'u1', 'i1', 1, 'popular', {supporters}, 3, 0.5, 1, '2024-01-03' from range(100) as t(x);
"""
TWINS = """
insert into m6.events (user_id, item_id, event_type, happened_at)
select 'u' || x, 'i1', 'click', '2024-01-01' from range(10) as t(x);
insert into m6.feedback (user_id, item_id, event_type, happened_at)
select 'u' || x, 'i1', 'click', '2024-01-01' from range(10) as t(x);
"""
COMPANIONS = """
insert into m6.events (user_id, item_id, event_type, happened_at)
select 'u' || x, 'i1', unnest(['view', 'purchase']), '2024-01-01' from range(60) as t(x);
"""
DRIFT = """
insert into m6.impressions (
    impression_id, request_id, user_id, item_id, rank, strategy, supporters, eligible, propensity, satisfaction,
    policy_version, model_version, shown_at
)
select
    'r' || x, 'r' || x, 'u1', 'i1', 1, 'popular', 3, 3, 0.5, 0.5, 1, 1, timestamp '2024-01-03' + to_minutes(x)
from range(600) as t(x);
insert into m6.feedback (impression_id, event_type, happened_at)
select 'r' || x, 'purchase', timestamp '2024-01-03' + to_minutes(x + 1) from range(600) as t(x)
where x % 2 = 0 and x < 300 or x % 8 = 0;
"""


@pytest.fixture
def con():
    with duckdb.connect() as opened:
        connection.migrate(opened)
        opened.execute(HEALTHY)
        text = resources.read_sql("staging", "stg_items")
        opened.execute(
            "insert into m6.item_vectors select item_id, 'fake', sha256(item_text), [0.6, 0.8] "
            f"from (with stg_items as ({text}) from stg_items)",
            {"as_of": NOW},
        )
        artefact = b"bytes"
        digest = hashlib.sha256(artefact).hexdigest()
        opened.execute("insert into m6.artefact_names values (1, 'a', ?)", [digest])
        opened.execute("insert into m6.artefact_contents values (?, ?)", [digest, artefact])
        yield opened


def unusual(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return {row.check: row.status for row in findings(con, checked_at=NOW) if row.status != OK}


def test_a_healthy_database_has_no_finding(con):
    assert unusual(con) == {"functions": WARN}  # migrations alone: the Python functions are not registered
    assert {row.check for row in findings(con)} >= {"built", "encoder", "stale_vectors"}


@pytest.mark.parametrize(
    ("breakage", "check", "status"),
    [
        ("delete from m6.event_types where event_type = 'view'", "unknown_event_types", FAIL),
        ("insert into m6.items (item_id) values ('i3')", "items_without_text", WARN),
        ("insert into m6.items (item_id, title) values ('i3', 'Three')", "items_without_vector", WARN),
        ("delete from m6.items where item_id = 'i2'", "events_without_item", WARN),
        ("update m6.events set happened_at = '2030-01-01' where user_id = 'u2'", "future_events", FAIL),
        (
            "insert into m6.events (user_id, item_id, event_type, happened_at) "
            "values ('u3', 'i1', 'view', '2024-01-05')",
            "unbuilt_behaviour",
            WARN,
        ),
        ("delete from m6.strategy_weights where strategy = 'fresh'", "unused_strategies", WARN),
        ("update m6.strategy_weights set weight = 0.1 where strategy = 'fresh'", "weights_sum", FAIL),
        ("update m6.list_state set content = '[]' where name = 'strategies'", "list_state", FAIL),
        (IMPRESSIONS.format(supporters=1), "unused_strategies", WARN),
        (IMPRESSIONS.format(supporters=3), "impressions_without_feedback", WARN),
        (IMPRESSIONS.format(supporters=7), "propensity_range", FAIL),
        (
            "insert into m6.feedback (impression_id, event_type) values ('nowhere', 'click')",
            "feedback_without_impression",
            WARN,
        ),
        ("update m6.item_vectors set encoder = 'other' where item_id = 'i1'", "vector_encoder", FAIL),
        (
            "insert into m6.items (item_id, title) values ('i0', 'Zero'); "
            "insert into m6.item_vectors values ('i0', 'fake', 'h', [1.0])",
            "vector_dimension",
            FAIL,
        ),
        ("update m6.items set title = 'Uno' where item_id = 'i1'", "stale_vectors", WARN),
        ("insert into m6.rejected_rows values ('b', 'events', 1, 'no user_id', '{}')", "rejected_rows", WARN),
        ("update m6.load_batches set loaded = 2", "load_accounting", FAIL),
        ("update m6.events set happened_at = '2024-01-01'", "timestamp_ties", WARN),
        ("update m6.artefact_contents set content = 'broken'::blob", "artefact_hash", FAIL),
        ("insert into m6.audit (action, done_at) values ('forget_user', '2024-02-01')", "forgotten_since_build", WARN),
        ("update m6.active set model_version = null", "built", FAIL),
        (TWINS, "leakage", WARN),
        (COMPANIONS, "leakage", WARN),
        (
            IMPRESSIONS.format(supporters=3)
            + "insert into m6.feedback (impression_id, event_type, happened_at) values ('r1', 'click', '2024-01-02')",
            "feedback_before_impression",
            FAIL,
        ),
        (DRIFT, "calibration_drift", WARN),
    ],
)
def test_each_breakage_is_found_with_a_remedy(con, breakage, check, status):
    con.execute(breakage)
    assert unusual(con).get(check) == status
    (finding,) = [row for row in findings(con, checked_at=NOW) if row.check == check]
    assert finding.remedy
    assert finding.found


def test_answered_impressions_are_no_finding(con):
    con.execute(IMPRESSIONS.format(supporters=3))
    con.execute("insert into m6.feedback (request_id, item_id, event_type) values ('r5', 'i1', 'click')")
    assert "impressions_without_feedback" not in unusual(con)


def test_doctor_is_a_relation_with_the_worst_first(con):
    con.execute("delete from m6.event_types where event_type = 'view'")
    relation = doctor(con)
    assert relation.columns == ["check", "status", "found", "remedy"]
    rows = relation.fetchall()
    assert rows[0][:2] == ("unknown_event_types", FAIL)
    assert "(event_type view)" in rows[0][2]
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), key=[FAIL, WARN, OK].index)


def test_an_empty_or_foreign_database_says_what_to_do_first():
    with duckdb.connect() as con:
        (row,) = findings(con)
        assert (row.check, row.status) == ("installed", FAIL)
        connection.migrate(con)
        built = next(row for row in findings(con) if row.check == "built")
        assert built.status == FAIL
        assert "m6rec load" in built.remedy


def test_every_shipped_check_says_what_it_means_and_what_to_do():
    checks = load_checks()
    assert len(checks) >= 15
    for check in checks:
        assert check.meaning.startswith("one row"), check.name
        assert check.sql.splitlines()[1].startswith("-- remedy ("), check.name


def test_a_check_that_cannot_run_is_a_finding_not_an_exception(con):
    lost = Check("lost", "one row per x: y", FAIL, "do", "select * from m6.nowhere")
    assert _run(con, lost, {}).status == WARN
    assert "parameter" in _run(con, Check("b", "one row", FAIL, "do", "select $positive_at as a"), {}).found


def test_steady_calibration_is_no_finding(con):
    con.execute(DRIFT.replace("and x < 300 or x % 8 = 0", ""))
    assert "calibration_drift" not in unusual(con)


def test_a_file_of_free_blocks_is_fragmented_until_it_is_compacted(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as opened:
        connection.migrate(opened)
        opened.execute("create table m6.large as select hash(x) as a, hash(x + 1) as b from range(2000000) as t(x)")
        opened.execute("checkpoint")
        assert unusual(opened).get("fragmented_file") is None
        opened.execute("drop table m6.large")
        opened.execute("checkpoint")
        assert unusual(opened)["fragmented_file"] == WARN
    compact(path)
    with duckdb.connect(str(path)) as opened:
        assert unusual(opened).get("fragmented_file") is None


def test_a_file_that_others_may_read_is_found(tmp_path):
    tmp_path.chmod(0o755)
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as opened:
        connection.migrate(opened)
        path.chmod(0o644)
        assert unusual(opened)["readable_by_others"] == WARN
        tmp_path.chmod(0o700)
        assert unusual(opened).get("readable_by_others") is None
