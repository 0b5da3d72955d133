"""The masked autoencoder of series windows: experts guess every cell, tokens of the guess become a correction.

Contract: changing an invisible value changes no output bit; windows do not feel each other.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from tabmae.backbones import Backbone
from tabmae.experts.interpolation import interpolate
from tabmae.experts.stationary import Stationary
from tabmae.tokenizers import PatchTokenizer, SeriesDistribution, SeriesGuess

SHARPNESS = 4
"""Power of the left-out error by which the two guesses are weighed."""
LEAST_NOISE = 1e-3
LEAST_SPREAD = 0.05
PRIOR_CELLS = 2.0
"""Visible cells that the level, the spread and the noise of all windows count for in those of a window."""
PRIOR_NOISE = 0.3
LEAST_VISIBLE = 0.1
"""Share of visible cells below which a window's guess is not corrected."""
MEAN_OF_NORMAL = (2 / math.pi) ** 0.5
"""Mean absolute value of a standard normal."""


class SeriesAutoencoder(nn.Module):
    """Tokenizer, backbone, and the experts whose guess the network corrects.

    Parameters
    ----------
    tokenizer : embeds and predicts patches. backbone : `encode(tokens, seen)`, `decode(latent, seen)`.
    experts : a fitted `Stationary` for each group of channels; None for the pure masked autoencoder.
    groups : the channels of each group; every channel in one of them.

    Buffer `share` (C,) is how far the correction is believed when the model predicts, per channel: 1 until set.
    """

    share: Tensor

    def __init__(
        self,
        tokenizer: PatchTokenizer,
        backbone: Backbone,
        experts: list[Stationary] | None = None,
        groups: list[list[int]] | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.backbone = tokenizer, backbone
        self.experts = nn.ModuleList(experts or [])
        self.groups = groups or []
        self.register_buffer("share", torch.ones(tokenizer.n_channels))

    @property
    def window(self) -> int:
        return self.tokenizer.window

    @property
    def n_channels(self) -> int:
        return self.tokenizer.n_channels

    @torch.no_grad()
    def guess(self, values: Tensor, visible: Tensor) -> SeriesGuess:
        """What the experts believe of windows: values (B, W * C), anything where not visible; visible bool."""
        shape = len(values), self.window, self.n_channels
        x, seen = torch.where(visible, values, 0).reshape(shape), visible.reshape(shape)
        count = seen.sum(1, keepdim=True)
        level = x.sum(1, keepdim=True) / (count + PRIOR_CELLS)
        square = (torch.where(seen, x - level, 0)).square().sum(1, keepdim=True)
        spread = ((square + PRIOR_CELLS) / (count + PRIOR_CELLS)).sqrt().clamp_min(LEAST_SPREAD)
        level, spread = level.expand(shape), spread.expand(shape)
        if not len(self.experts):
            mean = torch.where(seen, x, level)
            parts = mean, spread.square(), spread, level, spread, mean, mean, torch.zeros_like(x)
            return SeriesGuess(*(part.reshape(values.shape) for part in parts))
        line = interpolate(x, seen)
        expert, variance, left_out = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        for channels, module in zip(self.groups, self.experts, strict=True):
            flat = len(x), self.window * len(channels)
            found = cast(Stationary, module).condition(
                x[:, :, channels].reshape(flat), seen[:, :, channels].reshape(flat)
            )
            for whole, part in zip((expert, variance, left_out), found, strict=True):
                whole[:, :, channels] = part.reshape(len(x), self.window, len(channels))
        missed = torch.where(seen, x - left_out, 0)
        of_expert = self._noise(missed, count)
        of_line = self._noise(torch.where(seen, x - line.left_out, 0), count)
        believed = (of_line * line.distance).pow(-SHARPNESS)
        believed = believed / (believed + of_expert.pow(-SHARPNESS))
        mean = believed * line.mean + (1 - believed) * expert
        # a window that the expert misses more than it thinks is less sure everywhere
        expected = self._noise(torch.where(seen, MEAN_OF_NORMAL * variance.sqrt(), 0), count)
        variance = variance * (of_expert / expected).square()
        parts = mean, variance, of_expert.expand(shape), level, spread, expert, line.mean, missed
        return SeriesGuess(*(part.reshape(values.shape) for part in parts))

    @staticmethod
    def _noise(missed: Tensor, count: Tensor) -> Tensor:
        """Mean absolute error over the visible cells of a window's channel, (B, 1, C)."""
        total = missed.abs().sum(1, keepdim=True)
        return ((total + PRIOR_CELLS * PRIOR_NOISE) / (count + PRIOR_CELLS)).clamp_min(LEAST_NOISE)

    def encode(self, values: Tensor, visible: Tensor, guess: SeriesGuess | None = None) -> Tensor:
        """Latent (B, M, E) of windows (B, W * C)."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        tokens, seen = self.tokenizer.embed(values, visible, guess)
        return self.backbone.encode(tokens, seen)

    def network(self, values: Tensor, visible: Tensor, guess: SeriesGuess) -> SeriesDistribution:
        """What the network alone believes of windows."""
        values = torch.where(visible, values, 0)
        tokens, seen = self.tokenizer.embed(values, visible, guess)
        latent = self.backbone.encode(tokens, seen)
        return self.tokenizer.predict(self.backbone.decode(latent, seen), guess)

    def forward(self, values: Tensor, visible: Tensor, guess: SeriesGuess | None = None) -> SeriesDistribution:
        """Distribution of every cell of windows given the visible ones; the network's alone in training."""
        guess = self.guess(values, visible) if guess is None else guess
        found = self.network(values, visible, guess)
        if self.training:
            return found
        return found._replace(mean=self.believed(guess, found, visible))

    def believed(self, guess: SeriesGuess, found: SeriesDistribution, visible: Tensor) -> Tensor:
        """Means (B, W * C): the guess, corrected as far as each channel believes it.

        Without experts, wholly; with them, not in windows of which next to nothing is visible: few of those were seen.
        """
        share = self.share.to(guess.mean).repeat(self.window)
        if len(self.experts):
            share = share * (visible.float().mean(1, keepdim=True) >= LEAST_VISIBLE)
        return guess.mean + share * (found.mean - guess.mean)

    @torch.no_grad()
    def joint_noise(self, visible: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal cells (B, W * C), correlated as the experts say; independent without them."""
        if not len(self.experts):
            return torch.randn(visible.shape, generator=generator)
        seen = visible.reshape(len(visible), self.window, self.n_channels)
        noise = torch.zeros(seen.shape)
        for channels, module in zip(self.groups, self.experts, strict=True):
            found = cast(Stationary, module).joint_noise(seen[:, :, channels].flatten(1), generator)
            noise[:, :, channels] = found.reshape(len(seen), self.window, -1).to(noise)
        return noise.flatten(1)
