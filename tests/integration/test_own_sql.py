"""A home for the user's own SQL: a strategy, a feature, an override, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import shop_world

import m6rec_udf as m6
from m6rec_udf import sql_strategies
from m6rec_udf.embed import HashEncoder
from m6rec_udf.errors import ModelSqlError, SchemaError

STRATEGY = """-- one row per (user, item): what the buyers like, the same three for everybody
select u.user_idx, i.item_idx, 3.0 - i.item_idx % 3 as raw_score
from candidate_users as u
cross join stg_items as i
where i.item_id in ('i70', 'i71', 'i73')"""
FEATURE = """-- one row per user: how many different brands
select e.user_idx, count(distinct i.brand) as brands
from stg_events as e
inner join stg_items as i on e.item_idx = i.item_idx
group by e.user_idx"""
SATISFACTION = """-- one row per behaviour: only five stars satisfy
select
    user_id,
    item_id,
    event_type,
    value,
    interest,
    case when event_type = 'rating' and value = 5 then 1.0 else 0.0 end as satisfaction,
    happened_at
from stg_behaviour"""


@pytest.fixture
def project(tmp_path) -> Path:
    m6.init(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def con(project, shop_frames):
    own = m6.connect(project / "warehouse" / "shop.duckdb", encoder=HashEncoder(32), project=project)
    few = shop_frames["events"].filter(pl.col("user_id") < "u20")
    m6.load(own, items=shop_frames["items"], users=shop_frames["users"].head(20), events=few)
    yield own
    own.close()


def write(project: Path, layer: str, name: str, sql: str) -> Path:
    path = project / "sql" / layer / f"{name}.sql"
    path.write_text(sql, encoding="utf-8")
    return path


def bit_of(con, strategy: str) -> int:
    return shop_world.rows(con, "select bit from m6.strategies where strategy = ?", [strategy])[0][0]


def test_a_strategy_is_a_file(con, project):
    path = write(project, "strategies", "cand_buyers", STRATEGY)
    m6.build(con)
    bit = bit_of(con, "buyers")
    assert bit == 11
    assert shop_world.rows(con, "select description from m6.strategies where strategy = 'buyers'")[0][0].startswith(
        "one row per (user, item): what"
    )
    assert shop_world.rows(con, "select layer, path from m6.lineage where model = 'cand_buyers'") == [
        ("strategies", str(path))
    ]
    assert shop_world.rows(con, "select reads from m6.lineage where model = 'cand_buyers'") == [("stg_items",)]
    supporters = dict(
        shop_world.rows(
            con,
            "with scored as (select unnest("
            "m6_scored(1, segment, history, e.proposals, null, null, null, true, 10, null)) as c from "
            "m6.user_history(['u00']) as h left join "
            "(select user_id, list(struct_pack(item_id := item_id, bit := bit)) as proposals "
            "from m6.extra_candidates group by user_id) as e on h.user_id = e.user_id) "
            "select c.item_id, (c.supporters >> ?) & 1 from scored",
            [bit],
        )
    )
    seen = {item for (item,) in shop_world.rows(con, "select item_id from m6.history('u00', k := 1000)")}
    assert {item for item, backed in supporters.items() if backed} == {"i70", "i71", "i73"} - seen


def test_a_strategy_is_served_and_logged_with_its_bit(con, project):
    write(project, "strategies", "cand_buyers", STRATEGY)
    m6.build(con)
    bit = bit_of(con, "buyers")
    con.execute("update m6.strategy_weights set weight = case when strategy = 'buyers' then 0.9 else 0.01 end")
    for user in ("u00", "u13"):
        seen = {item for (item,) in shop_world.rows(con, "select item_id from m6.history(?, k := 1000)", [user])}
        mine = {"i70", "i71", "i73"} - seen
        listed = shop_world.recommend(con, user)
        assert mine <= {row["item_id"] for row in listed if row["strategy"] in ("buyers", "blended")}
        assert listed[0]["strategy"] == "buyers"
        served = shop_world.rows(
            con, "select item_id, supporters, eligible from m6.serve(?, seed := 4) where strategy = 'buyers'", [user]
        )
        assert served
        assert all(
            item in mine and supporters >> bit & 1 and eligible >> bit & 1 for item, supporters, eligible in served
        )


def test_a_feature_is_a_file(con, project):
    write(project, "features", "feat_user_brands", FEATURE)
    m6.build(con)
    assert shop_world.rows(con, "select min(brands) >= 1 and max(brands) <= 6, count(*) from m6.feat_user_brands") == [
        (True, 20)
    ]
    assert shop_world.rows(con, "select comment from duckdb_tables() where table_name = 'feat_user_brands'") == [
        ("one row per user: how many different brands",)
    ]
    reads = shop_world.rows(con, "select reads from m6.lineage where model = 'feat_user_brands' order by 1")
    assert reads == [("stg_events",), ("stg_items",)]
    events = con.sql("select user_id, item_id, event_type, happened_at from m6.events").pl()
    over_frames = m6.features(
        con, "feat_user_brands", events=events.lazy(), items=con.sql("select item_id, brand from m6.items").pl()
    ).pl()
    assert over_frames.sort("user_idx").equals(con.sql("from m6.feat_user_brands").pl().sort("user_idx"))


def test_a_satisfaction_function_is_a_file(con, project):
    write(project, "satisfaction", "sat_five_stars", SATISFACTION)
    m6.build(con, satisfaction="five_stars")
    got = dict(shop_world.rows(con, "select event_type, max(satisfaction) from m6.behaviour group by 1"))
    assert got == {"view": 0, "purchase": 0, "rating": 1}
    counted = "select count(*), min(age_days) from m6.stg_events"
    events = shop_world.rows(con, "select count(*) from m6.events")[0][0]
    assert shop_world.rows(con, counted) == [(events, 0.0)], (
        "staged at the moment of the build, not at one it looked back to"
    )
    assert shop_world.rows(con, "select json_extract_string(parameters, '$.satisfaction') from m6.models") == [
        ("five_stars",)
    ]


def test_an_override_of_a_shipped_feature_takes_its_place(con, project):
    shipped = (Path(m6.__file__).parents[1] / "sql" / "features" / "feat_segment_item.sql").read_text(encoding="utf-8")
    path = write(project, "features", "feat_segment_item", shipped.replace("0.03 *", "1000.0 *"))
    m6.build(con)
    counts = (
        "select segment, item_idx, count(*) as n from m6.stg_events as e join m6.stg_users as u using (user_idx) "
        "where interest > 0 group by all"
    )
    worst = shop_world.rows(
        con, f"select max(abs(trend / n - 1)) from m6.feat_segment_item join ({counts}) using (segment, item_idx)"
    )[0][0]
    assert worst < 0.01, "with an endless half-life the trend is a count"
    assert shop_world.rows(con, "select distinct path from m6.lineage where model = 'feat_segment_item'") == [
        (str(path),)
    ]


def test_an_override_of_a_shipped_strategy_takes_its_place(con, project):
    """Not beside it: what the shipped one would propose in memory is no longer proposed under its name."""
    write(project, "strategies", "cand_trending", STRATEGY)
    m6.build(con)
    bit = bit_of(con, "trending")
    assert bit == 10
    con.execute("update m6.strategy_weights set weight = case when strategy = 'trending' then 1.0 else 0.0 end")
    seen = {item for (item,) in shop_world.rows(con, "select item_id from m6.history('u03', k := 1000)")}
    served = shop_world.rows(con, "select item_id, supporters from m6.serve('u03', k := 10, exclude_seen := true)")
    assert {item for item, supporters in served if supporters > 0} == {"i70", "i71", "i73"} - seen
    assert len(served) == 10


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ("u.user_idx, i.item_idx", "user_idx, item_idx"),
        ("u.user_idx, i.item_idx, 1.0 as score", "user_idx, item_idx, score"),
        ("u.user_idx, i.item_idx, 1.0 as raw_score, 2 as more", "user_idx, item_idx, raw_score, more"),
    ],
)
def test_wrong_columns_are_named_and_the_old_version_stays(con, project, columns, named):
    m6.build(con)
    before = shop_world.state(con)
    write(
        project,
        "strategies",
        "cand_wrong",
        f"-- wrong\nselect {columns} from candidate_users as u cross join stg_items as i",
    )
    with pytest.raises(
        SchemaError, match=f"cand_wrong .*has the columns {named}, expected user_idx, item_idx, raw_score"
    ):
        m6.build(con)
    assert shop_world.state(con) == before


@pytest.mark.parametrize(
    ("layer", "name", "sql", "message"),
    [
        (
            "strategies",
            "cand_broken",
            "-- broken\nselect user_idx, item_idx, no_such as raw_score from feat_user_item",
            "no_such",
        ),
        ("features", "feat_broken", "-- broken\nselect * from no_such_table", "no_such_table"),
        ("features", "feat_user_item", "-- broken\nselect 1 as user_idx where", "syntax error"),
    ],
)
def test_a_failing_model_is_named_with_its_sql_and_the_old_version_stays(con, project, layer, name, sql, message):
    m6.build(con)
    before = shop_world.state(con)
    tables = shop_world.rows(
        con, "select table_name, estimated_size from duckdb_tables() where schema_name = 'm6' order by 1"
    )
    path = write(project, layer, name, sql)
    with pytest.raises(ModelSqlError, match=f"(?s){name} .*{path.name}.*{message}.*--- SQL ---.*broken.*Hint"):
        m6.build(con)
    assert shop_world.state(con) == before
    after = shop_world.rows(
        con, "select table_name, estimated_size from duckdb_tables() where schema_name = 'm6' order by 1"
    )
    assert after == tables
    path.unlink()
    assert m6.build(con).model_version == 2


def test_a_file_name_that_is_no_identifier_is_refused(con, project):
    write(project, "features", "feat-user items", FEATURE)
    with pytest.raises(SchemaError, match="feat-user items"):
        m6.build(con)


def test_models_that_read_each_other_are_refused(con, project):
    write(project, "features", "feat_one", "-- a\nselect * from feat_two")
    write(project, "features", "feat_two", "-- b\nselect * from feat_one")
    with pytest.raises(SchemaError, match="read each other in a circle"):
        m6.build(con)


def test_a_strategy_taken_away_proposes_nothing_and_keeps_its_bit(con, project):
    path = write(project, "strategies", "cand_buyers", STRATEGY)
    m6.build(con)
    path.unlink()
    m6.build(con)
    assert bit_of(con, "buyers") == 11
    assert shop_world.rows(con, "select count(*) from m6.extra_candidates where model_version = 2") == [(0,)]
    assert len(shop_world.recommend(con, "u00")) == 10
    assert shop_world.rows(con, "select count(*) from m6.lineage where model = 'cand_buyers'") == [(0,)]


CLOCK = """-- one row per (user, item): fails when $as_of is not the moment the tables were made for
select
    u.user_idx,
    i.item_idx,
    case
        when e.age_days > 0.01 + date_diff('second', e.happened_at, $as_of) / 86400.0
            or e.age_days < date_diff('second', e.happened_at, $as_of) / 86400.0 - 0.01
            then error('another moment')
        else 1.0
    end as raw_score
