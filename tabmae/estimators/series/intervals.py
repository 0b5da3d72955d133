"""How far completed cells are to be trusted: Student's t about the mean, calibrated on held-out cells.

Contract: a cell's interval depends on its own deviation and channel alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from tabmae.calibration import Calibration
from tabmae.estimators.series.fitting import Judgement

DEGREES = 4.0
"""Degrees of freedom of Student's t: windows are not equally hard."""
EDGES = (0.25, 0.6)
"""Deviations, in standard deviations of the channel, between cells that are easy, harder and hardly known."""

Matrix = NDArray[np.float64]


class CellIntervals:
    """Calibrations (`EDGES` and one more) of cells by how little is known of them, each per channel."""

    def __init__(self, calibrations: Sequence[Calibration]) -> None:
        self.calibrations = list(calibrations)

    @classmethod
    def fit(cls, judgement: Judgement | None, n_channels: int) -> Self:
        """Calibrate on held-out cells; without any, intervals are what the model says."""
        if judgement is None:
            return cls([Calibration([torch.zeros(0)] * n_channels) for _ in range(len(EDGES) + 1)])
        ratio = (judgement.values - judgement.mean).abs() / judgement.deviation.clamp_min(1e-6)
        central = torch.from_numpy(2 * student_t.cdf(ratio.double().numpy(), DEGREES) - 1)
        kind = torch.bucketize(judgement.deviation.contiguous(), torch.tensor(EDGES))
        return cls(
            [
                Calibration(
                    [central[:, :, c][judgement.hidden[:, :, c] & (kind[:, :, c] == number)] for c in range(n_channels)]
                )
                for number in range(len(EDGES) + 1)
            ]
        )

    def half_width(self, deviation: Matrix, level: float) -> Matrix:
        """Half the width of the intervals of cells (N, C), in the unit of their deviation."""
        asked = np.array(
            [[part.level(c, level) for c in range(deviation.shape[1])] for part in self.calibrations]
        )  # (kinds, C)
        times = student_t.ppf((1 + asked) / 2, DEGREES)
        kind = np.digitize(deviation, EDGES)
        half: Matrix = deviation * np.take_along_axis(times, kind, axis=0)
        return half

    def spread(self, noise: Tensor, deviation: Tensor) -> Tensor:
        """Standard normal cells (..., C) to cells as wide as held-out ones of the same deviation were."""
        central = torch.from_numpy(2 * norm.cdf(noise.abs().double().numpy()) - 1)
        kind = torch.bucketize(deviation.contiguous(), torch.tensor(EDGES).to(deviation))
        asked = torch.zeros_like(central)
        for number, calibration in enumerate(self.calibrations):
            for c in range(central.shape[-1]):
                chosen = kind[..., c] == number
                asked[..., c][chosen] = calibration.spread(c, central[..., c][chosen])
        wide = student_t.ppf((1 + asked.numpy()) / 2, DEGREES)
        return torch.from_numpy(wide).to(noise) * noise.sign()
