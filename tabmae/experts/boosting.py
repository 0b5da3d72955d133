"""Gradient boosted trees kept as arrays: no pickle is needed to save them, and any device can ask them.

Contract: `fit(features, target)` grows the trees; `predict(features)` reads nothing but the features it is given.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Tensor, nn

from tabmae.experts.trees import Forest, Nodes
from tabmae.threads import threads_if

MAX_ROUNDS, LEAST_ROUNDS, MAX_TREES = 100, 10, 1000
"""Rounds, each a tree a level; fewer where many levels would make more trees."""
MIN_CELLS_OF_THREADS = 2_000_000
"""Rows times features from which on trees are grown by several threads."""


class BoostedTrees(nn.Module):
    """Histogram gradient boosting, its trees in the arrays of a forest.

    Parameters
    ----------
    n_outputs : K, for a state to be loaded; `fit` finds it itself.

    Buffers: `baseline` (K,), what trees add to; those of `forest`, whose leaves (L, K) hold what each tree adds.

    Source: Friedman 2001; histograms, Ke et al. 2017, as grown by scikit-learn.

    >>> import torch
    >>> rows = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    >>> boosted = BoostedTrees().fit(rows, rows[:, 0], n_levels=0, seed=0)
    >>> bool((boosted.predict(rows)[:, 0] - rows[:, 0]).abs().max() < 0.1)
    True
    """

    baseline: Tensor

    def __init__(self, n_outputs: int = 1) -> None:
        super().__init__()
        self.forest = Forest()
        self.register_buffer("baseline", torch.zeros(n_outputs))

    def fit(
        self,
        features: Tensor,
        target: Tensor,
        n_levels: int,
        seed: int,
        max_rounds: int = MAX_ROUNDS,
        learning_rate: float = 0.1,
        max_leaves: int = 31,
        sample_weight: Tensor | None = None,
        read: Tensor | None = None,
    ) -> BoostedTrees:
        """Grow the trees.

        Parameters
        ----------
        features : (n, E). target : (n,), numbers, or codes below `n_levels`.
        n_levels : 0 for a number.
        max_rounds, learning_rate, max_leaves : rounds, the share that each adds, the leaves of a tree.
        sample_weight : (n,), how far rows count; None for alike.
        read : (R,), the features that trees may read; None for all.
        """
        read = torch.arange(features.shape[1], device=features.device) if read is None else read
        max_iter = max(LEAST_ROUNDS, min(max_rounds, MAX_TREES // max(1, n_levels)))
        inputs, truth = features[:, read].cpu().numpy().astype(np.float32), target.cpu().numpy()
        estimator = HistGradientBoostingClassifier if n_levels else HistGradientBoostingRegressor
        with threads_if(inputs.size >= MIN_CELLS_OF_THREADS):
            # No early stop: copies of a row would lie on both sides of its split.
            model: Any = estimator(
                max_iter=max_iter,
                learning_rate=learning_rate,
                max_leaf_nodes=max_leaves,
                early_stopping=False,
                random_state=seed,
            )
            weight = None if sample_weight is None else sample_weight.cpu().numpy()
            grown = model.fit(inputs, truth.astype(np.int64) if n_levels else truth, weight)
        classes = grown.classes_.astype(np.int64) if n_levels else np.zeros(1, dtype=np.int64)
        # Two classes share one tree a round, which speaks for the second.
        outputs = classes[1:] if len(classes) == 2 else classes
        self.baseline = torch.full((max(1, n_levels),), -torch.inf if n_levels else 0.0)
        self.baseline[classes] = 0.0
        self.baseline[outputs] = torch.from_numpy(np.ravel(grown._baseline_prediction)).float()
        trees = [
            (output, tree.nodes) for round_ in grown._predictors for output, tree in zip(outputs, round_, strict=True)
        ]
        value = [_leaves(nodes, output, len(self.baseline), len(trees)) for output, nodes in trees]
        self.baseline = self.baseline.to(features.device)
        names = read.cpu().numpy()
        self.forest.take([_nodes(nodes, names) for _, nodes in trees], np.concatenate(value), features.device)
        return self

    def predict(self, features: Tensor) -> Tensor:
        """Numbers (n, 1), or probabilities of the levels (n, n_levels), of rows (n, E); float32."""
        raw = self.baseline + self.forest.leaf_means(features)
        return raw if raw.shape[1] == 1 else raw.softmax(1)


@cache
def opens() -> bool:
    """Whether this scikit-learn shows the trees that it boosts, which are private to it, and they say what it says."""
    rows = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    model = HistGradientBoostingRegressor(max_iter=LEAST_ROUNDS, early_stopping=False, random_state=0)
    model.fit(rows, rows[:, 0] ** 2)
    try:
        copied = BoostedTrees().fit(torch.from_numpy(rows), torch.from_numpy(rows[:, 0] ** 2), 0, 0, LEAST_ROUNDS)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False
    return bool(np.allclose(copied.predict(torch.from_numpy(rows))[:, 0].numpy(), model.predict(rows), atol=1e-5))


def _nodes(nodes: NDArray[Any], read: NDArray[np.int64]) -> Nodes:
    """A tree of scikit-learn's boosting, of the features `read`; its root never has a parent, so 0 is no child."""
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    return Nodes(left, right, read[nodes["feature_idx"]], nodes["num_threshold"])


def _leaves(nodes: NDArray[Any], output: int, n_outputs: int, n_trees: int) -> NDArray[np.float32]:
    """What the leaves of a tree add to its output, times the trees, whose mean is taken; (L, K)."""
    added = nodes["value"][nodes["is_leaf"].astype(bool)]
    value = np.zeros((len(added), n_outputs), dtype=np.float32)
    value[:, output] = added * n_trees
    return value
