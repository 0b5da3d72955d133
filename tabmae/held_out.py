"""Cells that are held out of training: the error by which the best weights are chosen.

Contract: a held-out cell is predicted from the cells that training may see; the model is left in evaluation mode.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tabmae.losses import masked_mean
from tabmae.model import MaskedAutoencoder
from tabmae.series_model import SeriesAutoencoder

MAX_ROWS = 4096
MAX_CELLS = 400_000
"""Rows with held-out cells that are judged, and cells of them that are predicted at once."""
LARGEST_ERROR = 10.0
"""Error of a held-out cell beyond which it counts no more: one spike would choose the weights of all other cells."""


Autoencoder = MaskedAutoencoder | SeriesAutoencoder


class HeldOut:
    """Error on held-out cells, predicted from the cells that training may see.

    Parameters
    ----------
    model : whose expert guesses the cells once.
    values, observed : (n, F); the observed cells are those that training may see.
    held_out : bool (n, F), known cells outside of these; None for none.
    weight : (n,), how far each row counts.
    """

    def __init__(
        self, model: Autoencoder, values: Tensor, observed: Tensor, held_out: Tensor | None, weight: Tensor
    ) -> None:
        cells = torch.zeros_like(observed) if held_out is None else held_out
        rows = torch.nonzero(cells.any(1))[:, 0]
        rows = rows[:: max(1, -(-len(rows) // MAX_ROWS))]
        self.exists = len(rows) > 0
        self.visible, self.cells, self.weight = observed[rows], cells[rows], weight[rows]
        self.values = torch.where(self.visible | self.cells, values[rows], 0)
        self.size = max(1, MAX_CELLS // max(1, values.shape[1]))
        self.guesses: list[Any] = [model.guess(*rows) for rows in self._parts()]

    @torch.no_grad()
    def error(self, model: Autoencoder) -> float:
        """Mean loss of a model's network on the held-out cells; NaN without any."""
        if not self.exists:
            return math.nan
        model.eval()
        errors = []
        for (values, visible), guess in zip(self._parts(), self.guesses, strict=True):
            distribution: Any = model.network(torch.where(visible, values, 0), visible, guess)
            errors.append(model.tokenizer.errors(distribution, values))
        return masked_mean(torch.cat(errors).clamp_max(LARGEST_ERROR), self.cells, self.weight).item()

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Values and visible cells of as many rows as are predicted at once."""
        return zip(self.values.split(self.size), self.visible.split(self.size), strict=True)
