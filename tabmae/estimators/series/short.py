"""Forecasters of series too short to learn coefficients from: naive ones and their drift, weighed by rolling origins.

Contract: members are closed forms of the last `reach` steps; a drift is believed as far as it stands out of its noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tabmae.experts.linear import SHARPNESS, Linear, blend, naive_matrix, typical_change

MOST_SEASONS, MOST_STEPS = 4, 16
"""What a drift looks back on at most, with a season and without."""
NOISES = 3.0
"""Squared standard errors that are taken off a squared drift before it is believed."""
PRIOR_SERIES = 2.0
"""Origins apart of all series that stand beside a series' own."""

Matrix = NDArray[np.float64]


class Member(NamedTuple):
    """A naive forecast (context, horizon), and what its drift adds to it."""

    base: Matrix
    drift: Matrix


def reach_of(lengths: tuple[int, ...], horizon: int, season: int) -> int:
    """Steps that a drift looks back on, so that an origin is left to judge it by; 0 where none is."""
    unit, most = (season, MOST_SEASONS * season) if season else (1, MOST_STEPS)
    length = int(np.median(lengths))
    reach = max(2 * unit, min(most, (length - 2 * horizon) // unit * unit))
    return reach if reach + horizon <= length else 0


def members_of(context: int, reach: int, horizon: int, season: int) -> list[Member]:
    """Last step, last season, and the mean of all seasons, or steps, of the reach."""
    unit = season or 1
    n_units = reach // unit
    slope = np.zeros(context)
    # the slope of least squares through the means of the seasons: noise of single steps hardly moves it
    centred = np.arange(n_units) - (n_units - 1) / 2
    slope[context - n_units * unit :] = np.repeat(centred / (centred @ centred) / unit**2, unit)
    if not season:
        slope = np.zeros(context)
        slope[-1], slope[context - reach] = 1 / (reach - 1), -1 / (reach - 1)
    ahead = np.arange(1, horizon + 1)
    found = [Member(naive_matrix("last", context, horizon), slope[:, None] * ahead)]
    to_source = unit * -(-ahead // unit)
    if season:
        found.append(Member(naive_matrix(season, context, horizon), slope[:, None] * to_source))
    mean = np.zeros((context, horizon))
    for step in range(horizon):
        first = context - unit + (step % unit)
        mean[[first - unit * back for back in range(n_units)], step] = 1 / n_units
    centre = to_source + unit * (n_units - 1) / 2
    return [*found, Member(mean, slope[:, None] * centre)]


def fit_short(series: list[Matrix], context: int, reach: int, horizon: int, season: int) -> tuple[Linear, Linear]:
    """Members weighed by how far they missed at the rolling origins of series (T, C), each by its own and by all.

    Returns
    -------
    with weights (S + 1, 2 n, horizon), a row a series and one for all others, and with those of `Linear.fit` for
    either half of the origins of a series, here the same.
    """
    members = members_of(context, reach, horizon, season)
    judged = [judged_at(members, values / typical_change(values, season), reach, horizon) for values in series]
    there = [part for part in judged if len(part[0])]
    apart = np.array([(len(part[0]) - 1) / horizon + 1 if len(part[0]) else 0.0 for part in judged])
    future = np.concatenate([part[0] for part in there])
    found = np.concatenate([part[1] for part in there])
    drifts = np.concatenate([part[2] for part in there])
    of_all = believed(future, found, drifts, float(apart.sum()))
    missed_all = missed(future, found, drifts, of_all)
    rows = []
    for (own_future, own_found, own_drifts), n in zip(judged, apart, strict=True):
        share, error = of_all, missed_all
        if n:
            weight = n / (n + PRIOR_SERIES) if len(there) > 1 else 1.0
            share = weight * believed(own_future, own_found, own_drifts, n) + (1 - weight) * of_all
            own = missed(own_future, own_found, own_drifts, share)
            error = weight * own / own.mean() + (1 - weight) * missed_all / missed_all.mean()
        rows.append(row_of(share, error, season, n or float(apart.sum())))
    rows.append(row_of(of_all, missed_all, season, float(apart.sum())))
    matrices = [matrix for member in members for matrix in (member.base, member.base + member.drift)]
    rows = rows if len(series) > 1 else rows[:1]
    fitted = []
    for each in (rows, rows[:-1] + rows):
        linear = Linear(1, len(matrices), context, horizon)
        linear.coefficients = torch.from_numpy(np.stack(matrices)[None]).float()
        linear.weights = torch.from_numpy(np.stack(each)).float()
        fitted.append(linear)
    return fitted[0], fitted[1]


def judged_at(members: list[Member], values: Matrix, reach: int, horizon: int) -> tuple[Matrix, Matrix, Matrix]:
    """What came (n, C, H) after each origin, what members foretold and what drifts add to it (n, C, H, members)."""
    n_channels, n = values.shape[1], len(values) - reach - horizon + 1
    if n < 1:
        shape = 0, n_channels, horizon
        return np.zeros(shape), np.zeros((*shape, len(members))), np.zeros((*shape, len(members)))
    windows = np.lib.stride_tricks.sliding_window_view(values, reach + horizon, axis=0)  # (n, C, reach + H)
    history, future = windows[..., :reach], windows[..., reach:]
    found, drifts = (
        np.stack([history @ matrix[-reach:] for matrix in matrices], -1) for matrices in zip(*members, strict=True)
    )
    return future, found, drifts


def believed(future: Matrix, found: Matrix, drifts: Matrix, n_apart: float) -> Matrix:
    """How far the drift of each member is believed (members,), in [0, 1]: least squares less what noise would give."""
    left = future[..., None] - found
    axes = (0, 1, 2)
    size = np.maximum((drifts**2).mean(axes), 1e-12)
    share = (left * drifts).mean(axes) / size
    noise = ((left - share * drifts) ** 2).mean(axes) / size / n_apart
    kept = np.maximum(0, 1 - NOISES * noise / np.maximum(share**2, 1e-12))
    return np.asarray(np.clip(share * kept, 0, 1))


def missed(future: Matrix, found: Matrix, drifts: Matrix, share: Matrix) -> Matrix:
    """Mean squared error (members, H) of members with a share of their drift."""
    errors: Matrix = ((future[..., None] - found - share * drifts) ** 2).mean((0, 1)).T
    return np.maximum(errors, 1e-9)


def row_of(share: Matrix, errors: Matrix, season: int, n_apart: float) -> Matrix:
    """Weights (2 members, H) of each member without its drift and with it; few origins tell members less apart."""
    sharper = min(1.0, (1 + n_apart) / SHARPNESS)
    told = np.broadcast_to(errors.mean(1, keepdims=True) ** sharper, errors.shape)
    weights = blend(told, season)
    return np.stack([weights * (1 - share)[:, None], weights * share[:, None]], 1).reshape(-1, errors.shape[1])
