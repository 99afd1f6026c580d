"""RecBole's SASRec and LightGCN, trained by ``recbole_worker.py`` in an environment of their own.

RecBole 1.2.1 needs versions of numpy, SciPy and pandas that m6rec does not run on. The variable
``M6REC_RECBOLE_PYTHON`` names the Python of an environment that has it (README.md says how it is made); the log and
the scores pass through files in a temporary folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peer import Log, Peer, Scores
from scipy import sparse

VARIABLE = "M6REC_RECBOLE_PYTHON"
MADE = "benchmarks/quality/README.md says how the environment is made"
WORKER = Path(__file__).with_name("recbole_worker.py")


def python() -> str | None:
    """The Python that has RecBole; None: the variable is not set."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    found = shutil.which(named)
    if found is None:
        raise SystemExit(f"{VARIABLE} is {named!r}, expected a Python that has recbole. Hint: {MADE}")
    return os.path.abspath(found)  # the worker runs in another folder; a link to it is left as it is


class RecBole(Peer):
    """A model of RecBole (Zhao et al., CIKM 2021); ``model`` and what its subclass makes of the settings.

    Training ends after ``seconds`` of processor time, or once held-out items of the training data are ranked no
    better. Where items already known are no answers, sequences and pairs hold each item once, when it was first met:
    these models are then asked what they were taught.
    """

    model = ""

    def config(self, n_events: int) -> dict[str, Any]:
        """RecBole's parameters for a log of this length."""
        raise NotImplementedError

    def fit(self, log: Log, liked: sparse.csr_matrix) -> Scores:
        user, item = events(log, self.least_y)
        settings = {"model": self.model, "config": self.config(len(user)), "seconds": self.seconds, "seed": 0,
                    "hides_known": log.touched.nnz > 0}  # fmt: skip
        found = run_worker(settings, {"user": user, "item": item, "asked": log.asked, "shape": liked.shape})
        return lambda block: found[np.searchsorted(log.asked, block)]


class SasRec(RecBole):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018) over the latest 50 items.

    One head, ReLU and inner layers as wide as the others, as in the paper: RecBole's own are wider and take twice as
    long for an epoch on a processor. The loss is the cross-entropy over all items.
    """

    model = "SASRec"

    def config(self, n_events: int) -> dict[str, Any]:
        """One ``dropout`` for both places; batches smaller than RecBole's, because few epochs are affordable."""
        settings = {name: value for name, value in self.settings.items() if name != "dropout"}
        return settings | {
            "loss_type": "CE",
            "n_heads": 1,
            "hidden_act": "relu",
            "inner_size": settings["hidden_size"],
            "hidden_dropout_prob": self.settings["dropout"],
            "attn_dropout_prob": self.settings["dropout"],
            "train_batch_size": 256,
        }


class LightGcn(RecBole):
    """Light graph convolution (He et al., SIGIR 2020)."""

    model = "LightGCN"

    def config(self, n_events: int) -> dict[str, Any]:
        """RecBole's batches of 2,048 or larger ones: every batch walks the whole graph, at most 50 times an epoch."""
        return self.settings | {"train_batch_size": max(2048, -(-n_events // 50))}


def events(log: Log, least_y: float) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of liked events, by user and then by time; each pair once where known items are hidden."""
    keep = np.flatnonzero(log.y >= least_y)
    if log.touched.nnz:
        pair = log.user[keep].astype(np.int64) * len(log.item_ids) + log.item[keep]
        keep = keep[np.sort(np.unique(pair, return_index=True)[1])]
    return log.user[keep], log.item[keep]


def run_worker(settings: dict[str, Any], arrays: dict[str, Any]) -> np.ndarray:
    """Scores, float32 ``[asked, items]``, from the process of the other environment; prints what it says.

    Raises:
        RuntimeError: the process failed; with what it wrote.
    """
    own = python()
    if own is None:
        raise RuntimeError(f"{VARIABLE} is not set, expected the Python of RecBole's environment. Hint: {MADE}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "settings.json").write_text(json.dumps(settings))
        np.savez(Path(folder, "log.npz"), **arrays)
        # -I: neither this folder's modules nor PYTHONPATH are the other environment's
        done = subprocess.run([own, "-I", str(WORKER), folder], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"RecBole's process ended with {done.returncode}, expected 0. Hint: where {own} lacks recbole, "
                f"{MADE}. It wrote:\n{done.stdout}{done.stderr}"
            )
        print(done.stdout, end="", flush=True)
        scores: np.ndarray = np.load(Path(folder, "scores.npy"))
    return scores
