"""One of RecBole's models in a process of its own: reads a log, trains, writes scores.

    recbole-env/bin/python benchmarks/quality/recbole_worker.py FOLDER

``recbole_peer.py`` starts it with the Python of an environment that has recbole; README.md says how that is made.

FOLDER/settings.json: ``model`` (SASRec or LightGCN), ``config`` (RecBole's parameters), ``seconds`` of processor
time (training ends then, in the middle of an epoch if need be), ``seed``, ``hides_known`` (known items are no answers).
FOLDER/log.npz: ``user`` and ``item``, one entry per event by user and then by time; ``asked``, the users to score;
``shape``, the numbers of users and items.
FOLDER/scores.npy: float32 ``[asked, items]``; minus infinity where the model knows the user or the item not.

Model, loss, negative samples and scores are RecBole's. The loop over the batches is written out here, so that it can
stop at the second and rank held-out items as these benchmarks do: the last item of at most 1,000 users is left out of
training, and the epoch that ranked these best is kept.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.sampler import Sampler
from recbole.utils import get_model, init_seed

HELD_OUT = 1000  # users
PATIENCE = 50  # epochs without gain; graph models stay on the level of popularity for a while
LONGEST = 50  # items of a sequence
BUCKET = 32  # batches whose sequences are put together by length: short ones cost less
BLOCK = 256
K = 10


def held_out(user: np.ndarray, item: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of the last events of some users with at least three; no item loses all its events."""
    _, last, count = np.unique(user[::-1], return_index=True, return_counts=True)
    last = len(user) - 1 - last[count >= 3]
    is_kept = np.bincount(item) > np.bincount(item[last], minlength=item.max() + 1)
    last = last[is_kept[item[last]]]
    return np.sort(rng.permutation(last)[: min(HELD_OUT, len(last) // 2)])


class Trainee:
    """A model of RecBole and what it trains on.

    Attributes:
        user, item: the events in RecBole's numbers, by user and then by time.
        item_numbers: RecBole's number of each item of the log, 0 where it has none.
    """

    def __init__(self, settings: dict[str, Any], folder: Path, user: np.ndarray, item: np.ndarray, shape: Any) -> None:
        self.is_sequential = settings["model"] == "SASRec"
        self.rng = np.random.default_rng(settings["seed"])
        self.config = _config(settings, folder)
        init_seed(settings["seed"], True)
        data = _data(self.config, folder, user, item)
        self.user_numbers, self.item_numbers = _numbers(data, "user_id", shape[0]), _numbers(data, "item_id", shape[1])
        self.user, self.item = user, self.item_numbers[item]
        self.n_items = data.item_num
        self.model = get_model(settings["model"])(self.config, data)
        self.begin = np.searchsorted(user, np.arange(shape[0]))
        self.targets = np.flatnonzero(np.arange(len(user)) > self.begin[user])
        if not self.is_sequential:
            sampler = Sampler(["train"], [data]).set_phase("train")
            self.loader = TrainDataLoader(self.config, data, sampler, shuffle=True)

    def batches(self) -> Iterator[Interaction]:
        """The batches of one epoch: pairs with negatives of RecBole's, or every event after what came before it."""
        if not self.is_sequential:
            yield from self.loader
            return
        size = self.config["train_batch_size"]
        order = self.rng.permutation(self.targets)
        for start in range(0, len(order), size * BUCKET):
            near = order[start : start + size * BUCKET]
            near = near[np.argsort(np.minimum(near - self.begin[self.user[near]], LONGEST), kind="stable")]
            for number in self.rng.permutation(-(-len(near) // size)):
                at = near[number * size : (number + 1) * size]
                asked = self.sequences(self.begin[self.user[at]], at)
                yield Interaction(asked | {"item_id": torch.from_numpy(self.item[at])})

    def sequences(self, begin: np.ndarray, end: np.ndarray) -> dict[str, torch.Tensor]:
        """The latest items of each stretch of events, filled up with 0 behind, as RecBole's datasets cut them."""
        length = np.minimum(end - begin, LONGEST)
        place = np.arange(length.max())  # nothing but padding is left out
        at = np.minimum((end - length)[:, None] + place, len(self.item) - 1)
        found = np.where(place < length[:, None], self.item[at], 0)
        return {"item_id_list": torch.from_numpy(found), "item_length": torch.from_numpy(length)}

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Scores of all items of the log for users with events, in the log's numbers."""
        self.model.eval()
        asked = {"user_id": torch.from_numpy(self.user_numbers[users])}
        if self.is_sequential:
            asked = self.sequences(self.begin[users], np.searchsorted(self.user, users, "right"))
        with torch.no_grad():
            found = self.model.full_sort_predict(Interaction(asked)).reshape(len(users), self.n_items).numpy()
        return np.where(self.item_numbers > 0, found[:, self.item_numbers], -np.inf).astype(np.float32)

    def weights(self) -> dict[str, Any]:
        """A copy of what was learned."""
        return copy.deepcopy(self.model.state_dict())

    def restore(self, weights: dict[str, Any]) -> None:
        """Take back what was learned before."""
        self.model.load_state_dict(weights)
        self.model.restore_user_e = self.model.restore_item_e = None  # what LightGCN keeps between questions


def _config(settings: dict[str, Any], folder: Path) -> Config:
    options = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder),
        "load_col": {"inter": ["user_id", "item_id"]},
        "MAX_ITEM_LIST_LENGTH": LONGEST,
        "use_gpu": False,
        "state": "ERROR",
        "show_progress": False,
        "seed": settings["seed"],
    }
    if settings["model"] == "SASRec":
        options["train_neg_sample_args"] = None  # cross-entropy over all items
    return Config(model=settings["model"], dataset="log", config_dict=options | settings["config"])


def _data(config: Config, folder: Path, user: np.ndarray, item: np.ndarray) -> Any:
    (folder / "log").mkdir()
    with (folder / "log" / "log.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\n")
        file.writelines(f"{u}\t{i}\n" for u, i in zip(user.tolist(), item.tolist(), strict=True))
    data = create_dataset(config)
    if config["model"] != "SASRec":  # its datasets would hold every window of every sequence in memory
        data._change_feat_format()
    return data


def _numbers(data: Any, field: str, count: int) -> np.ndarray:
    known = data.field2token_id[field]
    return np.array([known.get(str(number), 0) for number in range(count)])


def ndcg(trainee: Trainee, users: np.ndarray, items: np.ndarray, hides_known: bool) -> float:
    """NDCG@10 of one item per user among all items, without those trained on where known items are no answers."""
    gains = []
    for start in range(0, len(users), BLOCK):
        block, wanted = users[start : start + BLOCK], items[start : start + BLOCK]
        found = trainee.scores(block)
        row = np.arange(len(block))
        own = found[row, wanted]
        if hides_known:
            at = np.flatnonzero(np.isin(trainee.user, block))
            numbers = np.zeros(trainee.n_items, np.int64)
            numbers[trainee.item_numbers] = np.arange(len(trainee.item_numbers))
            found[np.searchsorted(block, trainee.user[at]), numbers[trainee.item[at]]] = -np.inf
        rank = (found > own[:, None]).sum(1)
        gains.append(np.where(rank < K, 1 / np.log2(rank + 2), 0.0))
    return float(np.concatenate(gains).mean()) if gains else 0.0


def train(trainee: Trainee, judge: Any, until: float) -> tuple[int, int, float]:
    """Epochs until nothing is gained any more or the time is over; the best is kept.

    Returns:
        epochs begun, the one kept (from 1), its NDCG.
    """
    optimizer = torch.optim.Adam(trainee.model.parameters(), lr=trainee.config["learning_rate"])
    best, kept, weights, epoch = -1.0, 0, trainee.weights(), 0
    while epoch - kept < PATIENCE and (epoch == 0 or time.process_time() < until):
        epoch += 1
        trainee.model.train()
        for batch in trainee.batches():
            optimizer.zero_grad()
            loss = trainee.model.calculate_loss(batch).sum()
            if not torch.isfinite(loss):
                raise ValueError(f"the loss is {loss.item()} in epoch {epoch}, expected a finite number")
            loss.backward()
            optimizer.step()
            if time.process_time() >= until:
                break
        value = judge(trainee)
        if value > best:
            best, kept, weights = value, epoch, trainee.weights()
    trainee.restore(weights)
    return epoch, kept, best


def main(folder: Path) -> None:
    """Read, train, score, write; prints one line."""
    begin = time.process_time()
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "log.npz") as log:
        user, item, asked, shape = (log[name] for name in ("user", "item", "asked", "shape"))
    aside = held_out(user, item, np.random.default_rng(settings["seed"]))
    trainee = Trainee(settings, folder, np.delete(user, aside), np.delete(item, aside), shape)
    ready = time.process_time()
    epochs, kept, value = train(
        trainee,
        lambda model: ndcg(model, user[aside], item[aside], settings["hides_known"]),
        begin + settings["seconds"],
    )
    trained = time.process_time()
    # sequences end with the held-out items when it counts
    trainee.user, trainee.item = user, trainee.item_numbers[item]
    trainee.begin = np.searchsorted(user, np.arange(shape[0]))
    scores = np.lib.format.open_memmap(folder / "scores.npy", "w+", np.float32, (len(asked), int(shape[1])))
    scores[:] = -np.inf
    known = np.flatnonzero(np.isin(asked, user))
    for start in range(0, len(known), BLOCK):
        rows = known[start : start + BLOCK]
        scores[rows] = trainee.scores(asked[rows])
    scores.flush()
    print(
        f"{settings['model']} {settings['config']}: {len(user):,} events, {epochs} epochs begun, number {kept} kept "
        f"(NDCG@{K} {value:.4f} of {len(aside):,} held-out items); {ready - begin:.0f} s to read, "
        f"{trained - ready:.0f} s to train, {time.process_time() - trained:.0f} s to score"
    )


if __name__ == "__main__":
    where = Path(sys.argv.pop())  # RecBole reads what is left of the command line as its own options
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.autograd.set_detect_anomaly(False)  # one of RecBole's modules turns it on for all: a third of the time
    main(where)
