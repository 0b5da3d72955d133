"""Forests on completed rows, kept as arrays: no pickle is needed to save them, and any device can ask them.

Contract: `fit(features, target)` grows one forest; `predict(features)` reads nothing but the features it is given.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from torch import Tensor, nn

N_TREES = 50
MIN_LEAF = 3
MIN_LEAF_OF_LEVELS = 1
MAX_TRIED = 20
"""Features tried at a split: all of a narrow table, a share of a wide one, whose forests would take minutes."""
CHUNK = 50_000
"""Rows times trees that descend together; more leave the processor's cache."""


class Forest(nn.Module):
    """Extremely randomised trees as flat arrays of nodes.

    Parameters
    ----------
    n_nodes, n_leaves, n_outputs, n_trees : sizes of the arrays, for weights to be loaded; `fit` replaces them.

    Buffers: `feature` (N,), -1 at leaves; `threshold` (N,), rows at most as large go left; `left`, `right` (N,), the
    children, at leaves the position in `value`; `value` (L, K); `roots` (T,).

    Source: Geurts et al. 2006, as grown by scikit-learn.
    Differs: probabilities are kept in half precision.

    >>> import torch
    >>> rows = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    >>> forest = Forest().fit(rows, rows[:, 0], n_levels=0, seed=0)
    >>> bool((forest.predict(rows)[:, 0] - rows[:, 0]).abs().max() < 0.1)
    True
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    roots: Tensor

    def __init__(self, n_nodes: int = 0, n_leaves: int = 0, n_outputs: int = 1, n_trees: int = 0) -> None:
        super().__init__()
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(n_nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(n_nodes))
        self.register_buffer("value", torch.zeros(n_leaves, n_outputs))
        self.register_buffer("roots", torch.zeros(n_trees, dtype=torch.int32))

    def fit(self, features: Tensor, target: Tensor, n_levels: int, seed: int) -> Forest:
        """Grow the forest.

        Parameters
        ----------
        features : (n, E). target : (n,), numbers, or codes below `n_levels`.
        n_levels : 0 for a number.

        Returns
        -------
        self; its leaves hold means (K = 1) or probabilities of the levels (K = n_levels).
        """
        inputs, truth = features.cpu().numpy().astype(np.float32), target.cpu().numpy()
        shared = {
            "n_estimators": N_TREES,
            "max_features": min(1.0, MAX_TRIED / inputs.shape[1]),
            "n_jobs": torch.get_num_threads(),
            "random_state": seed,
        }
        if n_levels:
            grown = ExtraTreesClassifier(min_samples_leaf=MIN_LEAF_OF_LEVELS, **shared)
            grown.fit(inputs, truth.astype(np.int64))
        else:
            grown = ExtraTreesRegressor(min_samples_leaf=MIN_LEAF, **shared).fit(inputs, truth)
        trees = [tree.tree_ for tree in grown.estimators_]
        counts = [tree.node_count for tree in trees]
        starts = np.cumsum([0, *counts])[:-1]
        offset = np.repeat(starts, counts)
        leaf = np.concatenate([tree.children_left for tree in trees]) < 0
        value = np.concatenate([tree.value[:, 0] for tree in trees])[leaf]
        if n_levels:
            spread = np.zeros((len(value), n_levels), dtype=np.float16)
            spread[:, grown.classes_] = value / value.sum(1, keepdims=True)
            value = spread
        position = np.cumsum(leaf) - 1
        arrays = {
            "feature": np.where(leaf, -1, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
            "threshold": floored(np.concatenate([tree.threshold for tree in trees])),
            "value": value if n_levels else value.astype(np.float32),
            "roots": starts.astype(np.int32),
        }
        for side in ("left", "right"):
            child = np.concatenate([getattr(tree, f"children_{side}") for tree in trees]) + offset
            arrays[side] = np.where(leaf, position, child).astype(np.int32)
        for name, array in arrays.items():
            setattr(self, name, torch.from_numpy(array).to(features.device))
        return self

    def predict(self, features: Tensor) -> Tensor:
        """Mean over the trees of the leaves that rows (n, E) fall into; float32 (n, K)."""
        inputs = features.float()
        parts = [self._predict(part) for part in inputs.split(max(1, CHUNK // max(1, len(self.roots))))]
        found = torch.cat(parts)
        return found if found.shape[1] == 1 else found / found.sum(1, keepdim=True)

    def check(self, n_features: int) -> None:
        """Refuse arrays that came from elsewhere and lead nowhere or in a circle.

        Raises
        ------
        ValueError : a child, a leaf, a root or a feature lies outside.
        """
        node, inner = torch.arange(len(self.feature)), self.feature >= 0
        sides = torch.stack([self.left, self.right])
        forward = ((sides > node) & (sides < len(node))).all(0)
        leaves = (self.left >= 0) & (self.left < len(self.value))
        roots = (self.roots >= 0) & (self.roots < len(node))
        if not (torch.where(inner, forward, leaves).all() and roots.all() and (self.feature < n_features).all()):
            raise ValueError("A forest's nodes must lead to its leaves; these do not. Save the model again.")

    def _predict(self, inputs: Tensor) -> Tensor:
        node = self.roots.long().expand(len(inputs), -1)
        while True:
            feature = self.feature[node]
            inner = feature >= 0
            left = self.left[node]
            if not inner.any():
                return self.value[left].float().mean(1)
            goes_left = torch.gather(inputs, 1, feature.clamp_min(0).long()) <= self.threshold[node]
            node = torch.where(inner, torch.where(goes_left, left, self.right[node]), node).long()


def floored(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 at most as large: a float32 is below it exactly when it is below the float64."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
