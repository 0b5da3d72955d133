"""Forecasts: linear experts and the masked model's completion of the future, weighed by origins that nobody learnt.

Contract: a forecast depends on the last `context` steps of its series alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.experts.linear import Linear, in_later_half
from tabmae.series_model import SeriesAutoencoder

JUDGED_SHARE = 0.2
"""Share of every series whose steps choose and weigh the forecasters, and calibrate their intervals."""
MAX_ORIGINS, ORIGINS_A_SERIES = 500, 50
"""Origins at most, for few series and for each of many."""
MAX_PATH_NUMBERS = 4_000_000
"""Numbers of the kept residual paths, and the origins they come from."""
FEW_ORIGINS = 30
"""Origins below which residuals are mirrored and widened."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NEIGHBOURS = 2
"""Steps of the horizon to either side that lend a step their residuals."""
PRIOR_ORIGINS = (1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Origins of all series that count for those of one in its own width."""
LEAST_SCALE = 0.05
STRIDE_OF_REPEATS = 7919
"""A prime, so that residuals which are repeated in turn come from everywhere."""
LEAST_TYPICAL = 1e-3
"""Least squared error of a series, in those of all, that its origins are measured by."""
RECENT_SEASONS = 14
"""Seasons before an origin whose deviation tells how wide its intervals are."""

Matrix = NDArray[np.float64]


class Forecaster(torch.nn.Module):
    """Everything that a forecast needs beside the masked model.

    Buffers
    -------
    share : (h, C), how far the masked model's first h steps are believed against the linear forecast.
    paths : float32 (n, H, C), residuals at the origins that judged, over the scale of their histories and their width.
    path_widths : float32 (n,), mean absolute residual of the series of each path over that of all, by other origins.
    widths : float32 (n_series,), the same of every series of fit, by all of its origins.

    `recent` : steps before an origin whose deviation is the scale.

    Source: split conformal prediction, Lei et al. 2018, on residuals over a local scale.
    """

    share: Tensor
    paths: Tensor
    path_widths: Tensor
    widths: Tensor

    def __init__(
        self, linear: Linear, n_shared: int, n_channels: int, n_paths: int, n_series: int, recent: int
    ) -> None:
        super().__init__()
        self.linear, self.recent = linear, recent
        self.register_buffer("share", torch.zeros(n_shared, n_channels))
        self.register_buffer("paths", torch.zeros(n_paths, linear.horizon, n_channels))
        self.register_buffer("path_widths", torch.ones(n_paths))
        self.register_buffer("widths", torch.ones(n_series))

    @property
    def horizon(self) -> int:
        return self.linear.horizon

    @property
    def context(self) -> int:
        return self.linear.context

    @torch.no_grad()
    def forecast(
        self,
        model: SeriesAutoencoder | None,
        history: Tensor,
        observed: Tensor,
        horizon: int,
        series: Tensor | None = None,
        linear: Linear | None = None,
    ) -> Tensor:
        """The next (n, horizon, C) steps of histories (n, T, C) whose gaps are filled; `observed` are the real cells.

        `series` : which series of fit each is, -1 for none. Steps beyond the fitted horizon are forecast from the
        forecasts before them.
        """
        expert = self.linear if linear is None else linear
        found = expert.forecast(history[:, -self.context :], series)
        n_shared = min(len(self.share), horizon)
        if model is not None and n_shared and bool((self.share > 0).any()):
            ahead = masked_forecast(model, history, observed, len(self.share))
            mixed = found[:, : len(self.share)] + self.share * (ahead - found[:, : len(self.share)])
            found = torch.cat([mixed, found[:, len(self.share) :]], 1)
        if horizon <= self.horizon:
            return found[:, :horizon]
        longer = torch.cat([history[:, self.horizon :], found], 1)
        shown = torch.cat([observed[:, self.horizon :], torch.ones_like(found, dtype=torch.bool)], 1)
        return torch.cat([found, self.forecast(model, longer, shown, horizon - self.horizon, series, linear)], 1)

    def bounds(self, levels: list[float], horizon: int, series: Tensor) -> Tensor:
        """Quantiles (len(levels), n, horizon, C) of the residuals over their scale, for series as in `forecast`."""
        own = self._quantiles(self.paths, levels, horizon)[:, None] * per_series(self.widths_of(series))
        of_any = self._quantiles(self.paths * per_series(self.path_widths), levels, horizon)[:, None]
        return torch.where(per_series(series >= 0), own, of_any)

    def draw(self, n_steps: int, series: Tensor, generator: torch.Generator) -> Tensor:
        """Residuals (n, n_steps, C) over their scale, those of an origin together, for series as in `forecast`."""
        pieces = []
        for _ in range(-(-n_steps // self.horizon)):
            chosen = torch.randint(len(self.paths), (len(series),), generator=generator)
            width = torch.where(series >= 0, self.widths_of(series), self.path_widths[chosen])
            pieces.append(self.paths[chosen] * per_series(width))
        return torch.cat(pieces, 1)[:, :n_steps]

    def widths_of(self, series: Tensor) -> Tensor:
        """Width of each series (n,), 1 for those that fit has not seen."""
        return torch.cat([self.widths, torch.ones(1)])[series]

    def _quantiles(self, paths: Tensor, levels: list[float], horizon: int) -> Tensor:
        """Quantiles (len(levels), horizon, C) of residual paths; wider beyond the fitted horizon.

        Each is moved outwards by what a finite number of origins asks for.
        """
        n = len(paths)
        asked = []
        for level in levels:
            outward = level * (1 + 1 / n) if level > 0.5 else 1 - (1 - level) * (1 + 1 / n)
            asked.append(min(1.0, max(0.0, outward)))
        fitted = min(horizon, self.horizon)
        found = torch.empty(len(levels), horizon, paths.shape[2])
        for step in range(fitted):
            near = paths[:, max(0, step - NEIGHBOURS) : step + NEIGHBOURS + 1].flatten(0, 1)
            found[:, step] = torch.quantile(near, torch.tensor(asked), dim=0)
        for step in range(fitted, horizon):
            found[:, step] = found[:, fitted - 1] * ((step + 1) / fitted) ** 0.5
        return found

    def scale(self, history: Tensor) -> Tensor:
        """Standard deviation (n, 1, C) of the last steps of histories, by which residuals are measured."""
        recent = history[:, -self.recent :]
        return recent.std(1, correction=0, keepdim=True).clamp_min(LEAST_SCALE)


def per_series(values: Tensor) -> Tensor:
    """A number for each of n series as (n, 1, 1)."""
    return values[:, None, None]


@torch.no_grad()
def masked_forecast(model: SeriesAutoencoder, history: Tensor, observed: Tensor, n_steps: int) -> Tensor:
    """The masked model's completion of the next (n, n_steps, C) steps after histories (n, T, C)."""
    kept = model.window - n_steps
    shape = len(history), model.window, model.n_channels
    values, visible = history.new_zeros(shape), torch.zeros(shape, dtype=torch.bool, device=history.device)
    taken = min(kept, history.shape[1])
    values[:, kept - taken : kept] = history[:, history.shape[1] - taken :]
    visible[:, kept - taken : kept] = observed[:, history.shape[1] - taken :]
    device = model.share.device
    parts = [
        model(rows.flatten(1).to(device), shown.flatten(1).to(device)).mean.cpu()
        for rows, shown in zip(values.split(256), visible.split(256), strict=True)
    ]
    return torch.cat(parts).reshape(shape)[:, kept:].to(history)


class Origins(NamedTuple):
    """Histories that judge and what came after them: filled (n, L, C), observed, future (n, H, C), and their series.

    step : where in its series each origin lies. weighed : the rows of weights that did not see them.
    """

    history: Tensor
    observed: Tensor
    future: Tensor
    known: Tensor
    series: Tensor
    step: Tensor
    weighed: Tensor


def fit_forecaster(
    model: SeriesAutoencoder | None,
    filled: list[Matrix],
    observed: list[NDArray[np.bool_]],
    horizon: int,
    contexts: tuple[int, ...],
    season: int,
    experts: tuple[str, ...],
) -> tuple[Forecaster, dict[str, Tensor]]:
    """Fit, weigh and calibrate.

    Parameters
    ----------
    model : None leaves the forecasts to the linear experts.
    filled : series (T, C) in standard deviations, their gaps filled; observed : their real cells.

    Returns
    -------
    forecaster, and per channel the held-out root mean squared errors: "error" of the forecast, "baseline_error" of
    the better of the last step and the last season, "n" steps.
    """
    n_channels = filled[0].shape[1]
    splits = [len(values) - max(1, round(JUDGED_SHARE * len(values))) for values in filled]
    splits = [min(split, len(values) - horizon) for split, values in zip(splits, filled, strict=True)]
    window = 2 if model is None else model.window
    if contexts and "linear" in experts:
        final, early = Linear.fit(filled, splits, horizon, contexts, season, with_naive="persistence" in experts)
    else:
        final = early = Linear.naive(max(window, 2 * season, 2), horizon, season)
    n_shared = min(horizon, window // 2)
    recent = min(final.context, RECENT_SEASONS * season if season else final.context)
    forecaster = Forecaster(final, n_shared, n_channels, 0, len(filled), recent)
    origins = origins_of(filled, observed, splits, final.context, horizon)
    if origins is None:
        if not (contexts and "linear" in experts):
            forecaster.share.fill_(float(bool(experts)))
        forecaster.paths = usual_residuals(1)[:, None, None].expand(-1, horizon, n_channels).clone()
        forecaster.path_widths = torch.ones(len(forecaster.paths))
        nothing = torch.full((n_channels,), torch.nan)
        return forecaster, {"error": nothing, "baseline_error": nothing, "n": torch.zeros(n_channels)}
    linear = early.forecast(origins.history, origins.weighed)
    if model is not None:
        ahead = masked_forecast(model, origins.history, origins.observed, n_shared)
        forecaster.share = shares(linear[:, :n_shared], ahead, origins, season)
    mean = forecaster.forecast(model, origins.history, origins.observed, horizon, origins.weighed, early)
    residual = torch.where(origins.known, origins.future - mean, torch.nan)
    scaled = residual / forecaster.scale(origins.history)
    n_paths = max(30, min(len(scaled), MAX_PATH_NUMBERS // (horizon * n_channels)))
    kept = torch.linspace(0, len(scaled) - 1, min(n_paths, len(scaled))).round().long()
    forecaster.widths, own = own_widths(scaled, origins, len(filled))
    forecaster.paths = gaps_drawn(scaled / own[:, None, None])[kept].float()
    forecaster.path_widths = own[kept]
    if len(kept) < FEW_ORIGINS:
        # few residuals know neither the side that they err to nor how far they may
        wider = forecaster.paths * (1 + 2 / len(kept)) ** 0.5
        forecaster.paths, forecaster.path_widths = torch.cat([wider, -wider]), forecaster.path_widths.repeat(2)
    naive = [Linear.naive(final.context, horizon, each) for each in {0, season} if each <= final.context]
    floors = [each.forecast(origins.history) for each in naive]
    return forecaster, {
        "error": rooted(residual),
        "baseline_error": torch.stack(
            [rooted(torch.where(origins.known, origins.future - floor, torch.nan)) for floor in floors]
        ).amin(0),
        "n": origins.known.sum((0, 1)),
    }


def usual_residuals(scale: float, n: int = 99) -> Tensor:
    """Quantiles of a normal residual, for channels that no origin has judged: as wide as their histories."""
    level = (torch.arange(n) + 0.5) / n
    return scale * (2 * level - 1).erfinv() * 2**0.5


def gaps_drawn(residuals: Tensor) -> Tensor:
    """Residuals (n, H, C) whose unknown ones, NaN, repeat known ones of the channel in turn."""
    filled = residuals.clone()
    for c in range(residuals.shape[2]):
        cells = filled[:, :, c]
        unknown = cells.isnan()
        known = cells[~unknown] if not bool(unknown.all()) else usual_residuals(1.0)
        count = int(unknown.sum())
        cells[unknown] = known[(torch.arange(count) * STRIDE_OF_REPEATS) % len(known)].to(cells)
    return filled


def rooted(residual: Tensor) -> Tensor:
    """Root mean square (C,) of residuals (n, H, C), NaN where not known."""
    return residual.square().nanmean((0, 1)).sqrt()


def origins_of(
    filled: list[Matrix], observed: list[NDArray[np.bool_]], splits: list[int], context: int, horizon: int
) -> Origins | None:
    """Origins spread evenly over the steps that judge; None where no series has both a history and a future."""
    places = [
        (i, origin)
        for i, (values, split) in enumerate(zip(filled, splits, strict=True))
        for origin in range(max(split, min(context, len(values) - horizon), 2), len(values) - horizon + 1)
    ]
    if not places:
        return None
    wanted = max(MAX_ORIGINS, ORIGINS_A_SERIES * len(filled))
    most = max(20, min(wanted, 40_000_000 // ((context + horizon) * filled[0].shape[1])))
    step = max(1, -(-len(places) // most))
    chosen = places[len(places) - 1 :: -step][::-1]
    n_channels = filled[0].shape[1]
    history = torch.zeros(len(chosen), context, n_channels)
    shown = torch.zeros(len(chosen), context, n_channels, dtype=torch.bool)
    future, known = torch.empty(len(chosen), horizon, n_channels), torch.empty(len(chosen), horizon, n_channels)
    for row, (i, origin) in enumerate(chosen):
        past = filled[i][max(0, origin - context) : origin]
        history[row] = torch.from_numpy(led_in(past, context))
        shown[row, context - len(past) :] = torch.from_numpy(observed[i][max(0, origin - context) : origin])
        future[row] = torch.from_numpy(filled[i][origin : origin + horizon])
        known[row] = torch.from_numpy(observed[i][origin : origin + horizon].astype(float))
    series, origin = np.array(chosen).T
    lengths, first = np.array([len(values) for values in filled])[series], np.array(splits)[series]
    later = in_later_half(origin, lengths, first, context, horizon)
    weighed = torch.from_numpy(series + len(filled) * later)
    return Origins(history, shown, future, known > 0, torch.from_numpy(series), torch.from_numpy(origin), weighed)


def led_in(past: Matrix, context: int) -> Matrix:
    """The last `context` steps (context, C) of a history; a shorter one is led in by its mean."""
    if len(past) >= context:
        return past[-context:]
    mean = past.mean(0, keepdims=True) if len(past) else np.zeros((1, past.shape[1]))
    return np.concatenate([np.repeat(mean, context - len(past), 0), past])


def shares(linear: Tensor, ahead: Tensor, origins: Origins, season: int) -> Tensor:
    """How far the masked model's steps are believed, (h, C): the share that misses least in each block of steps."""
    n_steps, n_channels = ahead.shape[1:]
    target, known = origins.future[:, :n_steps], origins.known[:, :n_steps].float()
    size = (linear - target).square().mean((1, 2))
    count = torch.bincount(origins.series, minlength=int(origins.series.max()) + 1)
    typical = torch.zeros(len(count)).index_add_(0, origins.series, size) / count.clamp_min(1)
    known = known / (typical + LEAST_TYPICAL * size.mean())[origins.series][:, None, None]
    width = max(1, min(n_steps, season // 4 if season else n_steps // 4))
    found = torch.zeros(n_steps, n_channels)
    for low in range(0, n_steps, width):
        block = slice(low, low + width)
        errors = torch.stack(
            [((linear + share * (ahead - linear) - target).square() * known)[:, block].sum((0, 1)) for share in SHARES]
        )
        own = errors / errors.amin(0).clamp_min(1e-9)
        found[block] = torch.tensor(SHARES)[(own + own.mean(1, keepdim=True)).argmin(0)]
    return found


def own_widths(scaled: Tensor, origins: Origins, n_series: int) -> tuple[Tensor, Tensor]:
    """Mean absolute residual of each series (n_series,), over that of all, and of the series of each origin (n,).

    The latter is by the origins that share no step with it: one that it had a part in would make its own residual look
    small. Both are drawn to 1 as far as such left-out ones foretell residuals best; where no series has two origins
    apart, nothing says that series differ.
    """
    size = scaled.abs().nanmean((1, 2))
    told, size = (~size.isnan()).float(), (size / size.nanmean().clamp_min(1e-9)).nan_to_num(0.0)
    count = torch.zeros(n_series).index_add_(0, origins.series, told)
    total = torch.zeros(n_series).index_add_(0, origins.series, size)
    others, left = count[origins.series] - told, total[origins.series] - size
    for apart in range(1, len(size)):
        near = (origins.series[apart:] == origins.series[:-apart]) & (
            origins.step[apart:] - origins.step[:-apart] < scaled.shape[1]
        )
        if not bool(near.any()):
            break
        for one, other in ((slice(apart, None), slice(None, -apart)), (slice(None, -apart), slice(apart, None))):
            others[one] -= near * told[other]
            left[one] -= near * size[other]
    judged, left = (told > 0) & (others > 0), left.clamp_min(0)
    if n_series == 1 or not bool(judged.any()):
        return torch.ones(n_series), torch.ones(len(size))

    def missed(prior: float) -> float:
        """Mean negative log density of the left-out origins under Laplace's law."""
        width = ((left + prior) / (others + prior))[judged]
        return float((width.log() + size[judged] / width).mean())

    prior = min(PRIOR_ORIGINS, key=missed)
    return (total + prior) / (count + prior), (left + prior) / (others + prior)


def state_of(forecaster: Forecaster) -> dict[str, Any]:
    """Sizes from which an empty forecaster of the same shape is made."""
    return {
        "matrix": list(forecaster.linear.coefficients.shape),
        "weighed": len(forecaster.linear.weights),
        "share": list(forecaster.share.shape),
        "paths": len(forecaster.paths),
        "series": len(forecaster.widths),
        "recent": forecaster.recent,
    }


def restored(state: dict[str, Any]) -> Forecaster:
    """An empty forecaster of the shape that `state_of` told."""
    n_shared, n_channels = state["share"]
    n_matrices, n_members, context, horizon = state["matrix"]
    linear = Linear(n_matrices, n_members, context, horizon, state["weighed"] - 1)
    return Forecaster(linear, n_shared, n_channels, state["paths"], state["series"], state["recent"])
