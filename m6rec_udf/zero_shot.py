"""Zero-shot ranking: items in the order a language model finds likely for somebody, without any behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from m6rec_udf.errors import ParameterError
from m6rec_udf.language_model import PACKAGED, ModelLike, as_model

if TYPE_CHECKING:
    import duckdb
    import polars as pl

POOL = 100
LIKED = "A person who liked {liked} also likes"
ANYBODY = "A person likes"


def rank_by_likelihood(
    con: duckdb.DuckDBPyConnection,
    liked: str | Sequence[str],
    *,
    k: int = 10,
    pool: int = POOL,
    in_domain: str | None = None,
    among: str = "m6.available_items",
    model: ModelLike = PACKAGED,
    compared: bool = False,
) -> pl.DataFrame:
    """Items in the order of how likely a causal language model finds them after "A person who liked X also likes".

    The zero-shot method of M6-Rec (arXiv 2205.08084) over candidates that the encoder finds: the ``pool`` items
    nearest to what was liked are ranked by the mean log-probability per token of their titles. Needs the extra
    ``[generate]``, a catalogue that was built, and no behaviour.

    Args:
        con: a dressed connection.
        liked: what the person likes, in words, or titles.
        k: number of items.
        pool: candidates the model reads; time grows with it.
        in_domain, among: as in ``m6.recommend_for_text``.
        model: see ``LanguageModel``; or an object with ``complete`` and ``log_likelihood``.
        compared: subtract the log-probability after "A person likes", so that what is likely for anybody does not come
            first: the domain-conditional PMI of Holtzman and others (EMNLP 2021). Worse with the small model on the
            validation slice of MovieLens, hence not the default.

    Returns:
        item_id, title, rank (from 1), score (nats per token), similarity (cosine of the encoder). Titles that were
        said to be liked are left out.

    Raises:
        ParameterError: nothing is liked, or ``pool`` is below ``k``.
        MissingExtraError: the extra is not installed.
    """
    import polars as pl

    titles = [liked] if isinstance(liked, str) else list(liked)
    text = ", ".join(title.strip() for title in titles if title.strip())
    if not text:
        raise ParameterError("got nothing that is liked, expected a text or titles")
    if pool < k:
        raise ParameterError(f"got a pool of {pool} and k = {k}, expected a pool of at least k items")
    reader = as_model(model)
    found: pl.DataFrame = con.sql(
        "select item_id, title, score as similarity from m6.recommend_for_text($text, k := $k, in_domain := $domain, "
        "among := $among) where title is not null order by rank",
        params={"text": text, "k": pool + len(titles), "domain": in_domain, "among": among},
    ).pl()
    found = found.filter(~pl.col("title").is_in(titles)).head(pool)
    names = found["title"].to_list()
    score = reader.log_likelihood(LIKED.format(liked=text), names)
    if compared and names:
        score = score - reader.log_likelihood(ANYBODY, names)
    ranked = found.with_columns(score=pl.Series(score, dtype=pl.Float64).round(4))
    ranked = ranked.sort(["score", "item_id"], descending=[True, False]).head(k).with_row_index("rank", offset=1)
    return ranked.select("item_id", "title", pl.col("rank").cast(pl.Int64), "score", "similarity")
