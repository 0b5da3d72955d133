"""Complete series by overlapping windows: the mean, the spread and joint draws of their missing cells.

Contract: a series' answer depends on that series alone; every window sees all observed cells in its reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from tabmae.estimators.series.standard import Line
from tabmae.experts.bridges import Bridge, Bridges, bridged
from tabmae.experts.seasonal import Prior
from tabmae.series_model import SeriesAutoencoder

LEAST_DOUBT = 1e-6
MOST_KNOWN = 0.9999
"""Variance, in those of the channel, from which on a window knows nothing of a cell."""
SHARPNESS = 2
"""Power of the precision by which windows and prior are weighed: they err alike where a gap is short."""
AT_ONCE = 2_000_000
"""Cells of the windows that are predicted at once."""


class Completed(NamedTuple):
    """A line of steps completed: mean and standard deviation (N, C), in standard deviations; 0 outside of series."""

    mean: Tensor
    deviation: Tensor


class LinePrior(NamedTuple):
    """What level and seasons say of cells (N, C) of a line, in standard deviations; infinite variance for nothing."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, line: Line, prior: Prior) -> Self:
        """Lay the answers for a panel's steps into its line."""
        mean, variance = torch.zeros_like(line.values), torch.full_like(line.values, torch.inf)
        mean[line.place] = torch.from_numpy(prior.mean).to(mean)
        variance[line.place] = torch.from_numpy(prior.variance).to(variance)
        return cls(mean, variance)

    def inform(self, mean: Tensor, deviation: Tensor, steps: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Mean and deviation of cells that windows believe, drawn to the prior as far as they know less of a cell.

        `steps` : of the line, which the cells lie at.
        """
        prior, variance = self.mean[steps], self.variance[steps]
        known = 1 / deviation.square().clamp(LEAST_DOUBT, MOST_KNOWN) - 1  # precision beyond the channel's own
        share = 1 / (1 + (known * variance) ** SHARPNESS)
        wide = torch.where(share > 0, variance, 0).sqrt()
        return mean + share * (prior - mean), deviation + share * (wide - deviation)


class Beyond(NamedTuple):
    """What is known of a gap beyond the windows that hold its cells: the prior, and its straight line if learnt."""

    prior: LinePrior
    bridges: Bridges | None = None

    def inform(self, line: Line, mean: Tensor, deviation: Tensor, steps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and deviation of cells that windows believe, drawn to both. `steps` : of the cells; None for all."""
        at = slice(None) if steps is None else steps
        mean, deviation = self.prior.inform(mean, deviation, at)
        if self.bridges is None:
            return mean, deviation
        bridge = bridged(line.values, line.observed, line.owner)
        alone = ~line.observed.any(1, keepdim=True).expand_as(line.observed)
        return self.bridges.inform(mean, deviation, Bridge(*(part[at] for part in bridge)), alone[at])


@torch.no_grad()
def in_batches(
    model: SeriesAutoencoder, line: Line, starts: Tensor, answer: Callable[[Tensor, Tensor, Tensor], None]
) -> None:
    """Call `answer(starts, values, visible)` for windows, some at a time, on the model's device."""
    device = model.share.device
    batch = max(1, AT_ONCE // (model.window * model.n_channels * 8))
    for chunk in starts.split(batch) if len(starts) else ():
        values, visible = line.windows(chunk, model.window)
        answer(chunk, values.to(device), visible.to(device))


def incomplete(line: Line, window: int, wanted: Tensor | None = None) -> Tensor:
    """Starts of the windows, half overlapping, that hold a missing cell of a series, or of the `wanted` steps (N,)."""
    starts = line.covering(window, max(1, window // 2))
    missing = torch.zeros(len(line.values), dtype=torch.bool)
    missing[line.place] = ~line.observed[line.place].all(1)
    if wanted is not None:
        missing &= wanted
    count = torch.cat([torch.zeros(1), missing.double()]).cumsum(0)
    return starts[count[starts + window] > count[starts]]


def complete(
    model: SeriesAutoencoder, line: Line, beyond: Beyond | None = None, wanted: Tensor | None = None
) -> Completed:
    """Mean and spread of every missing cell, averaged over the windows that hold it, and drawn to what lies beyond.

    A window counts by how surely it knows the cell, and more where the cell lies further inside. `wanted` : bool (N,),
    steps whose cells alone need be right; None for all.
    """
    window, shape = model.window, (model.window, model.n_channels)
    hat = (torch.minimum(torch.arange(window), torch.arange(window).flip(0)) + 1.0).square()[:, None]
    mean, variance = torch.zeros_like(line.values), torch.zeros_like(line.values)
    weight = torch.zeros_like(line.values)

    def add(starts: Tensor, values: Tensor, visible: Tensor) -> None:
        found = model(values, visible)
        steps = (starts[:, None] + torch.arange(window)).flatten()
        doubt = found.deviation.cpu().square().reshape(-1, *shape)
        believed = hat / doubt.clamp_min(LEAST_DOUBT)
        parts = found.mean.cpu().reshape(-1, *shape), doubt, torch.ones_like(doubt)
        for total, part in zip((mean, variance, weight), parts, strict=True):
            total.index_add_(0, steps, (part * believed).flatten(0, 1).to(total))

    in_batches(model, line, incomplete(line, window, wanted), add)
    share = weight.clamp_min(1e-30)
    found, deviation = mean / share, (variance / share).sqrt()
    if beyond is not None:
        found, deviation = beyond.inform(line, found, deviation)
    return Completed(torch.where(line.observed, line.values, found), torch.where(line.observed, 0, deviation))


@torch.no_grad()
def draw(
    model: SeriesAutoencoder,
    line: Line,
    beyond: Beyond | None,
    spread: Callable[[Tensor, Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """One joint draw of all missing cells (N, C): windows side by side, those between them, and the last, in turn.

    Parameters
    ----------
    spread : standard normal cells (B, W, C), their deviations and the visible ones, drawn ones among them, to cells as
        wide as held-out ones were.

    The correlation of the cells of a window is the Gaussian's; a gap longer than a window is drawn in pieces, each
    given the ones before.
    """
    window, shape = model.window, (model.window, model.n_channels)
    values, observed = line.values.clone(), line.observed.clone()
    starts = incomplete(line, window)
    middle = torch.zeros(window, dtype=torch.bool)
    middle[window // 4 : window - window // 4] = True
    last = {int(end) - window for end in line.starts + line.lengths}
    first = set(line.starts.tolist())
    pending = torch.zeros_like(observed)
    pending[line.place] = ~observed[line.place]
    begin = line.starts[torch.searchsorted(line.starts, starts, right=True) - 1]
    half = max(1, window // 2)
    turn = torch.where((starts - begin) % half == 0, (starts - begin).div(half, rounding_mode="floor") % 2, 2)
    for parity in (0, 1, 2):
        chosen, known = starts[turn == parity], line._replace(values=values.clone(), observed=observed.clone())
        for chunk in chosen.split(max(1, AT_ONCE // (window * model.n_channels * 8))) if len(chosen) else ():
            steps = chunk[:, None] + torch.arange(window)
            cells, visible = values[steps].flatten(1), observed[steps].flatten(1)
            found = model(cells.to(model.share.device), visible.to(model.share.device))
            noise = model.joint_noise(visible, generator).reshape(-1, *shape)
            mean, deviation = (part.cpu().reshape(-1, *shape) for part in (found.mean, found.deviation))
            if beyond is not None:
                mean, deviation = beyond.inform(known, mean, deviation, steps)
            drawn = mean + spread(noise, deviation, visible.reshape(-1, *shape)) * deviation
            own = middle.repeat(len(chunk), 1)
            for row, start in enumerate(chunk.tolist()):
                if start in first:
                    own[row, : window // 2] = True
                if start in last:
                    own[row, window // 2 :] = True
            if parity:
                own[:] = True
            now = pending[steps] & own[:, :, None]
            rows, places, channels = torch.nonzero(now, as_tuple=True)
            target = steps[rows, places]
            values[target, channels] = drawn[rows, places, channels].to(values)
            observed[target, channels] = True
            pending[target, channels] = False
    if pending.any():
        rest = line._replace(values=values, observed=observed)
        values = torch.where(pending, complete(model, rest, beyond).mean, values)
    return values
