"""Which user vector finds what people like next? Three of them, as pure retrieval, beside popular, on MovieLens.

    python benchmarks/user_vectors/run.py
    python benchmarks/user_vectors/run.py --test-share 0.3

history         m6_user_vector over the text vectors of the user's films, weighted by interest and age: cand_semantic
behaviour text  the embedding of m6.behavior_text as of the split: what m6.recommend_by_behavior_text searches with
terms           cosine of the user's TF-IDF terms (feat_user_terms) with the film's; "terms, popular first" breaks its
                many ties by the number of ratings instead of by film

No ranking model, no mixing, no trend: nearest films the user has not rated, in the order of the score. Needs the extra
``demo``; embedding the 9,000 films takes minutes the first time, and none with ``--database`` the second time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

import m6rec_udf as m6
from m6rec_udf import datasets, models, moment, resources
from m6rec_udf.embed import embed_texts
from m6rec_udf.registry import context_of

BEST = """
select user_id, item_id, row_number() over (partition by user_id order by score desc, tie_break desc, item_id) as rank
from scored
qualify rank <= $k
"""
HISTORY = """
with scored as (
    select u.user_id, i.item_id, round(c.raw_score, 6) as score, 0 as tie_break
    from cand_semantic as c
    inner join stg_users as u on c.user_idx = u.user_idx
    inner join stg_items as i on c.item_idx = i.item_idx
)
"""
NEAR = """
with scored as (
    select w.user_id, i.item_id, round(list_inner_product(w.vector, v.vector), 6) as score, 0 as tie_break
    from user_texts as w
    cross join item_text_vectors as v
    inner join stg_items as i on v.item_idx = i.item_idx
    inner join stg_users as u on w.user_id = u.user_id
    anti join feat_user_item as h on u.user_idx = h.user_idx and v.item_idx = h.item_idx
    where i.created_at is null or i.created_at <= $as_of
)
"""
TERMS = """
with labels as (
    select item_idx, unnest(string_split(category, '|')) as term from stg_items where category is not null
    union
    select item_idx, unnest(tags) as term from stg_items where tags is not null
    union
    select item_idx, brand as term from stg_items where brand is not null
),
frequency as (
    select term, ln(1.0 + (select count(*) from stg_items) / count(*)) as weight from labels group by term
),
lengths as (
    select l.item_idx, sqrt(sum(f.weight * f.weight)) as length
    from labels as l inner join frequency as f on l.term = f.term
    group by l.item_idx
),
cosines as (
    select t.user_idx, l.item_idx, round(sum(t.tf_idf * f.weight / n.length), 6) as score
    from feat_user_terms as t
    inner join candidate_users as c on t.user_idx = c.user_idx
    inner join labels as l on t.term = l.term
    inner join frequency as f on l.term = f.term
    inner join lengths as n on l.item_idx = n.item_idx
    anti join feat_user_item as h on t.user_idx = h.user_idx and l.item_idx = h.item_idx
    group by t.user_idx, l.item_idx
),
scored as (
    select u.user_id, i.item_id, c.score, case when $popular_first then coalesce(a.events, 0) else 0 end as tie_break
    from cosines as c
    inner join stg_users as u on c.user_idx = u.user_idx
    inner join stg_items as i on c.item_idx = i.item_idx
    left join feat_item_activity as a on c.item_idx = a.item_idx
    where i.created_at is null or i.created_at <= $as_of
)
"""


class Retrieval:
    """The recommenders of the comparison; all read the feature models as of the split, run once per split."""

    def __init__(self) -> None:
        self.ran: datetime | None = None

    def _prepare(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any) -> None:
        con.register("asked", users)
        if self.ran != as_of:
            bound = moment.parameters(con, as_of, moment.positive_at(con, as_of)[0])
            self.models = models.with_satisfaction(models.collect(), "graded")
            self.bound = bound
            moment.run_models(con, self.models, bound)
            items = moment.catalogue(con)
            vectors, _ = embed_texts(con, context_of(con).encoder, [t or "" for t in items["texts"]])
            floats = pa.array(list(vectors), pa.list_(pa.float32()))
            con.register(
                "given", pa.table({"item_idx": pa.array(np.arange(len(vectors)), pa.int32()), "vector": floats})
            )
            con.execute("create or replace temp table item_text_vectors as from given")
            con.unregister("given")
            self.ran = as_of
        con.execute(
            "create or replace temp table candidate_users as "
            "select s.user_idx from stg_users as s inner join asked as a on s.user_id = a.user_id"
        )
        con.unregister("asked")

    def history(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        """The shipped strategy cand_semantic."""
        self._prepare(con, as_of, users)
        models.run(con, self.models["cand_semantic"], self.bound, temporary=True)
        return con.sql(HISTORY + BEST, params={"k": k}).to_arrow_table()

    def behaviour_text(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        """Nearest films to the embedded text of the behaviour up to ``as_of``."""
        self._prepare(con, as_of, users)
        text_as_of(con, as_of)
        known = con.execute("select distinct user_id from behaviour_then order by user_id").fetchall()
        ids = sorted({str(u) for u in users["user_id"].to_pylist()} & {row[0] for row in known})
        texts = [con.execute("select behavior_text_then(?)", [u]).fetchall()[0][0] for u in ids]
        vectors = context_of(con).encoder.encode(texts)
        con.register("given", pa.table({"user_id": ids, "vector": pa.array(list(vectors), pa.list_(pa.float32()))}))
        con.execute("create or replace temp table user_texts as from given")
        con.unregister("given")
        self.example = max(texts, key=len)
        return con.sql(NEAR + BEST, params={"k": k, "as_of": as_of}).to_arrow_table()

    def terms(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        """Cosine of TF-IDF terms."""
        return self._terms(con, as_of, users, k, popular_first=False)

    def terms_popular_first(self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int) -> Any:
        """The same, ties by popularity."""
        return self._terms(con, as_of, users, k, popular_first=True)

    def _terms(
        self, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Any, k: int, *, popular_first: bool
    ) -> Any:
        self._prepare(con, as_of, users)
        bound = {"k": k, "as_of": as_of, "popular_first": popular_first}
        return con.sql(TERMS + BEST, params=bound).to_arrow_table()


def text_as_of(con: duckdb.DuckDBPyConnection, as_of: datetime) -> None:
    """The shipped macro m6.behavior_text over behaviour up to a moment, as ``behavior_text_then``."""
    con.execute("create or replace temp table behaviour_then as from m6.behaviour where happened_at <= ?", [as_of])
    shipped = resources.read_sql("macros", "behavior_text").partition(";\ncomment on")[0]
    own = shipped.replace("macro m6.behavior_text", "temp macro behavior_text_then")
    con.execute(own.replace("m6.behaviour ", "behaviour_then "))


def show(figures: pl.DataFrame, k: int) -> None:
    """NDCG and recall side by side, then the paired differences to the history vector."""
    warm = figures.filter(pl.col("slice") == "warm").with_columns(
        method=pl.col("method").str.replace("m6rec", "history")
    )
    columns = [
        warm.filter(pl.col("metric") == f"{metric}@{k}").select(
            "method", **{metric: "value", f"{metric}_low": "low", f"{metric}_high": "high"}
        )
        for metric in ("ndcg", "recall")
    ]
    table = columns[0].join(columns[1], on="method").sort("ndcg", descending=True)
    is_difference = pl.col("method").str.contains(" - ", literal=True)
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        float_precision=4,
        tbl_width_chars=160,
    ):
        print(f"\nwarm: {warm.item(0, 'n'):,} users, k = {k}")
        print(table.filter(~is_difference))
        print("paired differences (same users)")
        print(table.filter(is_difference))


def main() -> None:
    """Load, embed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="DuckDB file to work in, which keeps the vectors (default: thrown away)")
    parser.add_argument("--encoder", help="text encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--test-share", type=float, default=0.1, help="share of the events after the split")
    parser.add_argument("--k", type=int, default=10)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        con = m6.connect(arguments.database or Path(folder) / "bench.duckdb", encoder=arguments.encoder)
        if not con.execute("select 1 from m6.events limit 1").fetchall():
            frames: dict[str, Any] = datasets.movielens()
            print(m6.load(con, **frames))
        own = Retrieval()
        peers = {
            "behaviour text": own.behaviour_text,
            "terms": own.terms,
            "terms, popular first": own.terms_popular_first,
        }
        begin = time.perf_counter()
        figures = m6.evaluate(
            con,
            recommender=own.history,
            peers=peers,
            methods=["popular"],
            test_share=arguments.test_share,
            k=arguments.k,
        ).pl()
        print(f"split at {own.ran}, encoder {context_of(con).encoder.name}, {time.perf_counter() - begin:.1f} s")
        print(f"one behaviour text: {own.example[:300]} ...")
        show(figures, arguments.k)
        con.close()


if __name__ == "__main__":
    main()
