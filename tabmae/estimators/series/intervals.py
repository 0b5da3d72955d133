"""How far completed cells are to be trusted: Student's t about the mean, calibrated on held-out cells.

Contract: a cell's interval depends on its channel, its own deviation and how far the nearest observed cell lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from tabmae.calibration import Calibration
from tabmae.estimators.series.fitting import Judgement

DEGREES = 4.0
"""Degrees of freedom of Student's t: windows are not equally hard."""
EDGES = (0.25, 0.6)
"""Deviations, in standard deviations of the channel, between cells that are easy, harder and hardly known."""
NEAR = 2
"""Steps to the nearest observed cell of the channel up to which a missing one is a point, beyond which it is a run."""
N_KINDS = 2 * (len(EDGES) + 1)


class JudgedCells(NamedTuple):
    """Held-out cells (n,): what was missed of each and how far, by its deviation; steps to the nearest visible one."""

    missed: Tensor
    deviation: Tensor
    nearest: Tensor
    channel: Tensor


class CellIntervals:
    """Calibrations (`N_KINDS`) of cells by how little is known of them, points before runs, each per channel."""

    def __init__(self, calibrations: Sequence[Calibration]) -> None:
        self.calibrations = list(calibrations)

    @classmethod
    def fit(cls, judgement: Judgement | None, n_channels: int, more: JudgedCells | None = None) -> Self:
        """Calibrate on held-out cells, of windows and `more`; without any, intervals are what the model says."""
        parts = [part for part in (None if judgement is None else cells_judged(judgement), more) if part is not None]
        if not parts:
            return cls([Calibration([torch.zeros(0)] * n_channels) for _ in range(N_KINDS)])
        missed, deviation, nearest, channel = (torch.cat(part) for part in zip(*parts, strict=True))
        ratio = missed.abs().double() / deviation.double().clamp_min(1e-6)
        central = torch.from_numpy(2 * student_t.cdf(ratio.numpy(), DEGREES) - 1)
        kind = kinds_of(deviation, nearest)
        return cls(
            [
                Calibration([central[(kind == number) & (channel == c)] for c in range(n_channels)])
                for number in range(N_KINDS)
            ]
        )

    def half_width(self, deviation: Tensor, visible: Tensor, level: float) -> Tensor:
        """Half the width of the intervals of cells (N, C) in a line of steps, in the unit of their deviation."""
        asked = np.array(
            [[part.level(c, level) for c in range(deviation.shape[1])] for part in self.calibrations]
        )  # (kinds, C)
        times = torch.from_numpy(student_t.ppf((1 + asked) / 2, DEGREES))
        return deviation.double() * times.gather(0, kinds(deviation, visible))

    def spread(self, noise: Tensor, deviation: Tensor, visible: Tensor) -> Tensor:
        """Standard normal cells (B, W, C) to cells as wide as held-out ones of the same kind were."""
        central = torch.from_numpy(2 * norm.cdf(noise.abs().double().numpy()) - 1)
        kind = kinds(deviation, visible)
        asked = torch.zeros_like(central)
        for number, calibration in enumerate(self.calibrations):
            for c in range(central.shape[-1]):
                chosen = kind[..., c] == number
                asked[..., c][chosen] = calibration.spread(c, central[..., c][chosen])
        wide = student_t.ppf((1 + asked.numpy()) / 2, DEGREES)
        return torch.from_numpy(wide).to(noise) * noise.sign()


def cells_judged(judgement: Judgement) -> JudgedCells:
    """The held-out cells of windows."""
    hidden = judgement.hidden
    channel = torch.arange(hidden.shape[-1]).expand(hidden.shape)
    missed = judgement.values - judgement.mean
    parts = missed, judgement.deviation, steps_to_visible(judgement.visible), channel
    return JudgedCells(*(part[hidden] for part in parts))


def kinds(deviation: Tensor, visible: Tensor) -> Tensor:
    """Number of the calibration of each cell (..., T, C), by its deviation and whether a visible cell is near."""
    return kinds_of(deviation, steps_to_visible(visible))


def kinds_of(deviation: Tensor, nearest: Tensor) -> Tensor:
    """The same for cells of any one shape, by the steps to the nearest visible one."""
    far = (nearest > NEAR).long()
    return torch.bucketize(deviation.contiguous(), torch.tensor(EDGES).to(deviation)) + far * (len(EDGES) + 1)


def steps_to_visible(visible: Tensor) -> Tensor:
    """Steps (..., T, C) from each cell to the nearest visible one of its channel; more than T where there is none."""
    n_steps = visible.shape[-2]
    step = torch.arange(n_steps, device=visible.device)[:, None].expand(visible.shape)
    never = 2 * n_steps
    before = step - step.where(visible, -never).cummax(-2).values
    after = step.where(visible, 3 * never).flip(-2).cummin(-2).values.flip(-2) - step
    return torch.minimum(before, after)
