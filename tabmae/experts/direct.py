"""Trees that learn the values of a column themselves, without any expert's guess of them.

Contract: `fit(features, target)` grows the trees of one column; what is asked of them for a fold of the held-out rows
comes from trees that never saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tabmae.experts.boosting import BoostedTrees, opens
from tabmae.experts.trees import N_TREES, Forest

FOLDS = (1, 2)
N_ROUNDS, MAX_ROUNDS, LEARNING_RATE, MAX_LEAVES = 60, 200, 0.2, 15
"""Of the boosted trees: as good as a hundred rounds of 31 leaves at .1, in half the time."""
ROUNDS_OF_ROOT = 1.5
"""Rounds by the root of the cells that are learnt, from `N_ROUNDS` up to `MAX_ROUNDS`."""
TREES_OF_LEVEL, MAX_TREES, MAX_TREES_TIMES_CELLS = 5, 150, 500_000
"""Trees of a forest of levels, for each of them: shares of many levels take many trees; no more than the usual number
where cells are many, whose trees are large."""


class DirectTrees(nn.Module):
    """Gradient boosted trees of a number, extremely randomised ones of levels.

    `boosted` holds one `BoostedTrees` for each fold that it leaves out; `forest` leaves them out by halves.

    Boosting of levels takes ten times as long as a forest and names no more of them right; of numbers it is the better
    one, most of all where they are few.

    >>> import torch
    >>> rows = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    >>> trees = DirectTrees(n_levels=0).fit(rows, rows[:, 0], seed=0)
    >>> bool((trees.predict(rows)[:, 0] - rows[:, 0]).abs().max() < 0.1)
    True
    """

    def __init__(self, n_levels: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        self.boosted = nn.ModuleList() if n_levels else nn.ModuleList(BoostedTrees() for _ in FOLDS)
        self.forest = Forest() if n_levels else None

    def fit(
        self,
        features: Tensor,
        target: Tensor,
        seed: int,
        held_out: Tensor | None = None,
        read: Sequence[Tensor | None] = (None, None),
    ) -> DirectTrees:
        """Grow the trees.

        Parameters
        ----------
        features : (n, E). target : (n,), numbers, or codes below `n_levels`.
        held_out : (n,), 0 for rows that all trees learn, 1 or 2 for those that some must not see.
        read : (R,) each, the features that boosted trees without fold 1, and without fold 2, may read; None for all.
        """
        if self.forest is not None:
            self.forest.fit(features, target, self.n_levels, seed, held_out, n_trees(self.n_levels, len(target)))
            return self
        n_rounds = min(MAX_ROUNDS, max(N_ROUNDS, round(ROUNDS_OF_ROOT * len(target) ** 0.5)))
        for half, trees, names in zip(FOLDS, self.boosted, read, strict=True):
            rows = slice(None) if held_out is None else held_out != half
            cast(BoostedTrees, trees).fit(
                features[rows], target[rows], 0, seed + half, n_rounds, LEARNING_RATE, MAX_LEAVES, read=names
            )
        return self

    def predict(self, features: Tensor, fold: int = 0) -> Tensor:
        """Means (n, 1), or probabilities of the levels (n, n_levels), of rows (n, E); float32.

        `fold` 1 or 2 asks only the trees that were grown without that fold.
        """
        if self.forest is not None:
            return self.forest.predict(features, fold)
        asked = [trees for half, trees in zip(FOLDS, self.boosted, strict=True) if fold in (0, half)]
        return torch.stack([cast(BoostedTrees, trees).predict(features) for trees in asked]).mean(0)

    def forests(self) -> list[Forest]:
        """The arrays of nodes that it holds."""
        boosted = [cast(BoostedTrees, trees).forest for trees in self.boosted]
        return boosted if self.forest is None else [self.forest]


def n_trees(n_levels: int, n_cells: int) -> int:
    """Trees of a forest of levels that learns so many cells.

    >>> n_trees(2, 1_000), n_trees(26, 1_000), n_trees(60, 1_000), n_trees(26, 20_000)
    (50, 130, 150, 50)
    """
    return 2 * (max(N_TREES, min(TREES_OF_LEVEL * n_levels, MAX_TREES, MAX_TREES_TIMES_CELLS // n_cells)) // 2)


def grows(n_levels: int) -> bool:
    """Whether trees of a column can be grown: those of numbers need a scikit-learn whose boosted trees can be read."""
    return n_levels > 0 or opens()
