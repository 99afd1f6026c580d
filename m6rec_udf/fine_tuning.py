"""A contrastive fine-tune of the text encoder from behaviour, by sentence-transformers' trainer: extra ``[train]``."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.embed import SentenceEncoder, as_encoder
from m6rec_udf.errors import MissingExtraError, NotBuiltError, ParameterError
from m6rec_udf.query import one
from m6rec_udf.registry import context_of
from m6rec_udf.text_map import LEAST_USERS

if TYPE_CHECKING:
    import duckdb

NEAR = 5  # neighbours of an item that it is paired with


def behaviour_pairs(con: duckdb.DuckDBPyConnection, *, pairs: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of items that people like together: neighbours by the item-item weights of the build in force.

    Each item with at least 3 users is paired with its 5 strongest neighbours; ``pairs`` of these are drawn. Pairs of
    equal texts teach nothing and are left out.

    Raises:
        NotBuiltError: there is no build.
    """
    from m6rec_udf.arrays import of_version

    version = one(con, "select model_version from m6.active")[0]
    if version is None:
        raise NotBuiltError("there is no build to take pairs from", "run m6rec_udf.build(con)")
    snapshot = of_version(context_of(con), version)
    rows = con.execute("select item_id, item_text from m6.stg_items").fetchall()
    text_of = {item: (text or "").strip() for item, text in rows}
    texts = [text_of.get(item, "") for item in snapshot.item_ids]
    weights = snapshot.item_item.tocsr()
    found = []
    for item in np.flatnonzero(snapshot.learned_users >= LEAST_USERS):
        a, b = weights.indptr[item : item + 2]
        is_near = weights.data[a:b] > 0
        near, value = weights.indices[a:b][is_near], weights.data[a:b][is_near]
        best = near[np.lexsort((near, -np.round(value, 6)))][: NEAR + 1]
        found += [
            (texts[item], texts[other])
            for other in best.tolist()
            if other != item
            and snapshot.learned_users[other] >= LEAST_USERS
            and texts[item]
            and texts[other]
            and texts[item] != texts[other]
        ]
    found = sorted(set(found))
    order = np.random.default_rng(seed).permutation(len(found))[:pairs]
    return [found[at] for at in order.tolist()]


def fine_tune(
    con: duckdb.DuckDBPyConnection,
    path: str | Path,
    *,
    pairs: int = 3000,
    epochs: int = 1,
    batch: int = 32,
    learning_rate: float = 2e-5,
    seed: int = 0,
) -> Path:
    """Train the connection's encoder on pairs of items that people like together, and save it as a folder.

    Multiple negatives ranking: of a batch, a text's partner shall be the nearest (Henderson and others, "Efficient
    Natural Language Response Suggestion for Smart Reply", 2017). On the CPU: a minute or more for a thousand pairs.

    Args:
        con: a dressed connection with a build, whose encoder is a sentence-transformers model.
        path: folder to write; use it as ``connect(..., encoder=path)``.
        pairs, epochs, batch, learning_rate: of the training.
        seed: of the drawing and of the training.

    Returns:
        The folder.

    Raises:
        MissingExtraError: accelerate or datasets is not installed.
        ParameterError: the encoder is no sentence-transformers model, or there are too few pairs for a batch.
    """
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise MissingExtraError(
                f"the package {package} is not installed, expected it to train", "pip install 'm6rec[train]'"
            )
    encoder = context_of(con).encoder
    if not isinstance(encoder, SentenceEncoder):
        raise ParameterError(
            f"the encoder {encoder.name!r} is no sentence-transformers model, expected one that can be trained",
            "connect with a model name or path",
        )
    found = behaviour_pairs(con, pairs=pairs, seed=seed)
    if len(found) < batch:
        raise ParameterError(f"there are {len(found)} pairs to learn from, expected at least one batch of {batch}")
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    fresh = as_encoder(encoder.name)  # the connection keeps the encoder as it is
    assert isinstance(fresh, SentenceEncoder)
    model = fresh.model()
    data = Dataset.from_dict({"anchor": [a for a, _ in found], "positive": [b for _, b in found]})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch,
            learning_rate=learning_rate,
            warmup_steps=max(1, len(found) // batch // 10),
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    model.save_pretrained(str(path))
    return Path(path)
