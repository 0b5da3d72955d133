"""Origins: histories that judge forecasts and what came after them.

Contract: an origin lies in the steps of its series that judge, unless the series is too short for that.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.estimators.series.standard import scales_at
from tabmae.experts.linear import in_later_half

MAX_ORIGINS, ORIGINS_A_SERIES = 500, 50
"""Origins at most, for few series and for each of many."""

Matrix = NDArray[np.float64]


class Origins(NamedTuple):
    """Histories that judge and what came after them: filled (n, L, C), observed, future (n, H, C), and their series.

    step : where in its series each origin lies, and so how many steps came before. weighed : the rows of weights that
        did not see them. scales : (n, 2, C), level and scale by the cells before each origin, where series have their
        own: those of the whole series tell what is to come.
    """

    history: Tensor
    observed: Tensor
    future: Tensor
    known: Tensor
    series: Tensor
    step: Tensor
    weighed: Tensor
    scales: Tensor


def origins_of(
    filled: list[Matrix],
    observed: list[NDArray[np.bool_]],
    splits: list[int],
    context: int,
    horizon: int,
    least: int,
    apart: int = 1,
    *,
    own_scales: bool,
) -> Origins | None:
    """Origins spread evenly over the steps that judge; None where no series has both a history and a future.

    `least` : steps of a history, unless no origin of its series has as many. `apart` : steps from one to the next.
    `own_scales` : whether every series has its own level and scale.
    """
    lengths, judging = np.array([len(values) for values in filled]), np.array(splits)
    first = np.maximum(np.maximum(judging, np.minimum(least, lengths - horizon)), 2)
    counts = np.maximum(lengths - horizon + 1 - first, 0)
    ends = np.cumsum(counts)
    if not ends[-1]:
        return None
    wanted = max(MAX_ORIGINS, ORIGINS_A_SERIES * len(filled))
    most = max(20, min(wanted, 40_000_000 // ((context + horizon) * filled[0].shape[1])))
    step = max(apart, -(-int(ends[-1]) // most))
    chosen = np.arange(ends[-1] - 1, -1, -step)[::-1]
    series = np.searchsorted(ends, chosen, side="right")
    origin = first[series] + chosen - (ends - counts)[series]
    n_channels = filled[0].shape[1]
    history = torch.zeros(len(chosen), context, n_channels)
    shown = torch.zeros(len(chosen), context, n_channels, dtype=torch.bool)
    future, known = torch.empty(len(chosen), horizon, n_channels), torch.empty(len(chosen), horizon, n_channels)
    scales = np.tile([[0.0], [1.0]], (len(chosen), 1, n_channels))
    bounds = np.searchsorted(series, np.arange(len(filled) + 1))
    for i, (begin, end) in enumerate(pairwise(bounds)) if own_scales else ():
        if begin < end:
            scales[begin:end] = scales_at(filled[i], observed[i], origin[begin:end])
    for row, (i, now) in enumerate(zip(series.tolist(), origin.tolist(), strict=True)):
        past = filled[i][max(0, now - context) : now]
        history[row] = torch.from_numpy(led_in(past, context))
        shown[row, context - len(past) :] = torch.from_numpy(observed[i][max(0, now - context) : now])
        future[row] = torch.from_numpy(filled[i][now : now + horizon])
        known[row] = torch.from_numpy(observed[i][now : now + horizon].astype(float))
    later = in_later_half(origin, lengths[series], judging[series], context, horizon)
    weighed = torch.from_numpy(series + len(filled) * later)
    numbers = torch.from_numpy(series), torch.from_numpy(origin), weighed, torch.from_numpy(scales).float()
    return Origins(history, shown, future, known > 0, *numbers)


def led_in(past: Matrix, context: int) -> Matrix:
    """The last `context` steps (context, C) of a history; a shorter one is led in by its mean."""
    if len(past) >= context:
        return past[-context:]
    mean = past.mean(0, keepdims=True) if len(past) else np.zeros((1, past.shape[1]))
    return np.concatenate([np.repeat(mean, context - len(past), 0), past])


def shortened(origins: Origins, n_steps: int) -> Origins:
    """The origins as if their histories had begun `n_steps` before them; without any, all is at the level."""
    context = origins.history.shape[1]
    history, observed = torch.zeros_like(origins.history), torch.zeros_like(origins.observed)
    if n_steps:
        kept = slice(context - n_steps, context)
        history[:] = origins.history[:, kept].mean(1, keepdim=True)
        history[:, kept], observed[:, kept] = origins.history[:, kept], origins.observed[:, kept]
    return origins._replace(history=history, observed=observed)


def chosen_of(origins: Origins, rows: Tensor) -> Origins:
    """Some of the origins, by their numbers."""
    return Origins(*(part[rows] for part in origins))
