"""Forecasts: linear and structural experts and the masked model's, weighed by origins that nobody learnt.

Contract: a forecast depends on the last `context` steps of its series alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.estimators.series.origins import Origins, chosen_of, origins_of, shortened
from tabmae.estimators.series.shares import shares
from tabmae.estimators.series.sizes import n_judged
from tabmae.estimators.series.widths import (
    ENOUGH,
    at_lengths,
    doubt_after,
    drawn_of,
    drawn_to_usual,
    gaps_drawn,
    independent_residuals,
    known_lengths,
    local_scale,
    own_widths,
    quantiles,
    usual_residuals,
)
from tabmae.experts.linear import Linear
from tabmae.experts.structural import Structural
from tabmae.series_model import SeriesAutoencoder

MAX_PATH_NUMBERS = 4_000_000
"""Numbers of the kept residual paths, and the origins they come from."""
RECENT_SEASONS = 14
"""Seasons before an origin whose deviation tells how wide its intervals are."""
ENOUGH_STEPS = 600
"""Median length of series beyond which their coefficients are learnt well enough for structures not to be asked."""
DOUBT = 0.5
"""Standard errors, and shares of the whole error of one origin, by which others must be better than structures."""
LEAST_JUDGED = 4
"""Steps before the first origin that judges structures."""
LEAST_EXPECTED = 0.02
"""Least deviation that structures are believed to have, in recent ones of the series."""
EXPECTED = 20.0
"""Independent residuals for which those count that structures expect, where origins tell nothing."""
LEAST_PATHS, MOST_EXPECTED = 200, 2000
"""Paths that stand for those of origins at least, and for those that structures expect at most."""
SHORTENED = 100
"""Origins by which forecasts after histories of each length are judged."""

Matrix = NDArray[np.float64]


class Forecaster(torch.nn.Module):
    """Everything that a forecast needs beside the masked model.

    Buffers
    -------
    share : (h, C), how far the masked model's first h steps are believed against the linear forecast.
    paths : float32 (n, H, C), residuals at the origins that judged, over the scale of their histories and their width.
    path_widths : float32 (n,), mean absolute residual of the series of each path over that of all, by other origins.
    widths : float32 (n_series,), the same of every series of fit, by all of its origins.
    told : float32 (H,), how many independent residuals lie behind the paths.
    typical, usually_observed : float32 (C,), typical deviation of histories, and the share of them that is known.
    doubt : float32 (lengths, C), how much wider residuals are after short histories.

    `recent` : steps before an origin whose deviation is the scale where series are long and `structural` is None, whose
    deviation is it else. The first of `paths` are of origins then, the others are what structures expect.

    Source: split conformal prediction, Lei et al. 2018, on residuals over a local scale.
    """

    share: Tensor
    paths: Tensor
    path_widths: Tensor
    widths: Tensor
    told: Tensor
    typical: Tensor
    usually_observed: Tensor
    doubt: Tensor

    def __init__(
        self,
        linear: Linear,
        structural: Structural | None,
        n_shared: int,
        n_channels: int,
        n_paths: int,
        n_series: int,
        recent: int,
    ) -> None:
        super().__init__()
        self.linear, self.structural, self.recent = linear, structural, recent
        self.register_buffer("share", torch.zeros(n_shared, n_channels))
        self.register_buffer("paths", torch.zeros(n_paths, linear.horizon, n_channels))
        self.register_buffer("path_widths", torch.ones(n_paths))
        self.register_buffer("widths", torch.ones(n_series))
        self.register_buffer("told", torch.ones(linear.horizon))
        self.register_buffer("typical", torch.ones(n_channels))
        self.register_buffer("usually_observed", torch.ones(n_channels))
        self.register_buffer("doubt", torch.ones(len(known_lengths(self.context)) + 1, n_channels))

    @property
    def horizon(self) -> int:
        return self.linear.horizon

    @property
    def expected(self) -> float:
        """Independent residuals that count for the paths which structures expect; none where origins tell enough."""
        return 0.0 if self.structural is None else EXPECTED * max(0.0, 1 - float(self.told.mean()) / ENOUGH)

    @property
    def context(self) -> int:
        return max(self.linear.context, 0 if self.structural is None else self.structural.steps)

    @torch.no_grad()
    def forecast(
        self,
        model: SeriesAutoencoder | None,
        history: Tensor,
        observed: Tensor,
        horizon: int,
        series: Tensor | None = None,
        linear: Linear | None = None,
        scales: Tensor | None = None,
    ) -> Tensor:
        """The next (n, horizon, C) steps of histories (n, T, C) whose gaps are filled; `observed` are the real cells.

        `series` : which series of fit each is, -1 for none. `scales` : as for `masked_forecast`. Steps beyond the
        fitted horizon are forecast from the forecasts before them.
        """
        expert = self.linear if linear is None else linear
        found = expert.forecast(history[:, -expert.context :], series)
        if self.structural is not None and bool((self.structural.share > 0).any()):
            alone = self.structural.forecast(history, observed, found)
            found = found + self.structural.share * (alone - found)
        if model is not None and horizon and bool((self.share > 0).any()):
            found = self.mixed(found, masked_forecast(model, history, observed, len(self.share), scales))
        if horizon <= self.horizon:
            return found[:, :horizon]
        longer = torch.cat([history[:, self.horizon :], found], 1)
        shown = torch.cat([observed[:, self.horizon :], torch.ones_like(found, dtype=torch.bool)], 1)
        rest = self.forecast(model, longer, shown, horizon - self.horizon, series, linear, scales)
        return torch.cat([found, rest], 1)

    def mixed(self, found: Tensor, ahead: Tensor) -> Tensor:
        """A forecast (n, H, C) whose first steps are drawn to the masked model's (n, h, C), as it is believed."""
        first, later = found[:, : len(self.share)], found[:, len(self.share) :]
        return torch.cat([first + self.share * (ahead - first), later], 1)

    def bounds(self, levels: list[float], horizon: int, series: Tensor) -> Tensor:
        """Quantiles (len(levels), n, horizon, C) of the residuals over their scale, for series as in `forecast`."""
        told = levels, horizon, self.told, self.expected
        own = quantiles(self.paths, *told)[:, None] * per_series(self.widths_of(series))
        of_any = quantiles(self.paths * per_series(self.path_widths), *told)[:, None]
        return torch.where(per_series(series >= 0), own, of_any)

    def draw(self, n_steps: int, series: Tensor, generator: torch.Generator) -> Tensor:
        """Residuals (n, n_steps, C) over their scale, those of an origin together, for series as in `forecast`."""
        pieces = []
        for _ in range(-(-n_steps // self.horizon)):
            chosen = torch.randint(len(self.paths), (len(series),), generator=generator)
            width = torch.where(series >= 0, self.widths_of(series), self.path_widths[chosen])
            pieces.append(drawn_of(self.paths[chosen], self.told, generator, self.expected) * per_series(width))
        return torch.cat(pieces, 1)[:, :n_steps]

    def widths_of(self, series: Tensor) -> Tensor:
        """Width of each series (n,), 1 for those that fit has not seen."""
        return torch.cat([self.widths, torch.ones(1)])[series]

    @torch.no_grad()
    def scale(self, history: Tensor, observed: Tensor, horizon: int) -> Tensor:
        """What residuals (n, horizon, C) after histories (n, T, C) are measured by; larger after short histories."""
        alone = None if self.structural is None else self.structural.ahead(history, observed, self.horizon)[1]
        found = self.variation(history, observed, alone) * self.doubted(observed)
        return found[:, torch.arange(horizon).clamp_max(self.horizon - 1)]

    def doubted(self, observed: Tensor) -> Tensor:
        """How much wider residuals are (n, 1, C) after histories of which so little is known."""
        n_known = observed[:, -self.context :].sum(1) / self.usually_observed
        return at_lengths(self.doubt, self.context, n_known)

    def variation(self, history: Tensor, observed: Tensor, alone: Tensor | None) -> Tensor:
        """The scale (n, H, C) of whole histories: the deviation `alone` that structures tell, else the recent one."""
        found = self.recent_variation(history, observed).expand(-1, self.horizon, -1)
        if alone is None:
            return found
        alone = alone.to(found).where(~alone.isnan(), found).maximum(LEAST_EXPECTED * found)
        drawn = drawn_to_usual(observed[:, -self.context :], self.usually_observed)[:, None]
        return alone ** (1 - drawn) * found**drawn

    def recent_variation(self, history: Tensor, observed: Tensor) -> Tensor:
        """Standard deviation (n, 1, C) of the last observed steps of histories."""
        recent = slice(history.shape[1] - min(self.recent, history.shape[1]), None)
        return local_scale(history[:, recent], observed[:, recent], self.typical, self.usually_observed)


def per_series(values: Tensor) -> Tensor:
    """A number for each of n series as (n, 1, 1)."""
    return values[:, None, None]


@torch.no_grad()
def masked_forecast(
    model: SeriesAutoencoder, history: Tensor, observed: Tensor, n_steps: int, scales: Tensor | None = None
) -> Tensor:
    """The masked model's completion of the next (n, n_steps, C) steps after histories (n, T, C).

    `scales` : (n, 2, C), level and scale of each series where its values are not in these yet.
    """
    kept = model.window - n_steps
    shape = len(history), model.window, model.n_channels
    level, scale = (0.0, 1.0) if scales is None else scales.to(history)[:, :, None].unbind(1)
    values, visible = history.new_zeros(shape), torch.zeros(shape, dtype=torch.bool, device=history.device)
    taken = min(kept, history.shape[1])
    values[:, kept - taken : kept] = (history[:, history.shape[1] - taken :] - level) / scale
    visible[:, kept - taken : kept] = observed[:, history.shape[1] - taken :]
    device = model.share.device
    parts = [
        model(rows.flatten(1).to(device), shown.flatten(1).to(device)).mean.cpu()
        for rows, shown in zip(values.split(256), visible.split(256), strict=True)
    ]
    return torch.cat(parts).reshape(shape)[:, kept:].to(history) * scale + level


def fit_forecaster(
    model: SeriesAutoencoder | None,
    filled: list[Matrix],
    observed: list[NDArray[np.bool_]],
    horizon: int,
    contexts: tuple[int, ...],
    season: int,
    cycle: int,
    experts: tuple[str, ...],
    *,
    own_scales: bool,
) -> tuple[Forecaster, dict[str, Tensor]]:
    """Fit, weigh and calibrate.

    Parameters
    ----------
    model : None leaves the forecasts to the linear experts.
    filled : series (T, C) in standard deviations, their gaps filled; observed : their real cells.
    own_scales : whether every series has its own level and scale, which judging origins must not know.
    cycle : steps that judge at least where a series holds two of them, as `n_judged` says.

    Returns
    -------
    forecaster, and per channel the held-out root mean squared errors: "error" of the forecast, "baseline_error" of
    the better of the last step and the last season, "n" steps.
    """
    n_channels, n_usual = filled[0].shape[1], round(float(np.median([len(values) for values in filled])))
    splits = [len(values) - n_judged(len(values), cycle, horizon) for values in filled]
    splits = [min(split, len(values) - horizon) for split, values in zip(splits, filled, strict=True)]
    window, structural = 2 if model is None else model.window, None
    learns = bool(contexts) and "linear" in experts
    if "linear" in experts and not (learns and n_usual > ENOUGH_STEPS):
        structural = Structural.fit(filled, horizon, season)
    if learns:
        final, early = Linear.fit(filled, splits, horizon, contexts, season, with_naive="persistence" in experts)
    else:
        final = early = Linear.naive(max(window, 2 * season, 2), horizon, season)
    if structural is not None and not learns:
        # closed forms learn next to nothing from a series, so that more of its steps may judge them
        least = max(2 * season, LEAST_JUDGED)
        splits = [
            min(split, max(least, len(values) - 2 * horizon)) for split, values in zip(splits, filled, strict=True)
        ]
    n_shared = min(horizon, window // 2)
    recent = min(final.context, RECENT_SEASONS * season if season else final.context)
    forecaster = Forecaster(final, structural, n_shared, n_channels, 0, len(filled), recent)
    # structures take their time at each origin: a cycle that judges whole has no more of them than a share had
    apart = 1 if structural is None else -(-n_judged(n_usual, cycle, horizon) // n_judged(n_usual, 0, horizon))
    least = final.context if learns or structural is None else 0
    origins = origins_of(filled, observed, splits, forecaster.context, horizon, least, apart, own_scales=own_scales)
    if origins is None:
        if structural is None and not learns:
            forecaster.share.fill_(float(bool(experts)))
        forecaster.paths = usual_residuals()[:, None, None].expand(-1, horizon, n_channels).clone()
        if structural is not None:
            forecaster.paths = forecaster.paths[:0]
            expect(forecaster, structural, n_usual)
        forecaster.path_widths = torch.ones(len(forecaster.paths))
        nothing = torch.full((n_channels,), torch.nan)
        return forecaster, {"error": nothing, "baseline_error": nothing, "n": torch.zeros(n_channels)}
    linear, spread = early.forecast(origins.history[:, -early.context :], origins.weighed), None
    if structural is not None:
        alone, spread = structural.ahead(origins.history, origins.observed, horizon)
        alone = alone.to(linear).where(~alone.isnan(), linear)
        structural.share = 1 - shares(alone, linear, origins, season, DOUBT)
        linear = linear + structural.share * (alone - linear)
    if model is not None and (learns or structural is None):  # which has learnt the steps that judge structures
        ahead = masked_forecast(model, origins.history, origins.observed, n_shared, origins.scales)
        doubt = 0.0 if structural is None else DOUBT
        forecaster.share = shares(linear[:, :n_shared], ahead, origins, season, doubt)
        linear = forecaster.mixed(linear, ahead)
    residual = torch.where(origins.known, origins.future - linear, torch.nan)
    learn_typical(forecaster, origins)
    scaled = residual / forecaster.variation(origins.history, origins.observed, spread)
    forecaster.doubt = doubt_of(forecaster, model, early, origins, scaled)
    scaled = scaled / forecaster.doubted(origins.observed)
    n_paths = max(30, min(len(scaled), MAX_PATH_NUMBERS // (horizon * n_channels)))
    kept = torch.linspace(0, len(scaled) - 1, min(n_paths, len(scaled))).round().long()
    forecaster.widths, own = own_widths(scaled, origins, len(filled))
    scaled = scaled / per_series(own)
    forecaster.told = independent_residuals(scaled, origins)
    forecaster.paths, forecaster.path_widths = gaps_drawn(scaled)[kept].float(), own[kept]
    if structural is not None:
        expect(forecaster, structural, n_usual)
    naive = [Linear.naive(final.context, horizon, each) for each in {0, season} if each <= final.context]
    floors = [each.forecast(origins.history[:, -each.context :]) for each in naive]
    return forecaster, {
        "error": rooted(residual),
        "baseline_error": torch.stack(
            [rooted(torch.where(origins.known, origins.future - floor, torch.nan)) for floor in floors]
        ).amin(0),
        "n": origins.known.sum((0, 1)),
    }


def learn_typical(forecaster: Forecaster, origins: Origins) -> None:
    """Learn how much of histories is known, and how they vary."""
    known = origins.step.clamp_max(forecaster.context)[:, None]
    seen = origins.observed.float().sum((0, 1))
    forecaster.usually_observed = (seen / known.sum()).clamp_min(1 / forecaster.context)
    forecaster.typical = forecaster.recent_variation(origins.history, origins.observed).square().mean((0, 1)).sqrt()


def doubt_of(
    forecaster: Forecaster, model: SeriesAutoencoder | None, early: Linear, origins: Origins, whole: Tensor
) -> Tensor:
    """How much more is missed after short histories: by cut histories of origins, `whole` are their residuals."""
    short, same = [], []
    for n_steps in known_lengths(forecaster.context):
        rows = torch.nonzero(origins.step > n_steps)[:, 0]
        rows = rows[:: max(1, -(-len(rows) // SHORTENED))]
        cut = shortened(chosen_of(origins, rows), n_steps)
        how = cut.weighed, early, cut.scales
        mean = forecaster.forecast(model, cut.history, cut.observed, forecaster.horizon, *how)
        missed = torch.where(cut.known, cut.future - mean, torch.nan)
        short.append(missed / forecaster.scale(cut.history, cut.observed, forecaster.horizon))
        same.append(whole[rows])
    return doubt_after(short, same)


def expect(forecaster: Forecaster, structural: Structural, n_steps: int) -> None:
    """Put paths that structures expect after `n_steps` beside those of origins: they weigh as `expected` says."""
    n_channels, own = forecaster.paths.shape[2], len(forecaster.paths)
    more = forecaster.expected / float(forecaster.told.mean())
    times = max(1, round(min(LEAST_PATHS, MOST_EXPECTED / max(more, 1e-9)) / max(1, own)))
    n_more = min(MOST_EXPECTED, round(own * times * more)) if own else LEAST_PATHS
    if not n_more:
        return
    expected = structural.paths(n_more, min(n_steps, structural.steps), forecaster.horizon)
    expected = expected.float()[:, :, None].expand(-1, -1, n_channels)
    forecaster.paths = torch.cat([forecaster.paths.repeat(times, 1, 1), expected])
    forecaster.path_widths = torch.cat([forecaster.path_widths.repeat(times), torch.ones(n_more)])


def rooted(residual: Tensor) -> Tensor:
    """Root mean square (C,) of residuals (n, H, C), NaN where not known."""
    return residual.square().nanmean((0, 1)).sqrt()


def state_of(forecaster: Forecaster) -> dict[str, Any]:
    """Sizes from which an empty forecaster of the same shape is made."""
    structural = forecaster.structural
    return {
        "matrix": list(forecaster.linear.coefficients.shape),
        "structural": None if structural is None else [len(structural.odds), structural.season, structural.steps],
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
    structural = None
    if state["structural"] is not None:
        n_structures, season, steps = state["structural"]
        structural = Structural(n_structures, horizon, n_channels, season, steps)
    return Forecaster(linear, structural, n_shared, n_channels, state["paths"], state["series"], state["recent"])
