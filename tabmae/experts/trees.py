"""Forests on completed rows, kept as arrays: no pickle is needed to save them, and any device can ask them.

Contract: `fit(features, target)` grows one forest; `predict(features)` reads nothing but the features it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

from tabmae.threads import n_threads

N_TREES = 50
MIN_LEAF = 2
MIN_LEAF_OF_LEVELS = 1
MAX_TRIED = 20
"""Features tried at a split: all of a narrow table, a share of a wide one, whose forests would take minutes."""
CHUNK = 50_000
"""Rows times trees that descend together; more leave the processor's cache."""
N_BLOCKS = 8
"""Blocks of trees that threads share out; their sums are added in order, so that their number plays no part."""
MIN_DESCENTS_OF_THREAD = 20_000
"""Rows times trees that are worth a thread of their own, some milliseconds."""
NODE_FIELDS = ("left_child", "right_child", "feature", "threshold")
"""What is said of a node to scikit-learn; the rest (impurity, counts) plays no part in a descent."""


class Nodes(NamedTuple):
    """A tree, each node before its children: these (N,) within the tree, -1 at leaves; rows at most as large as the
    threshold go left."""

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[np.float64]


class Forest(nn.Module):
    """Extremely randomised trees as flat arrays of nodes; none until `fit`, or until a state is loaded.

    Buffers: `feature` (N,), -1 at leaves; `threshold` (N,), rows at most as large go left; `left`, `right` (N,), the
    children, at leaves the position in `value`; `value` (L, K); `roots` (T,).

    Attributes: `importances` (2, E), by how much splits at each feature lower the impurity, the mean over the trees of
    each half; of the last `fit`, not saved.

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

    def __init__(self) -> None:
        super().__init__()
        for name in ("feature", "left", "right", "roots"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(0))
        self.register_buffer("value", torch.zeros(0, 1))
        self.importances = torch.zeros(2, 0, dtype=torch.float64)
        self._compiled: CompiledTrees | None = None
        self.register_load_state_dict_pre_hook(_make_room)
        self.register_load_state_dict_post_hook(_forget)

    def fit(
        self,
        features: Tensor,
        target: Tensor,
        n_levels: int,
        seed: int,
        held_out: Tensor | None = None,
        n_trees: int = N_TREES,
        min_leaf: int | None = None,
        kept: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Forest:
        """Grow the forest: one half of the trees without fold 1 of the held-out rows, the other without fold 2.

        Parameters
        ----------
        features : (n, E). target : (n,), numbers, or codes below `n_levels`.
        n_levels : 0 for a number.
        held_out : (n,), 0 for rows that all trees learn, 1 or 2 for those that a half of the trees must not see.
        n_trees : of both halves together. min_leaf : rows of a leaf at least; None for 2, of levels 1.
        kept : (n, K), numbers whose means the leaves are to hold in place of the target's.
        sample_weight : (n,), how far rows count in splits and in means and probabilities of the target; None for alike.

        Returns
        -------
        self; its leaves hold means (K = 1, or those of `kept`) or probabilities of the levels (K = n_levels).
        """
        inputs, truth = features.cpu().numpy().astype(np.float32), target.cpu().numpy()
        fold = np.zeros(len(truth)) if held_out is None else held_out.cpu().numpy()
        if min_leaf is None:
            min_leaf = MIN_LEAF_OF_LEVELS if n_levels else MIN_LEAF
        weight = None if sample_weight is None else sample_weight.cpu().numpy()
        halves = []
        for half in (1, 2):
            rows = fold != half
            counts = None if weight is None else weight[rows]
            halves.append(_grown(inputs[rows], truth[rows], counts, n_levels, n_trees // 2, min_leaf, seed + half))
        gains = [[tree.compute_feature_importances(normalize=False) for tree in half] for half, _ in halves]
        self.importances = torch.from_numpy(np.mean(gains, axis=1))
        trees = [
            Nodes(tree.children_left, tree.children_right, tree.feature, tree.threshold)
            for half, _ in halves
            for tree in half
        ]
        if kept is None:
            value = np.concatenate([_leaves(half, levels, n_levels) for half, levels in halves])
        else:
            numbers = kept.cpu().numpy()
            value = np.concatenate(
                [
                    _means_at_leaves(tree, inputs[fold != half], numbers[fold != half])
                    for half, (grown, _) in zip((1, 2), halves, strict=True)
                    for tree in grown
                ]
            )
        return self.take(trees, value, features.device)

    def take(self, trees: Sequence[Nodes], value: NDArray[Any], device: torch.device) -> Forest:
        """Become the given trees, whose leaves, one tree after another, hold `value` (L, K)."""
        counts = [len(tree.feature) for tree in trees]
        starts = np.cumsum([0, *counts])[:-1]
        offset = np.repeat(starts, counts)
        leaf = np.concatenate([tree.left for tree in trees]) < 0
        position = np.cumsum(leaf) - 1
        arrays = {
            "feature": np.where(leaf, -1, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
            "threshold": floored(np.concatenate([tree.threshold for tree in trees])),
            "value": value,
            "roots": starts.astype(np.int32),
        }
        for side in ("left", "right"):
            child = np.concatenate([getattr(tree, side) for tree in trees]) + offset
            arrays[side] = np.where(leaf, position, child).astype(np.int32)
        for name, array in arrays.items():
            setattr(self, name, torch.from_numpy(array).to(device))
        self._compiled = None
        return self

    def predict(self, features: Tensor, fold: int = 0) -> Tensor:
        """Mean over the trees of the leaves that rows (n, E) fall into; float32 (n, K).

        `fold` 1 or 2 asks only the trees that were grown without that fold.
        """
        found = self.leaf_means(features, fold)
        return found if found.shape[1] == 1 else found / found.sum(1, keepdim=True)

    def leaf_means(self, features: Tensor, fold: int = 0) -> Tensor:
        """Mean over the trees of what stands at the leaves that rows (n, E) fall into; float32 (n, K)."""
        n_half = len(self.roots) // 2
        asked = (slice(None), slice(0, n_half), slice(n_half, None))[fold]
        inputs = features.detach().float()
        if inputs.device.type == "cpu" and self._compiled is None:
            self._compiled = CompiledTrees(self)
        if self._compiled is not None and inputs.device.type == "cpu" and self._compiled.serves(inputs.shape[1]):
            return self._compiled.predict(inputs, asked)
        step = max(1, CHUNK // max(1, len(self.roots)))
        return torch.cat([self._predict(part, asked) for part in inputs.split(step)])

    def check(self, n_features: int, n_outputs: int) -> None:
        """Refuse arrays that came from elsewhere and lead nowhere or in a circle, or hold other numbers (L, K).

        Raises
        ------
        ValueError : a child, a leaf, a root or a feature lies outside; K is not `n_outputs`.
        """
        if self.value.shape[1] != n_outputs:
            raise ValueError(
                f"A forest must be of its column, with {n_outputs} numbers at a leaf; it has {self.value.shape[1]}. "
                "Save the model again."
            )
        node, inner = torch.arange(len(self.feature)), self.feature >= 0
        sides = torch.stack([self.left, self.right])
        forward = ((sides > node) & (sides < len(node))).all(0)
        leaves = (self.left >= 0) & (self.left < len(self.value))
        roots = (self.roots >= 0) & (self.roots < len(node))
        if not (torch.where(inner, forward, leaves).all() and roots.all() and (self.feature < n_features).all()):
            raise ValueError("A forest's nodes must lead to its leaves; these do not. Save the model again.")

    def _predict(self, inputs: Tensor, asked: slice) -> Tensor:
        node = self.roots[asked].long().expand(len(inputs), -1)
        while True:
            feature = self.feature[node]
            inner = feature >= 0
            left = self.left[node]
            if not inner.any():
                return self.value[left].double().mean(1).float()
            goes_left = torch.gather(inputs, 1, feature.clamp_min(0).long()) <= self.threshold[node]
            node = torch.where(inner, torch.where(goes_left, left, self.right[node]), node).long()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}


class CompiledTrees:
    """The trees of a forest on the CPU in the hands of scikit-learn, whose compiled descent is several times as fast.

    They are rebuilt as pickle would, from the arrays. Where scikit-learn's nodes are not as expected, or the arrays are
    not trees one after another, they serve nobody.
    """

    def __init__(self, forest: Forest) -> None:
        feature, threshold = forest.feature.numpy(), forest.threshold.numpy()
        left, right, roots = forest.left.numpy(), forest.right.numpy(), forest.roots.numpy()
        self.n_outputs = forest.value.shape[1]
        self.n_features = int(feature.max(initial=-1)) + 1
        self.trees: list[Any] = []
        self.answers: list[NDArray[Any]] = []
        if not compiles() or not _stands_apart(feature, left, right, roots):
            return
        at_leaf, value = np.where(feature < 0, left, 0), forest.value.numpy()
        for start, stop in zip(roots.tolist(), [*roots[1:].tolist(), len(feature)], strict=True):
            nodes = slice(start, stop)
            self.answers.append(value[at_leaf[nodes]])
            self.trees.append(_compiled(feature[nodes], threshold[nodes], left[nodes] - start, right[nodes] - start))

    def serves(self, n_features: int) -> bool:
        """Whether rows of so many features may be asked: the compiled descent does not check what it reads."""
        return bool(self.trees) and n_features >= self.n_features

    def predict(self, inputs: Tensor, asked: slice) -> Tensor:
        """Mean over the asked trees of the leaves of rows (n, E), float32; float32 (n, K)."""
        cells = inputs.contiguous().numpy()
        # Rows that fall alike are asked one after another: their nodes are at hand, and the processor foresees the way.
        order = np.argsort(self.trees[0].apply(cells))
        rows = cells[order]
        trees = list(zip(self.trees[asked], self.answers[asked], strict=True))
        size = -(-len(trees) // N_BLOCKS)
        blocks = [trees[start : start + size] for start in range(0, len(trees), size)]
        n_workers = min(n_threads(), len(blocks), len(rows) * len(trees) // MIN_DESCENTS_OF_THREAD)
        total = np.zeros((len(rows), self.n_outputs))
        if n_workers <= 1:
            total = sum((self._sum(rows, block) for block in blocks), total)
        else:
            with ThreadPoolExecutor(n_workers) as pool:
                total = sum(pool.map(partial(self._sum, rows), blocks), total)
        mean = np.empty((len(rows), self.n_outputs), dtype=np.float32)
        mean[order] = total / len(trees)
        return torch.from_numpy(mean)

    def _sum(self, rows: NDArray[np.float32], block: list[tuple[Any, NDArray[Any]]]) -> NDArray[np.float64]:
        """Sum over the trees of a block of the leaves of rows (n, E); (n, K)."""
        total = np.zeros((len(rows), self.n_outputs))
        for tree, answers in block:
            total += answers.take(tree.apply(rows), axis=0)
        return total


def _grown(
    inputs: NDArray[np.float32],
    truth: NDArray[Any],
    sample_weight: NDArray[Any] | None,
    n_levels: int,
    n_trees: int,
    min_leaf: int,
    seed: int,
) -> tuple[list[Any], NDArray[np.int64]]:
    """Half of the trees, and the levels that they saw."""
    shared = {
        "n_estimators": n_trees,
        "min_samples_leaf": min_leaf,
        "max_features": min(1.0, MAX_TRIED / inputs.shape[1]),
        "n_jobs": n_threads(),
        "random_state": seed,
    }
    if n_levels:
        forest = ExtraTreesClassifier(**shared)
        forest.fit(inputs, truth.astype(np.int64), sample_weight)
        return [tree.tree_ for tree in forest.estimators_], forest.classes_
    forest = ExtraTreesRegressor(**shared).fit(inputs, truth, sample_weight)
    return [tree.tree_ for tree in forest.estimators_], np.zeros(0, dtype=np.int64)


def _leaves(trees: list[Any], levels: NDArray[np.int64], n_levels: int) -> NDArray[Any]:
    """Means, or probabilities of all levels, of the trees' leaves one after another; (L, K)."""
    value = np.concatenate([tree.value[:, 0][tree.children_left < 0] for tree in trees])
    if not n_levels:
        return value.astype(np.float32)
    spread = np.zeros((len(value), n_levels), dtype=np.float16)
    spread[:, levels] = value / value.sum(1, keepdims=True)
    return spread


