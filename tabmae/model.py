"""The masked autoencoder: cells to tokens, tokens to latent, latent to the predictive distribution of every cell.

Contract: changing an invisible value changes no output bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabmae.experts.gaussian import Gaussian
from tabmae.tokenizers import CellDistribution, CellTokenizer, Guess

WIDE = 120
"""Expert columns beyond which the conditional variance is left at its bound: it would take most of the time."""


class MaskedAutoencoder(nn.Module):
    """Tokenizer, backbone and, if any, the expert whose guess the network starts from.

    Parameters
    ----------
    tokenizer : embeds cells and predicts cells.
    backbone : `encode(tokens, seen) -> latent (B, M, E)` and `decode(latent, seen) -> (B, F, D)`.
    expert : fitted; None for the pure masked autoencoder.

    Source: He et al. 2022; masks a cell, x * (1 - m) + MASK * m, as in Vincent et al. 2008 with a learned MASK.
    """

    def __init__(self, tokenizer: CellTokenizer, backbone: nn.Module, expert: Gaussian | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.expert = expert

    @torch.no_grad()
    def guess(self, values: Tensor, visible: Tensor) -> Guess | None:
        """The expert's mean and variance of every cell from the visible ones; None without an expert."""
        if self.expert is None:
            return None
        cells, shown = self.tokenizer.expand(values, visible)
        return Guess(*self.expert.condition(cells, shown, with_variance=cells.shape[1] <= WIDE))

    def encode(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> Tensor:
        """Latent (B, M, E) of rows: values (B, F), visible bool (B, F)."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        tokens, seen = self.tokenizer.embed(values, visible, guess)
        latent: Tensor = self.backbone.encode(tokens, seen)
        return latent

    def forward(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> CellDistribution:
        """Distribution of every cell of values (B, F) given the visible ones; `guess` spares its computation."""
        guess = self.guess(torch.where(visible, values, 0), visible) if guess is None else guess
        latent = self.encode(values, visible, guess)
        return self.tokenizer.predict(self.backbone.decode(latent, visible), guess)
