"""Click probability on a real log of impressions: m6rec, plain LightGBM and logistic regression on the same features.

    pip download --no-deps obp==0.4.1 && unzip obp-*.whl 'obp/dataset/*'
    python benchmarks/domains/advertising.py --path obp/dataset/obd

Open Bandit sample (ZOZO, 2019; Saito and others 2021): six logs of 10,000 impressions, two policies by three
campaigns. The first 80 % of each by time are learned from, the last 20 % are the test; m6rec and the tuned baselines
choose on the last quarter of what is learned from. Features: campaign, policy, position, hour, four features of the
user, item and its four features, the user's affinity to the item. 95 % percentile bootstrap over impressions,
differences are paired. ECE: ten bins of equal count.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import polars as pl

from m6rec_udf.probability import Encoding, learned

EACH = [(policy, campaign) for policy in ("random", "bts") for campaign in ("all", "men", "women")]
TEXTS = [
    "campaign",
    "policy",
    "item",
    *(f"user_feature_{n}" for n in range(4)),
    *(f"item_feature_{n}" for n in (1, 2, 3)),
]


def impressions(folder: Path, policy: str, campaign: str) -> pl.DataFrame:
    """One log in the order of time."""
    log = pl.read_csv(folder / policy / campaign / f"{campaign}.csv", infer_schema_length=None)
    items = pl.read_csv(folder / policy / campaign / "item_context.csv", infer_schema_length=None)
    affinity = log.select(pl.col("^user-item_affinity_.*$")).to_numpy()
    log = log.select(
        pl.col("timestamp").alias("happened_at"),
        pl.col("click").cast(pl.Float64).alias("outcome"),
        "item_id",
        "position",
        hour=pl.col("timestamp").str.slice(11, 2).cast(pl.Int64),
        **{f"user_feature_{n}": pl.col(f"user_feature_{n}").cast(pl.String) for n in range(4)},
        campaign=pl.lit(campaign),
        policy=pl.lit(policy),
    )
    log = log.with_columns(affinity=pl.Series(affinity[np.arange(len(log)), log["item_id"].to_numpy()]))
    kept = ["item_id", *(f"item_feature_{n}" for n in range(4))]
    log = log.join(items.select(kept), on="item_id", maintain_order="left")
    return (
        log.sort("happened_at")
        .with_columns(item=pl.format("{}-{}", pl.col("campaign"), pl.col("item_id")))
        .drop("item_id")
    )


def auc(p: np.ndarray, y: np.ndarray) -> float:
    """Area under the ROC curve, ties count a half."""
    _, place, count = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    clicks = y > 0
    n = clicks.sum()
    return float((rank[clicks].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))


def ece(p: np.ndarray, y: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal count."""
    parts = np.array_split(np.argsort(p, kind="stable"), 10)
    return float(sum(abs(p[own].mean() - y[own].mean()) * len(own) for own in parts) / len(y))


def loss_of(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def lightgbm_of(train: pl.DataFrame, test: pl.DataFrame, *, stop: bool) -> np.ndarray:
    """LightGBM with its defaults, texts as categories; ``stop``: as many trees as the last quarter asks for."""
    import lightgbm

    codes = {name: {t: n for n, t in enumerate(sorted(train[name].unique()))} for name in TEXTS}
    names = [name for name in train.columns if name not in ("outcome", "happened_at")]

    def matrix(frame: pl.DataFrame) -> np.ndarray:
        return np.column_stack(
            [
                np.asarray([codes[name].get(t, -1) for t in frame[name]], float)
                if name in codes
                else frame[name].cast(pl.Float64).to_numpy()
                for name in names
            ]
        )

    x, y = matrix(train), train["outcome"].to_numpy()
    given = {"objective": "binary", "verbosity": -1, "seed": 0, "deterministic": True}
    places = [names.index(name) for name in TEXTS]
    rounds = 100
    if stop:
        order = np.argsort(train["happened_at"].to_numpy(), kind="stable")
        cut = int(len(order) * 0.75)
        parts = [
            lightgbm.Dataset(x[own], y[own], categorical_feature=places, free_raw_data=False)
            for own in (order[:cut], order[cut:])
        ]
        model = lightgbm.train(
            given, parts[0], 500, valid_sets=[parts[1]], callbacks=[lightgbm.early_stopping(20, verbose=False)]
        )
        rounds = max(model.best_iteration, 1)
    model = lightgbm.train(given, lightgbm.Dataset(x, y, categorical_feature=places), rounds)
    return np.asarray(model.predict(matrix(test)))


def logistic_of(train: pl.DataFrame, test: pl.DataFrame) -> np.ndarray:
    """scikit-learn's logistic regression with its defaults on texts one by one and standardised numbers."""
    from sklearn.linear_model import LogisticRegression

    names = [name for name in train.columns if name not in ("outcome", "happened_at")]
    encoding = Encoding.of(train, names)
    model = LogisticRegression(max_iter=1000).fit(encoding(train), train["outcome"].to_numpy())
    return np.asarray(model.predict_proba(encoding(test))[:, 1])


def main() -> None:
    """Read, learn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="folder obd of the wheel obp==0.4.1")
    parser.add_argument("--validation", action="store_true", help="leave out the test rows, test on the fifth before")
    given = parser.parse_args()
    trains, tests = [], []
    for policy, campaign in EACH:
        log = impressions(Path(given.path), policy, campaign)
        if given.validation:
            log = log[: int(len(log) * 0.8)]
        trains.append(log[: int(len(log) * 0.8)])
        tests.append(log[int(len(log) * 0.8) :])
    train, test = pl.concat(trains), pl.concat(tests)
    y = test["outcome"].to_numpy()
    print(f"{len(train):,} impressions with {int(train['outcome'].sum())} clicks to learn from, ", end="")
    print(f"{len(test):,} with {int(y.sum())} to test on")
    methods: dict[str, Callable[[], np.ndarray]] = {
        "m6rec": lambda: learned(train)(test),
        "LightGBM, defaults": lambda: lightgbm_of(train, test, stop=False),
        "LightGBM, stopped early": lambda: lightgbm_of(train, test, stop=True),
        "logistic regression": lambda: logistic_of(train, test),
        "mean of the log": lambda: np.full(len(test), train["outcome"].mean()),
    }
    p = {name: method() for name, method in methods.items()}
    draws = np.random.default_rng(0).integers(0, len(y), (1000, len(y)))
    print("| method | log loss | AUC | ECE | log loss: m6rec less it |")
    own = loss_of(p["m6rec"], y)
    for name, said in p.items():
        loss = loss_of(said, y)
        low, high = np.percentile(loss[draws].mean(1), [2.5, 97.5])
        areas = np.percentile([auc(said[d], y[d]) for d in draws[:100]], [2.5, 97.5])
        gap = np.percentile((own - loss)[draws].mean(1), [2.5, 97.5])
        print(
            f"| {name} | {loss.mean():.5f} ({low:.5f} to {high:.5f}) | {auc(said, y):.3f} ({areas[0]:.3f} to "
            f"{areas[1]:.3f}) | {ece(said, y):.4f} | {(own - loss).mean():+.5f} ({gap[0]:+.5f} to {gap[1]:+.5f}) |"
        )
    model = learned(train)
    print(f"m6rec chose a ridge of {model.ridge:g} and {model.trees} trees; slope {model.slope:.2f}")


if __name__ == "__main__":
    main()
