"""How odd windows of series are to a Gaussian, to clusters and by what was missed, brought back to their steps.

Contract: a missing cell is no evidence; windows of which less than half is observed are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from tabmae.estimators.series.completing import AT_ONCE
from tabmae.estimators.series.standard import Line, Matrix
from tabmae.experts.clusters import Clusters
from tabmae.experts.stationary import Stationary
from tabmae.series_model import SeriesAutoencoder

OVERLAP = 16
"""Windows that hold a step."""
LARGEST_RATIO = 10.0
"""Deviations beyond which a cell is no odder: one cell shall not outweigh a window."""
MAX_WINDOWS = 5000
"""Windows that clusters are learnt from."""


def stationaries(model: SeriesAutoencoder) -> list[tuple[list[int], Stationary]]:
    """The Gaussian of each group of channels; none without experts."""
    return [(group, cast(Stationary, each)) for group, each in zip(model.groups, model.experts, strict=False)]


def relearnt(model: SeriesAutoencoder, values: Tensor, learnt: Tensor) -> SeriesAutoencoder:
    """The model with Gaussians of the same kind that know the `learnt` steps (N,) of values (N, C) alone."""
    experts = []
    for channels, expert in stationaries(model):
        known = learnt[:, None].expand(-1, len(channels))
        experts.append(Stationary(expert.window, len(channels)).fit(values[:, channels], known, expert.ridge))
    other = deepcopy(model)
    other.experts = nn.ModuleList(experts).to(model.share.device)
    return other


def precisions_of(model: SeriesAutoencoder, window: int, chosen: Sequence[int]) -> list[tuple[list[int], Tensor]]:
    """Of each group of channels places among the chosen ones, and the inverse covariance of a window of those alone.

    `window` : steps, no more than the model's.
    """
    found = []
    for channels, expert in stationaries(model):
        local = [place for place, channel in enumerate(channels) if channel in chosen]
        if local:
            cells = (torch.arange(window)[:, None] * expert.n_channels + torch.tensor(local)).flatten()
            inverse = torch.linalg.inv(expert.covariance.cpu()[cells][:, cells]).float()
            found.append(([chosen.index(channels[place]) for place in local], inverse))
    return found


def measured_channels(values: Matrix, lengths: tuple[int, ...]) -> list[int]:
    """Channels of series (sum of lengths, C) that have more than two values in one of them; all, where none has.

    The others are switches, commands and states: what is expected of a measurement follows from them, but how far they
    lie from the mean in standard deviations says not how rare they are, and one seldom used would outweigh all else.
    """
    ends = np.cumsum(lengths)
    parts = [values[end - n : end].T for end, n in zip(ends, lengths, strict=True)]
    found = [
        channel
        for channel in range(values.shape[1])
        if any(len(np.unique(part[channel][np.isfinite(part[channel])])) > 2 for part in parts)
    ]
    return found or list(range(values.shape[1]))


def part_of(line: Line, channels: Sequence[int]) -> Line:
    """Some of the channels of a line."""
    return line._replace(values=line.values[:, channels], observed=line.observed[:, channels])


def learnt_clusters(
    line: Line, filled: Tensor, starts: Tensor, window: int, kinds: Sequence[bool], seed: int
) -> list[Clusters]:
    """Clusters of windows, raw or of shapes; of many windows some, at random: equal steps would miss phases."""
    chosen = starts[torch.randperm(len(starts), generator=torch.Generator().manual_seed(seed))[:MAX_WINDOWS]]
    steps = chosen[:, None] + torch.arange(window)
    windows, seen = filled[steps].flatten(1), line.observed[steps].flatten(1)
    return [Clusters(filled.shape[1], shapes=shapes).fit(windows, seen, seed) for shapes in kinds]


def of_members(
    line: Line,
    filled: Tensor,
    window: int,
    starts: Tensor,
    precisions: Sequence[tuple[list[int], Tensor]],
    clusters: Sequence[Clusters],
) -> Tensor:
    """Mean over the windows that hold a step of how odd they are to the Gaussian and to each of the clusters (N, M)."""
    parts = []
    for chunk in starts.split(max(1, AT_ONCE // (window * filled.shape[1]))):
        steps = chunk[:, None] + torch.arange(window)
        cells, seen = filled[steps], line.observed[steps].flatten(1)
        found = [clusters_of.distances(cells.flatten(1), seen) for clusters_of in clusters]
        if precisions:
            flat = [(cells[:, :, channels].flatten(1), precision) for channels, precision in precisions]
            found.insert(0, torch.stack([((part @ precision) * part).sum(1) for part, precision in flat]).sum(0))
        parts.append(torch.stack(found, 1))
    odd = torch.cat(parts)
    return over_windows(line, window, starts, odd, counted_cells(line, window, starts)[:, None].expand_as(odd))


def of_residuals(line: Line, ratios: Tensor, window: int, chosen: Sequence[int]) -> Tensor:
    """Mean square of the ratios (N, C) of windows, over those that hold a step: of chosen channels, then of each."""
    starts = line.covering(window, max(1, window // OVERLAP))
    squares = ratios.nan_to_num().clamp_max(LARGEST_RATIO).square()
    odd, count = torch.zeros(2, len(starts), squares.shape[1], dtype=torch.float64)
    for step in range(window):
        odd += squares[starts + step]
        count += line.observed[starts + step]
    odd, count = (torch.cat([part[:, chosen].sum(1, keepdim=True), part], 1) for part in (odd, count))
    return over_windows(line, window, starts, odd, count)


def counted_cells(line: Line, window: int, starts: Tensor) -> Tensor:
    """Observed cells of windows, (n,)."""
    count = torch.cat([torch.zeros(1), line.observed.sum(1).double()]).cumsum(0)
    return count[starts + window] - count[starts]


def is_full(line: Line, window: int, starts: Tensor) -> Tensor:
    """Whether windows are judged, (n,): at least half of their cells is observed."""
    return counted_cells(line, window, starts) >= window * line.values.shape[1] / 2


def over_windows(line: Line, window: int, starts: Tensor, odd: Tensor, count: Tensor) -> Tensor:
    """For each step (N, M) what is odd in the windows that hold it, an observed cell; windows (n, M) with their cells.

    Windows of which less than half is observed are left out; NaN where none is left.
    """
    full = is_full(line, window, starts)
    parts, starts = [part[full].double() for part in (odd, count)], starts[full]
    # Step by step, since differences of sums over all steps would hold what far cells elsewhere rounded off.
    sums = torch.zeros(2, len(line.values), odd.shape[1], dtype=torch.float64)
    for step in range(window):
        for part, total in zip(parts, sums, strict=True):
            total.index_add_(0, starts + step, part)
    return torch.where(sums[1] > 0.5, sums[0] / sums[1].clamp_min(1), torch.nan)