def _means_at_leaves(tree: Any, inputs: NDArray[np.float32], kept: NDArray[Any]) -> NDArray[np.float32]:
    """Means of numbers (n, K) of the rows (n, E) that a tree learnt, at each of its leaves; (L, K)."""
    is_leaf = tree.children_left < 0
    leaf = (np.cumsum(is_leaf) - 1)[tree.apply(inputs)]
    sums = [np.bincount(leaf, weights=column, minlength=int(is_leaf.sum())) for column in kept.T]
    return (np.stack(sums, 1) / np.bincount(leaf, minlength=int(is_leaf.sum()))[:, None]).astype(np.float32)


def _make_room(forest: Forest, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Give the arrays the sizes of those that are to be loaded, and the leaves their precision."""
    for name, array in list(forest.named_buffers()):
        saved = state.get(prefix + name)
        if saved is not None and saved.ndim == array.ndim:
            dtype = saved.dtype if name == "value" else array.dtype
            setattr(forest, name, torch.zeros(saved.shape, dtype=dtype, device=array.device))


def _forget(forest: Forest, _: object) -> None:
    """Drop the trees that were compiled from other arrays."""
    forest._compiled = None


def _stands_apart(feature: Any, left: Any, right: Any, roots: Any) -> bool:
    """Whether trees fill the arrays one after another, and every child lies in its parent's tree and behind it."""
    if not len(roots) or roots[0] != 0 or (np.diff(roots) <= 0).any() or roots[-1] >= len(feature):
        return False
    node = np.arange(len(feature))
    stop = np.append(roots[1:], len(feature))[np.searchsorted(roots, node, side="right") - 1]
    inner = feature >= 0
    return bool(all(((side > node) & (side < stop))[inner].all() for side in (left, right)))


def _compiled(feature: Any, threshold: Any, left: Any, right: Any) -> Any:
    """A tree of scikit-learn from arrays of nodes, children counted from its root; its leaves hold no values."""
    make, arguments, state = _pattern().__reduce__()
    nodes = np.zeros(len(feature), dtype=state["nodes"].dtype)
    inner = feature >= 0
    for name, array, at_leaf in zip(NODE_FIELDS, (left, right, feature, threshold), (-1, -1, -2, -2), strict=True):
        nodes[name] = np.where(inner, array, at_leaf)
    tree = make(*arguments)
    # A depth is room that scikit-learn sets aside; no tree is deeper than its count of nodes.
    sizes = {"node_count": len(nodes), "max_depth": len(nodes)}
    tree.__setstate__({**state, **sizes, "nodes": nodes, "values": np.zeros((len(nodes), 1, 1))})
    return tree


@cache
def _pattern() -> Any:
    """A tree of scikit-learn's own, whose state shows how nodes are laid out."""
    return DecisionTreeRegressor().fit([[0.0], [1.0]], [0.0, 1.0]).tree_


@cache
def compiles() -> bool:
    """Whether this scikit-learn takes the nodes, and rows descend as they should: at most the threshold goes left."""
    try:
        nodes = np.array([0, -1, -1]), np.array([0.5, 0.0, 0.0]), np.array([1, 0, 0]), np.array([2, 0, 0])
        reached = _compiled(*nodes).apply(np.array([[0.5], [0.6], [np.nan]], dtype=np.float32))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return bool(np.array_equal(reached, [1, 2, 2]))


def floored(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 at most as large: a float32 is below it exactly when it is below the float64."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
