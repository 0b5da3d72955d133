"""What a missing cell may have been: what rows of fit hold there that are near in the observed cells.

Contract: a missing cell is not read, and what a row is given does not depend on the other rows asked with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tabmae.estimators.detector.completion import expanded, shown_levels

N_DONORS = 5
"""Donors of a row: few, as trees are asked once for each."""
MAX_DONORS = 500
"""Rows that they are looked for among, drawn from all: more take longer and are hardly nearer."""
MAX_PAIRS = 200_000
"""Distances that are held at once; more leave the processor's cache."""


class Donors:
    """Rows without holes that complete others.

    Parameters
    ----------
    n_levels : for each of F columns 0 for a number, else the number of its levels.
    values : float32 (n, F), the rows; none unless told.

    Source: nearest rows as donors, Andridge and Little 2010; several of them, Rubin and Schenker 1986.
    """

    def __init__(self, n_levels: Sequence[int], values: Tensor | None = None) -> None:
        self.n_shown = shown_levels(n_levels)
        self.values = torch.zeros(0, len(n_levels)) if values is None else values.float()

    def complete(self, values: Tensor, observed: Tensor, own: Tensor | None = None) -> Tensor:
        """Rows (B, F) as each of D donors completes them, (D, B, F); all cells that are not `observed` are the donor's.

        Parameters
        ----------
        own : (B,), the positions of the rows among the donors, which do not complete themselves; None for new rows.
        """
        # rows that are equally near take turns in no order: a table may be sorted
        order = torch.randperm(len(self.values), generator=torch.Generator().manual_seed(0))
        shuffled, place = self.values[order[:MAX_DONORS]], order.argsort()
        theirs, _ = expanded(shuffled, torch.ones_like(shuffled, dtype=torch.bool), self.n_shown)
        parts = torch.cat([theirs.square(), -2 * theirs, torch.ones_like(theirs[:, :1])], 1).T
        found = []
        for rows in torch.arange(len(values)).split(max(1, MAX_PAIRS // len(theirs))):
            cells, shown = expanded(values[rows], observed[rows], self.n_shown)
            cells = torch.where(shown, cells, 0)
            squares = 1 + cells.square().sum(1, keepdim=True)  # where rows are equally near, the 1 drowns rounding
            distance = (torch.cat([shown.double(), cells, squares], 1) @ parts).float()
            if own is not None:
                distance[place[own[rows], None] == torch.arange(len(theirs))] = torch.inf
            nearest = distance.topk(min(N_DONORS, len(theirs) - 1), 1, largest=False).indices.T
            found.append(torch.where(observed[rows], values[rows], shuffled[nearest].to(values)))
        return torch.cat(found, 1)
