"""Factors of items from MLlib's ALS over everybody, where the interactions do not fit into one machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from m6rec_udf.item_models import FACTORS, Factors, Learned, users_of
from m6rec_udf.spark.tables import named

if TYPE_CHECKING:
    import scipy.sparse as sp
    from pyspark.sql import SparkSession

ROUNDS = 8
REGULARISATION = 0.05
CONFIDENCE = 10.0


@dataclass
class FactorsFromSpark(Learned):
    """Factors by ALS over feat_user_item of the moment; item-item weights from the share of users in memory."""

    session: SparkSession | None = None

    def factors(self, x: sp.csr_matrix) -> Factors:
        """Implicit ALS (Hu, Koren, Volinsky 2008) with the fold-in written as one matrix.

        A user with history x has the factors x V (V'V + lambda I)^-1 (the least squares of ALS with equal confidence),
        so fold_in = V (V'V + lambda I)^-1. Both are turned so that the users' factors X F are orthogonal, which is
        what ``collaborative.folded_in`` asks for: (XF)'(XF) = R diag(s) R', V R and F R.
        """
        assert self.session is not None
        n = x.shape[1]
        v = als_factors(self.session, n, seed=self.chosen.seed)
        fold = v @ np.linalg.inv(v.T @ v + REGULARISATION * np.eye(v.shape[1]))
        taste = x @ fold
        strength, turn = np.linalg.eigh(taste.T @ taste)
        order = np.argsort(-strength)
        turn, strength = turn[:, order], np.maximum(strength[order], 0)
        return Factors(
            np.asarray(v @ turn, np.float32),
            np.asarray(fold @ turn, np.float32),
            np.asarray(strength, np.float32),
            users_of(x),
        )


def als_factors(session: SparkSession, n: int, *, seed: int) -> np.ndarray:
    """Item factors of everybody's pairs of interest, float64 ``[n, FACTORS]``; zeros for items without behaviour."""
    from pyspark.ml.recommendation import ALS

    pairs = session.sql("select user_idx, item_idx, cast(1 as float) as one from feat_user_item where interest > 0")
    als = ALS(
        rank=FACTORS,
        maxIter=ROUNDS,
        regParam=REGULARISATION,
        implicitPrefs=True,
        alpha=CONFIDENCE,
        userCol="user_idx",
        itemCol="item_idx",
        ratingCol="one",
        seed=seed,
    )
    out = np.zeros((n, FACTORS))
    with named(session, "factors"):
        for item, features in als.fit(pairs).itemFactors.toLocalIterator():
            out[item] = features
    return out