from candidate_users as u
cross join stg_items as i
cross join (select happened_at, age_days from stg_events order by happened_at desc limit 1) as e
where i.item_id = 'i70'"""


def test_own_strategies_see_the_moment_they_are_asked_about(con, project):
    """$as_of of a training moment is that moment, never the end of the data."""
    write(project, "strategies", "cand_clock", CLOCK)
    m6.build(con)


def test_own_strategies_read_what_python_learned_at_that_moment(con, project):
    """An override of a strategy over the item models: item_neighbours, item_factors, item_trend, item_text_vectors."""
    shipped = Path(m6.__file__).parents[1] / "sql" / "strategies"
    for name in ("cand_item_item", "cand_semantic", "cand_matrix_factorization"):
        write(project, "strategies", f"{name}_again", (shipped / f"{name}.sql").read_text(encoding="utf-8"))
    m6.build(con)
    found = shop_world.rows(
        con, "select strategy, count(*) from m6.extra_candidates join m6.strategies using (bit) group by 1 order by 1"
    )
    assert [name for name, _ in found] == ["item_item_again", "matrix_factorization_again", "semantic_again"]
    assert all(count > 100 for _, count in found)


def test_what_a_user_knows_does_not_crowd_out_the_rest(con, project, monkeypatch):
    """The best proposals of each domain are counted after the items seen already are left out."""
    monkeypatch.setattr(sql_strategies, "EXTRA_PER_USER", 33)
    write(
        project,
        "strategies",
        "cand_known_first",
        """-- one row per (user, item): what the user knows first, then everything else
select u.user_idx, i.item_idx, cast(case when h.item_idx is null then 1.0 else 2.0 end as double) as raw_score
from candidate_users as u
cross join stg_items as i
left join feat_user_item as h on u.user_idx = h.user_idx and i.item_idx = h.item_idx""",
    )
    m6.build(con)
    seen = (
        "select u.user_id, i.domain, count(*) as seen from m6.feat_user_item as h inner join m6.stg_users as u "
        "using (user_idx) inner join m6.stg_items as i using (item_idx) group by all"
    )
    sql = (
        "select e.user_id, i.domain, count(*), coalesce(any_value(s.seen), 0) from m6.extra_candidates as e "
        f"inner join m6.items as i using (item_id) left join ({seen}) as s using (user_id, domain) group by all"
    )
    found = shop_world.rows(con, sql)
    assert len(found) == 40  # twenty users, two domains
    for _, _, proposed, known in found:
        assert proposed == min(33, 40 - known)
    assert len({proposed for _, _, proposed, _ in found}) > 1


def test_polars_is_all_it_takes_to_read_them(con, project):
    write(project, "features", "feat_user_brands", FEATURE)
    m6.build(con)
    assert isinstance(con.sql("from m6.feat_user_brands").pl(), pl.DataFrame)
