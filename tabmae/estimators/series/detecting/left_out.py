"""What is expected of every cell of series whose patch is hidden, the rest of its window visible.

Contract: what is expected of a cell does not know that cell, nor the steps of its channel beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tabmae.estimators.series.completing import AT_ONCE, Completed
from tabmae.estimators.series.detecting.members import stationaries
from tabmae.estimators.series.standard import Line
from tabmae.series_model import SeriesAutoencoder

PATCHES_IN_WINDOW = 8
"""Steps of the model's window over those that are judged at once; as many again are hidden, half on either side."""
MAX_PASSES = 4
"""Rounds in which the channels are hidden, every fourth one at a time."""
LEAST_DEVIATION = 1e-3


@torch.no_grad()
def left_out(model: SeriesAutoencoder, line: Line, chosen: Tensor | None = None) -> Completed:
    """Mean and spread of every cell (N, C), its patch hidden, in standard deviations; 0 outside of series.

    A window moves along the series so that the patch lies in its middle. Of a patch the inner half is judged: a cell
    does not see the odd one beside it. `chosen` : the steps (N,) to judge, None for all.
    """
    window, shape = model.window, (model.window, model.n_channels)
    judged = max(1, window // PATCHES_IN_WINDOW)
    mean, deviation = torch.zeros_like(line.values), torch.ones_like(line.values)
    step, inner = torch.arange(window), torch.arange(judged)
    begins, ends = line.starts.tolist(), (line.starts + line.lengths).tolist()
    first = torch.cat([torch.arange(begin, end, judged) for begin, end in zip(begins, ends, strict=True)])
    if chosen is not None:
        asked = torch.cat([torch.zeros(1, dtype=torch.long), chosen.long().cumsum(0)])
        first = first[asked[(first + judged).clamp_max(len(chosen))] > asked[first]]
    series = torch.searchsorted(line.starts, first, right=True) - 1
    lowest, highest = line.starts[series], (line.starts + line.lengths)[series] - window
    starts = torch.minimum(torch.maximum(first - (window - judged) // 2, lowest), highest)
    batch = max(1, AT_ONCE // (window * model.n_channels * 8))
    n_passes = min(MAX_PASSES, model.n_channels)
    for number in range(n_passes):
        channels = torch.arange(number, model.n_channels, n_passes)
        for some in torch.arange(len(first)).split(batch):
            place = (first - starts)[some][:, None]
            near = (step >= place - judged // 2) & (step < place + judged + judged // 2)
            hidden = torch.zeros(len(some), *shape, dtype=torch.bool)
            hidden[:, :, channels] = near[:, :, None]
            values, visible = line.windows(starts[some], window)
            visible &= ~hidden.flatten(1)
            expected, spread = expected_of(model, values, visible)
            rows, steps = torch.nonzero(place + inner < window, as_tuple=True)
            steps = place[rows, 0] + steps
            target = (starts[some][rows] + steps)[:, None]
            for whole, part in ((mean, expected), (deviation, spread)):
                whole[target, channels] = part.reshape(-1, *shape)[rows[:, None], steps[:, None], channels]
    return Completed(mean, deviation.clamp_min(LEAST_DEVIATION))


def expected_of(model: SeriesAutoencoder, values: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, W * C) of the cells of windows; the experts' deviation where there are some.

    The model's own is wider in windows that the experts miss, and would excuse odd ones. A network that no channel
    believes is not asked.
    """
    cells, seen = (part.to(model.share.device) for part in (values, visible))
    if not len(model.experts):
        found = model(cells, seen)
        return found.mean.cpu(), found.deviation.cpu()
    mean = model(cells, seen).mean if bool(model.share.any()) else model.guess(cells, seen).mean
    return mean.cpu(), spread_of(model, visible)


def spread_of(model: SeriesAutoencoder, visible: Tensor) -> Tensor:
    """Standard deviation (B, W * C) of the cells of windows by the experts."""
    patterns, pattern_of = torch.unique(visible, dim=0, return_inverse=True)
    seen = patterns.unflatten(1, (model.window, model.n_channels))
    variance = torch.ones(seen.shape)
    for channels, expert in stationaries(model):
        flat = seen[:, :, channels].flatten(1).to(model.share.device)
        found = expert.condition(torch.zeros(flat.shape, device=flat.device), flat).variance
        variance[:, :, channels] = found.cpu().unflatten(1, (model.window, len(channels)))
    return variance.flatten(1).sqrt()[pattern_of]
