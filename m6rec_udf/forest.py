"""LightGBM's trees, read from its text format: serving asks a few hundred rows, training and SHAP ask LightGBM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from m6rec_udf.kernels.trees import MOST_LEAVES, added_up

_CATEGORICAL, _DEFAULT_LEFT, _NAN, _ZERO = 1, 2, 2, 1  # of decision_type: two flags, and the kinds of missing values


@dataclass(frozen=True)
class Forest:
    """Trees side by side; nodes and leaves of a tree stand together, leaves from left to right.

    Attributes:
        node_start, leaf_start: int64 ``[trees + 1]``.
        feature: int64 ``[nodes]`` column of x. threshold: float32 ``[nodes]``, above it a row goes to the right.
        is_nan_left: bool ``[nodes]``, where NaN goes.
        left_out: uint64 ``[nodes]``, the tree's leaves but for those to the left of the node.
        leaf_value: float64 ``[leaves]``.
    """

    node_start: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    is_nan_left: np.ndarray
    left_out: np.ndarray
    leaf_start: np.ndarray
    leaf_value: np.ndarray

    @classmethod
    def of(cls, text: str) -> Forest | None:
        """The trees of a model; None where only LightGBM can answer (categories, zeros as missing, 65 leaves)."""
        trees = [_Tree.of(part) for part in text.split("\nTree=")[1:]]
        if not all(trees):
            return None
        known = [tree for tree in trees if tree is not None]
        nothing = np.zeros(0, np.int64)
        return cls(
            np.cumsum([0, *(len(tree.feature) for tree in known)]),
            np.concatenate([nothing, *(tree.feature for tree in known)]),
            _rounded_down(np.concatenate([np.zeros(0), *(tree.threshold for tree in known)])),
            np.concatenate([nothing.astype(bool), *(tree.is_nan_left for tree in known)]),
            np.asarray([bits for tree in known for bits in tree.left_out()], np.uint64),
            np.cumsum([0, *(len(tree.leaves) for tree in known)]),
            np.concatenate([np.zeros(0), *(tree.leaf_value[tree.leaves] for tree in known)]),
        )

    def predict(self, x: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
        """What the trees add up to at the rows ``at`` of x (float32 ``[r, features]``; None: all), float64."""
        rows = np.arange(len(x)) if at is None else at
        nodes = self.node_start, self.feature, self.threshold, self.is_nan_left, self.left_out
        own = np.ascontiguousarray(x, np.float32)
        return np.asarray(added_up(own, rows, *nodes, self.leaf_start, self.leaf_value))


@dataclass(frozen=True)
class _Tree:
    feature: np.ndarray
    threshold: np.ndarray
    is_nan_left: np.ndarray
    children: np.ndarray
    leaf_value: np.ndarray

    @classmethod
    def of(cls, text: str) -> _Tree | None:
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

        def numbers(name: str, kind: type) -> np.ndarray:
            return np.asarray(fields.get(name, "").split(), kind)

        decision, threshold = numbers("decision_type", np.int64), numbers("threshold", np.float64)
        missing = decision >> 2
        if int(fields["num_leaves"]) > MOST_LEAVES or (decision & _CATEGORICAL).any() or (missing == _ZERO).any():
            return None
        goes_left = np.where(missing == _NAN, decision & _DEFAULT_LEFT > 0, threshold >= 0)  # else NaN counts as 0
        children = np.stack([numbers("left_child", np.int64), numbers("right_child", np.int64)], axis=1)
        return cls(
            numbers("split_feature", np.int64), threshold, goes_left, children, numbers("leaf_value", np.float64)
        )

    @property
    def leaves(self) -> np.ndarray:
        """Numbers of the leaves from left to right."""
        return np.asarray(self._under(0)) if len(self.feature) else np.zeros(1, np.int64)

    def _under(self, node: int) -> list[int]:
        """Leaves below a node, or the leaf -1 - node itself, from left to right."""
        return [-1 - node] if node < 0 else [leaf for child in self.children[node] for leaf in self._under(int(child))]

    def left_out(self) -> list[int]:
        """For each node the tree's leaves without those to its left, as bits."""
        place = {leaf: at for at, leaf in enumerate(self.leaves.tolist())}
        everything = 2**64 - 1
        left = (self._under(int(child)) for child in self.children[:, 0])
        return [everything - sum(1 << place[leaf] for leaf in own) for own in left]


def _rounded_down(values: np.ndarray) -> np.ndarray:
    """The largest float32 not above: a float32 is at most the one exactly where it is at most the other."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
