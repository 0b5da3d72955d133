"""Mixtures of a normal and a histogram, tilted to a mean: values that cannot be moved become likelier, or less."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tabmae.tokenizers.bins import Bins

TILTINGS = 30
STEEPEST = 50.0
"""Steps to find how far a mixture is tilted, and the farthest, in nats a standard deviation."""
MOST_BELOW = 8.0
"""Standard deviations below its location beyond which a normal has nothing."""


class Section:
    """The part of normals (B, Fn) between two ends, which may lie far out in a tail.

    All is told by Mills' ratio beside the end that is nearer to the tail, which neither overflows nor vanishes.
    """

    def __init__(self, location: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        below, above = (low - location) / scale, (high - location) / scale
        is_turned = below < -above
        near, off = torch.where(is_turned, -above, below), torch.where(is_turned, -below, above)
        near = near.clamp_min(-MOST_BELOW)
        off = off.maximum(near)
        fall = (0.5 * (near.square() - off.square())).exp()
        room = (_mills(near) - fall * _mills(off)).clamp_min(torch.finfo(near.dtype).tiny)
        self._location, self._scale, self._side = location, scale, torch.where(is_turned, -1.0, 1.0).to(scale)
        self._near, self._off, self._fall, self._room = near, off, fall, room

    @property
    def log_mass(self) -> Tensor:
        """Log probability of the part."""
        return self._room.log() - 0.5 * self._near.square() - 0.5 * math.log(2 * math.pi)

    @property
    def mean(self) -> Tensor:
        """Mean of the part."""
        return self._location + self._side * self._scale * ((1 - self._fall) / self._room)

    @property
    def variance(self) -> Tensor:
        """Variance of the part."""
        step = (1 - self._fall) / self._room
        share = 1 + (self._near - self._off * self._fall) / self._room - step.square()
        return self._scale.square() * share.clamp_min(0)


def _mills(standard: Tensor) -> Tensor:
    """Probability above a point of the standard normal, by its density there."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(standard / math.sqrt(2))


class Mixture(NamedTuple):
    """A normal and a histogram for each cell, whose weights sum to 1.

    normal : (B, Fn), weight of the normal, all of it between `Bins.ends`. location : (B, Fn), its mean without ends.
    weights : (B, Fn, K) of the bins.
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
            found, variance = self._at(tilt, bins, scale).moments(bins, scale)
            missing = mean - found
            low, high = torch.where(missing > 0, tilt, low), torch.where(missing > 0, high, tilt)
            newton = tilt + missing / variance.clamp_min(1e-12)
            tilt = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        return self._at(tilt, bins, scale)

    def _at(self, tilt: Tensor, bins: Bins, scale: Tensor) -> Mixture:
        location = self.location + tilt * scale.square()
        held, before = (Section(place, scale, *bins.ends).log_mass for place in (location, self.location))
        bend = tilt * self.location + 0.5 * (tilt * scale).square() + held - before
        bends = torch.cat([bend[:, :, None], tilt[:, :, None] * bins.splits], 2)
        weights = (torch.cat([self.normal[:, :, None], self.weights], 2).log() + bends).softmax(2)
        return Mixture(weights[:, :, 0], location, weights[:, :, 1:])

    def moments(self, bins: Bins, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the mixture, (B, Fn) each, the variance but for what spreads within a bin."""
        section = Section(self.location, scale, *bins.ends)
        mean = self.normal * section.mean + (self.weights * bins.splits).sum(2)
        squares = self.normal * (section.mean.square() + section.variance)
        return mean, (squares + (self.weights * bins.splits.square()).sum(2) - mean.square()).clamp_min(0)

    def normal_below(self, bins: Bins, scale: Tensor, numbers: Tensor) -> Tensor:
        """Probability of the normal below numbers (B, Fn)."""
        low, high = bins.ends
        above = Section(self.location, scale, numbers.clamp(low, high), high).log_mass
        between = 1 - (above - Section(self.location, scale, low, high).log_mass).exp()
        whole = torch.special.ndtr((numbers - self.location) / scale)
        return self.normal * torch.where(bins.has_frequent, between, whole)
