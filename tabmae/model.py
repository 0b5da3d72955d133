"""The masked autoencoder: cells to tokens, tokens to latent, latent to the predictive distribution of every cell.

Contract: changing an invisible value changes no output bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabmae.backbones import Backbone
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

    Buffer `weights` (Fn, 3): how far the mean of training, the expert and the network are believed, per numeric column;
    the network alone until it is set. Training does not use it.

    Source: He et al. 2022; masks a cell, x * (1 - m) + MASK * m, as in Vincent et al. 2008 with a learned MASK.
    """

    weights: Tensor

    def __init__(self, tokenizer: CellTokenizer, backbone: Backbone, expert: Gaussian | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.expert = expert
        n_numbers = len(tokenizer.numbers)
        self.register_buffer("weights", torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).repeat(n_numbers, 1))

    def members(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> Tensor:
        """The numeric cells by the mean of training, the expert and the network; (3, B, Fn) in standard deviations."""
        guess = self.guess(torch.where(visible, values, 0), visible) if guess is None else guess
        latent = self.encode(values, visible, guess)
        network = self.tokenizer.predict(self.backbone.decode(latent, visible), guess).mean
        return self._stacked(network, guess)

    def _stacked(self, network: Tensor, guess: Guess | None) -> Tensor:
        expert = network if guess is None else guess.mean[:, self.tokenizer.expert_of_number].to(network.dtype)
        return torch.stack([torch.zeros_like(network), expert, network])

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
        return self.backbone.encode(tokens, seen)

    def forward(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> CellDistribution:
        """Distribution of every cell of values (B, F) given the visible ones; `guess` spares its computation."""
        guess = self.guess(torch.where(visible, values, 0), visible) if guess is None else guess
        latent = self.encode(values, visible, guess)
        distribution = self.tokenizer.predict(self.backbone.decode(latent, visible), guess)
        if self.training:
            return distribution
        members = self._stacked(distribution.mean, guess)
        return distribution.moved_to((members * self.weights.T[:, None].to(members.dtype)).sum(0))
