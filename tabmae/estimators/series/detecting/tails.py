"""What values of steps are usual, and how much evidence an unusual one is.

Contract: evidence never falls as the value grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from tabmae.calibration import NO_EVIDENCE, TAIL, p_value

LEAST_SCALE = 0.01
"""Growth for one nat, in variances of a channel a cell, that values of windows have at least: members that found the
series of fit without any fault shall not outweigh the others by the least of them."""
N_QUANTILES = 1001
MOST_ODD = 0.2
"""Share of the series of fit that may be odd; where more is far out, as of series that are quiet half of the time, that
is how they are."""


class Tail(NamedTuple):
    """What values are usual: quantiles, and an exponential tail beyond them.

    quantiles : float64 (Q,), at equal shares. scale : by how much a value grows for one nat beyond the last tenth.

    The tail's scale is by quantiles, not by its mean: odd steps among those of fit shall not make odd ones usual.
    """

    quantiles: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, values: Tensor, *, wary: bool = False) -> Self:
        """Learn from the values of steps (n,), NaN where there is none.

        `wary` begins the tail no farther out than the exponential through the quartile and the median does, unless more
        than `MOST_ODD` of the values lie beyond that, and takes its slope from the median to its begin, not from
        within: of values that are alike for many neighbours few are independent, and some odd steps of fit, with all
        windows that hold them, are more than the last tenth.
        """
        known = values[values.isfinite()].double().cpu().numpy()
        known = known if len(known) else np.zeros(1)
        quantiles = np.quantile(known, np.linspace(0, 1, N_QUANTILES))
        quarter, middle, start, beyond = np.quantile(known, [0.25, 0.5, 1 - TAIL, 1 - TAIL / 2])
        slope = (beyond - start) / np.log(2)
        if wary:
            nearer = middle + (middle - quarter) * np.log(0.5 / TAIL) / np.log(0.75 / 0.5)
            start = min(start, nearer) if (known > nearer).mean() <= MOST_ODD else start
            quantiles, slope = np.minimum(quantiles, start), (start - middle) / np.log(0.5 / TAIL)
        scale = max(slope, 1e-3 * abs(start), LEAST_SCALE)
        return cls(torch.from_numpy(quantiles), torch.tensor(scale, dtype=torch.float64))

    def share(self, values: Tensor) -> Tensor:
        """Share of usual values that are at least as large, float64, NaN where NaN; exponential beyond the start."""
        values = values.double().cpu()
        within = p_value(self.quantiles, values.nan_to_num()).clamp_min(TAIL)
        beyond = TAIL * (-(values - self._start) / self.scale).exp()
        return torch.where(values.isnan(), torch.nan, torch.where(values > self._start, beyond, within))

    @property
    def _start(self) -> Tensor:
        """Where the tail begins."""
        return self.quantiles[round((1 - TAIL) * (len(self.quantiles) - 1))]

    def value(self, share: float) -> float:
        """The value that so large a share of usual ones reaches."""
        if share >= TAIL:
            return float(self.quantiles[round((1 - share) * (len(self.quantiles) - 1))])
        return float(self._start + self.scale * np.log(TAIL / share))

    def nats(self, values: Tensor) -> Tensor:
        """Minus the log of the share of usual values that are as large; it does not end where that is 0."""
        values, start = values.double().cpu(), self._start
        return -self.share(torch.minimum(values, start)).log() + ((values - start) / self.scale).clamp_min(0)


def evidence(tails: Sequence[Tail], values: Tensor) -> Tensor:
    """Nats of values (N, M) by the tails of their columns; NaN where NaN."""
    return torch.stack([tail.nats(column) for tail, column in zip(tails, values.T, strict=True)], 1)


def added(nats: Tensor) -> Tensor:
    """Evidence of members (N, M), added (N,); a member without a say is as of a median step."""
    return nats.nan_to_num(nan=NO_EVIDENCE).sum(1)
