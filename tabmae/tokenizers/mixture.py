"""Mixtures of a normal and a histogram, tilted to a mean: values that cannot be moved become likelier, or less."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tabmae.tokenizers.bins import Bins

TILTINGS = 20
STEEPEST = 50.0
"""Steps to find how far a mixture is tilted, and the farthest, in nats a standard deviation."""


class Mixture(NamedTuple):
    """A normal and a histogram for each cell, whose weights sum to 1.

    normal : (B, Fn), weight of the normal. location : (B, Fn), its mean. weights : (B, Fn, K) of the bins.
    """

    normal: Tensor
    location: Tensor
    weights: Tensor

    def tilted(self, bins: Bins, scale: Tensor, mean: Tensor) -> Mixture:
        """The mixture p(x) exp(t x), up to a constant, whose mean is `mean` (B, Fn), as far as it can be.

        Within a bin p keeps its form. scale : (B, Fn), of the normal.

        It is the nearest to p of that mean, in nats: no value is lost, and none comes in. Source: exponential tilting,
        Efron 1981, Nonparametric standard errors and confidence intervals, section 11.
        """
        low, high = torch.full_like(mean, -STEEPEST), torch.full_like(mean, STEEPEST)
        tilt = torch.zeros_like(mean)
        for _ in range(TILTINGS):
            found = self._at(tilt, bins, scale)
            missing = mean - found.mean(bins, scale)
            low, high = torch.where(missing > 0, tilt, low), torch.where(missing > 0, high, tilt)
            newton = tilt + missing / found._variance(bins, scale).clamp_min(1e-12)
            tilt = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        return self._at(tilt, bins, scale)

    def _at(self, tilt: Tensor, bins: Bins, scale: Tensor) -> Mixture:
        bend = tilt * self.location + 0.5 * (tilt * scale).square()
        bends = torch.cat([bend[:, :, None], tilt[:, :, None] * bins.splits], 2)
        weights = (torch.cat([self.normal[:, :, None], self.weights], 2).log() + bends).softmax(2)
        return Mixture(weights[:, :, 0], self.location + tilt * scale.square(), weights[:, :, 1:])

    def mean(self, bins: Bins, scale: Tensor) -> Tensor:
        """Mean of the mixture, (B, Fn), whose tails beyond an outer bin of one value are drawn as that value."""
        location = self.location
        for side, end in zip((-1, 1), bins.ends, strict=True):
            beyond = side * (self.location - end)
            standard = beyond / scale
            density = (-0.5 * standard.square()).exp() / math.sqrt(2 * math.pi)
            location = location - side * (beyond * torch.special.ndtr(standard) + scale * density)
        return self.normal * location + (self.weights * bins.splits).sum(2)

    def _variance(self, bins: Bins, scale: Tensor) -> Tensor:
        """About how the mean rises with the tilt."""
        mean = self.normal * self.location + (self.weights * bins.splits).sum(2)
        second = self.normal * (self.location.square() + scale.square()) + (self.weights * bins.splits.square()).sum(2)
        return second - mean.square()
