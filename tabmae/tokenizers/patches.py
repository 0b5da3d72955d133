"""Patches of series as tokens, and what is predicted of their cells.

Contract: a cell that is not visible has no influence on a token but through the guess, which does not know it either.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tabmae.losses import LOSSES, huber

N_INPUTS = 6
"""Numbers a cell brings into its token: guess, visible, two experts, what they missed here, how far they miss."""
LARGEST_INPUT = 10.0
START = 0.02
"""Size of the first corrections: the network starts from the experts' guess."""
HUBER_DELTA = 0.1


class SeriesGuess(NamedTuple):
    """What is known of the cells of windows (B, W * C) before the network is asked; all in standard deviations.

    mean : the experts' guess, the value itself where visible.
    variance : of the guess. noise : how far it misses visible cells that it does not know.
    level, spread : mean and standard deviation of the visible cells of the window's channel.
    expert, interpolation : the two guesses behind `mean`. missed : by how much the expert misses each visible cell.
    """

    mean: Tensor
    variance: Tensor
    noise: Tensor
    level: Tensor
    spread: Tensor
    expert: Tensor
    interpolation: Tensor
    missed: Tensor


class SeriesDistribution(NamedTuple):
    """Mean and standard deviation of every cell of windows, (B, W * C)."""

    mean: Tensor
    deviation: Tensor


class PatchTokenizer(nn.Module):
    """Windows (B, W * C) to tokens (B, W / P, D), one for the P steps of a patch with all their channels, and back.

    Source: patches as tokens, Nie et al. 2023, section 3.1.
    Differs: a token holds all channels of its steps; invisible cells add the MASK vectors of their places.
    """

    def __init__(self, window: int, n_channels: int, patch: int, d_token: int, loss: str = "huber") -> None:
        super().__init__()
        self.window, self.n_channels, self.patch, self.loss = window, n_channels, patch, loss
        n_cells = patch * n_channels
        self.embedding = nn.Linear(N_INPUTS * n_cells, d_token)
        self.mask_token = nn.Parameter(START * torch.randn(n_cells, d_token))
        self.correction = nn.Linear(d_token, n_cells)
        with torch.no_grad():
            self.correction.weight.mul_(START)
            self.correction.bias.zero_()

    @property
    def n_tokens(self) -> int:
        return self.window // self.patch

    def embed(self, values: Tensor, visible: Tensor, guess: SeriesGuess) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) of windows, and bool (B, N), whether any of a token's cells is visible."""
        inputs = torch.stack(
            [
                (guess.mean - guess.level) / guess.spread,
                visible.to(values.dtype),
                (guess.interpolation - guess.mean) / guess.noise,
                (guess.expert - guess.mean) / guess.noise,
                guess.missed / guess.noise,
                (guess.noise / guess.spread).log(),
            ],
            -1,
        ).clamp(-LARGEST_INPUT, LARGEST_INPUT)
        n_cells = self.patch * self.n_channels
        shown = visible.reshape(len(values), self.n_tokens, n_cells)
        tokens = self.embedding(inputs.reshape(len(values), self.n_tokens, n_cells * N_INPUTS))
        return tokens + (~shown).to(tokens.dtype) @ self.mask_token, shown.any(2)

    def predict(self, tokens: Tensor, guess: SeriesGuess) -> SeriesDistribution:
        """Distribution of every cell from decoded tokens (B, N, D): the guess, corrected on its own scale."""
        correction = self.correction(tokens).reshape(guess.mean.shape)
        return SeriesDistribution(guess.mean + guess.noise * correction, guess.variance.sqrt())

    def errors(self, distribution: SeriesDistribution, values: Tensor) -> Tensor:
        """Error of every cell, (B, W * C)."""
        if self.loss == "huber":
            return huber(distribution.mean, values, HUBER_DELTA) / HUBER_DELTA
        return LOSSES[self.loss](distribution.mean, values)
