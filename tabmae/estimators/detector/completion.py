"""Remembered rows without holes: what a Gaussian expects of a missing cell, given the observed ones.

Contract: observed cells stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from tabmae.experts.gaussian import Gaussian

MAX_LEVELS = 20
"""Levels of a category with an indicator; the others are completed as none of these would be."""
MAX_COLUMNS = 300
"""Numbers and indicators beyond which the Gaussian would take too long."""


class Completion:
    """Completes rows by the conditional mean of a Gaussian over numbers and indicators of levels.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.
    """

    def __init__(self, n_levels: Sequence[int]) -> None:
        self.n_shown = shown_levels(n_levels)
        self.gaussian = Gaussian(sum(n or 1 for n in self.n_shown))

    @classmethod
    def fit(cls, values: Tensor, observed: Tensor, n_levels: Sequence[int]) -> Self | None:
        """Learn from the observed cells of values (n, F); None for tables that are too wide."""
        completion = cls(n_levels)
        if len(completion.gaussian.mean) > MAX_COLUMNS:
            return None
        completion.gaussian.fit(*expanded(values, observed, completion.n_shown))
        return completion

    def complete(self, values: Tensor, observed: Tensor) -> Tensor:
        """Rows (B, F) without holes."""
        rows = torch.nonzero(~observed.all(1))[:, 0]
        completed = values.clone()
        if len(rows):
            cells, shown = expanded(values[rows], observed[rows], self.n_shown)
            mean, _ = self.gaussian.condition(cells, shown, with_variance=False)
            parts = mean.split([n or 1 for n in self.n_shown], 1)
            filled = [
                part.argmax(1) if n_shown else part[:, 0] for n_shown, part in zip(self.n_shown, parts, strict=True)
            ]
            completed[rows] = torch.where(observed[rows], values[rows], torch.stack(filled, 1).to(values))
        return completed


def shown_levels(n_levels: Sequence[int]) -> list[int]:
    """How many levels of each column have an indicator, 0 for a number."""
    return [min(n, MAX_LEVELS) for n in n_levels]


def expanded(values: Tensor, observed: Tensor, n_shown: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Numbers and indicators of levels, float64 (B, E), and which are observed."""
    cells, shown = [], []
    for j, n in enumerate(n_shown):
        column = values[:, j]
        cells.append(F.one_hot(column.long().clamp(0, n), n + 1)[:, :-1] if n else column[:, None])
        shown.append(observed[:, j, None].expand(-1, n or 1))
    return torch.cat([part.double() for part in cells], 1), torch.cat(shown, 1)
