"""`TimeSeriesMAE`: what is asked of fitted series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.errors import DataError, ParameterError, check_choice, check_number
from tabmae.estimators import base
from tabmae.estimators.parameters import check_seed, is_auto
from tabmae.estimators.series.backtesting import Ahead, Backtest, backtest, flat, forecast_columns
from tabmae.estimators.series.checks import checked_levels
from tabmae.estimators.series.completing import draw, in_batches
from tabmae.estimators.series.detecting import AnswersOfDetection
from tabmae.estimators.series.learner import SeriesLearner
from tabmae.estimators.series.origins import led_in
from tabmae.estimators.series.regressors import Units
from tabmae.estimators.series.standard import Matrix, floor_of, laid_out, last_steps, standardised
from tabmae.saving import register
from tabmae.windows import Panel, in_library_of

LEVELS = (80.0, 95.0)
AT_ONCE = 4_000_000
"""Cells of the histories that are forecast at once."""


@register
class TimeSeriesMAE(TransformerMixin, AnswersOfDetection, SeriesLearner):
    """Masked autoencoder that fills the gaps of series, forecasts them with intervals and encodes them.

    A stationary Gaussian and linear interpolation guess every missing step from its window; a masked network corrects
    the guess as far as held-out cells believe it. Far from observed steps, level and seasons of the whole series take
    over, and the straight line across a gap where held-out runs of its length lie nearer to that. Linear forecasters
    over several contexts look ahead, weighed against each other, the masked model and the last season by origins that
    nobody learnt from; series of some hundred steps or fewer are taken apart into level, trend, season and noise first.
    Rare cells far outside of their series, slips, are neither learnt nor gone on from.

    Parameters
    ----------
    horizon : steps to forecast in one pass; None for two seasons. Longer ones are rolled.
    context : steps that a linear forecaster looks back; "auto" blends several contexts by the season.
    window : steps that the masked model sees at once, at most the longest series; "auto" by channels and season.
    freq : of the steps, a pandas offset such as "h"; for whole-numbered stamps a step. None infers it.
    id_col, time_col : columns of a long frame. A frame without `id_col` is one series.
    target_cols : columns of values; None takes all numbers that are nothing else.
    future_cols : columns that are known ahead; `forecast` asks for them in `X_future`. What they do is added to all
        channels, or multiplies them, whichever missed less. What they settle is given as it is (a closed shop sells
        nothing) and not learnt from. Else gaps and odd stamps are judged without them: a column that explains gaps
        belongs to `target_cols`.
    static_cols : columns that are constant in a series; they are kept, and not learnt from.
    mask_ratio : share of the cells that training hides, or bounds it is drawn from; "auto" is (0.05, 0.8).
    mask : "mixed" (points, runs, blackouts and suffixes), "run", "blackout", "suffix", a name of `TabMAE`'s, or a
        function.
    patch : steps of a token. backbone : "auto" (convolutions), "conv", "transformer", "mlp", or a factory.
    d_token, depth, dropout, batch_size, lr : of the network and its training; "auto" by the size of the panel.
    loss : "auto" (Huber's), "mse", "mae" or "huber".
    experts : names out of "gaussian", "linear", "persistence"; () for the pure masked autoencoder.
    max_epochs : passes over the training windows; 0 leaves the network out. patience : epochs without improvement;
        "auto" waits for all of them, unless the network adds nothing to the experts a third through.
    device : "auto" (a CUDA GPU where there is one), "cpu", "cuda".
    callbacks : functions called with a dict after every check. verbose : 1 shows a progress bar.
    random_state : seed of weights, windows, masks and draws.

    Attributes
    ----------
    quality_ : DataFrame, a row a task and channel: `n` held-out cells or steps, `error` (root mean squared, in standard
        deviations of the channel), `baseline_error` of linear interpolation, or of the better of the last step and the
        last season, `skill`, the share of it that is gone, `network`, how far the network's correction is believed.
    history_ : list of dicts, one a check. n_iter_ : epochs trained. season_ : steps, 0 where none was seen.
    schema_, scales_, size_, model_, seasonal_, bridges_, forecaster_, intervals_, tail_ : the fitted state.

    Source: masked autoencoders, He et al. 2022; patches, Nie et al. 2023; linear forecasters, Zeng et al. 2023.

    >>> import numpy as np
    >>> from tabmae import TimeSeriesMAE
    >>> wave = np.sin(np.arange(400) / 4)[None, :, None]
    >>> wave[0, 100:110] = np.nan
    >>> model = TimeSeriesMAE(horizon=12, max_epochs=1, random_state=0).fit(wave)
    >>> bool(np.isnan(model.impute(wave)).any()), model.forecast(wave).shape
    (False, (1, 12, 1))
    """

    def impute(self, X: Any) -> Any:
        """Fill the gaps of series.

        Parameters
        ----------
        X : series of the layout and channels of fit; ids that fit has not seen are welcome.

        Returns
        -------
        X of the same container with missing values filled and absent stamps inserted; observed values as they came.
        Where neither fit nor a series has a value below zero, none is filled in.
        """
        panel, (filled, _, _) = self._completed(X)
        return self.schema_.write(panel, filled, X)

    def transform(self, X: Any) -> Any:
        """The same as `impute`."""
        return self.impute(X)

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[Any, Any]:
        """Bounds of the missing values, calibrated on held-out cells of each channel.

        Parameters
        ----------
        X : as for `impute`. level : share of missing cells that the interval is to hold, in (0, 1).

        Returns
        -------
        lower, upper : as `impute` gives them; both hold the value itself where it is observed.
        """
        hint = "Pass the share of cells to hold, for example 0.9."
        check_number("level", level, low=0, high=1, low_open=True, high_open=True, hint=hint)
        panel, (_, lower, upper) = self._completed(X, level)
        return self.schema_.write(panel, lower, X), self.schema_.write(panel, upper, X)

    def sample(
        self,
        X: Any = None,
        n_samples: int = 5,
        random_state: int | RandomState | None = None,
        *,
        horizon: int | None = None,
        X_future: Any = None,
    ) -> list[Any]:
        """Draw completed series, or with `horizon` paths of the future, from the predictive distribution.

        Parameters
        ----------
        X : as for `impute`; with `horizon`, None goes on from the series of fit.
        n_samples : number of draws. random_state : their seed; None takes the estimator's.
        horizon : steps ahead; None draws the gaps. X_future : as for `forecast`.

        Returns
        -------
        Completed series as `impute` gives them, the missing cells of a window drawn together; or long frames of paths
        as `forecast` gives them, each with the residuals of one origin: steps and channels hang together.
        """
        check_number("n_samples", n_samples, low=1, integer=True, hint="Pass the number of draws.")
        check_seed(random_state)
        check_is_fitted(self)
        generator = base.new_generator(self.random_state if random_state is None else random_state)
        if horizon is not None:
            return list(self._paths(X, n_samples, horizon, X_future, generator))
        panel = self.schema_.read(X)
        believed = self._believed(panel)
        values, level, scale = standardised(believed, self.scales_)
        line, floor = laid_out(values, panel.lengths, self.model_.window), self.scales_.floor(believed)
        beyond = self._beyond(line, values, panel.lengths)
        drawn = (draw(self.model_, line, beyond, self.intervals_.spread, generator) for _ in range(n_samples))
        in_units = (cells[line.place].double().numpy() * scale + level for cells in drawn)
        filled = (self.settled_.put_in(np.maximum(cells, floor), panel.future) for cells in in_units)
        return [self.schema_.write(panel, cells, X) for cells in filled]

    def forecast(self, X: Any = None, horizon: int | None = None, level: Any = "auto", X_future: Any = None) -> Any:
        """Forecast the steps after the end of every series.

        Parameters
        ----------
        X : histories, with gaps or without; None goes on from the series of fit.
        horizon : steps; None for that of fit. Longer ones are forecast from the forecasts before them.
        level : per cent that intervals are to hold; "auto" is (80, 95), for arrays none.
        X_future : the columns `future_cols` after the end of every series; a missing value of theirs has no effect.

        Returns
        -------
        Long frame, of the library of X or else of pandas: id, time, `channel` where there are several, `TimeSeriesMAE`,
        and a pair such as `TimeSeriesMAE-lo-80`, `TimeSeriesMAE-hi-80` per level. For an array without levels, an array
        (n, horizon, C).

        Raises
        ------
        DataError : `X_future` is missing or lacks steps.

        A series without an observed value is forecast at its level.
        """
        check_is_fitted(self)
        n_steps = self._steps(horizon)
        is_array = self.schema_.layout == "array"
        levels = ([] if is_array else list(LEVELS)) if is_auto(level) else level
        asked = checked_levels(() if levels is None else levels)
        panel = self._history(X)
        found = self._ahead(panel, n_steps, asked, self._future(panel, n_steps, X_future))
        if is_array and not asked:
            return found.mean
        columns = forecast_columns(found)
        return in_library_of(self.schema_.frame(panel, self.schema_.future_stamps(panel, n_steps), columns), X)

    def backtest(
        self, X: Any, n_windows: int = 5, step: int | None = None, horizon: int | None = None, level: Any = LEVELS
    ) -> Backtest:
        """Forecast from origins within series, by the fitted model, and compare with what came, in pandas frames.

        Parameters
        ----------
        X : series as for `forecast`; those of fit were learnt from, later ones are an honest test.
        n_windows : origins per series, the last one `horizon` steps before its end. step : steps between them; None
            for the horizon.
        horizon, level : as for `forecast`.

        Raises
        ------
        DataError : a series is too short for so many windows.
        """
        check_is_fitted(self)
        return backtest(self, X, n_windows, step, horizon, level)

    def encode(self, X: Any, per: str = "series") -> NDArray[np.float32]:
        """Embed series from their observed cells.

        Parameters
        ----------
        X : as for `impute`. per : "series" or "step".

        Returns
        -------
        float32 (n_series, d), or (sum of lengths, d), series after series on their complete grids.
        """
        check_choice("per", per, ("series", "step"))
        check_is_fitted(self)
        panel = self.schema_.read(X)
        values = standardised(self._believed(panel), self.scales_)[0]
        model, window = self.model_, self.model_.window
        line = laid_out(values, panel.lengths, window)
        total = torch.zeros(len(line.values), self._d_latent)
        count = torch.zeros(len(line.values), 1)

        def add(starts: Tensor, cells: Tensor, visible: Tensor) -> None:
            latent = model.encode(cells, visible).cpu()
            each = latent.repeat_interleave(window // latent.shape[1], 1)  # (B, W, D)
            steps = (starts[:, None] + torch.arange(window)).flatten()
            total.index_add_(0, steps, each.flatten(0, 1))
            count.index_add_(0, steps, torch.ones(len(steps), 1))

        in_batches(model, line, line.covering(window, max(1, window // 2)), add)
        embedded = (total / count.clamp_min(1))[line.place].numpy()
        if per == "step":
            return embedded
        ends = np.cumsum(panel.lengths)
        return np.stack([embedded[end - n : end].mean(0) for end, n in zip(ends, panel.lengths, strict=True)])

    @property
    def _d_latent(self) -> int:
        cells = torch.zeros(1, self.model_.window * self.model_.n_channels, device=self.model_.share.device)
        return int(self.model_.encode(cells, cells > 0).shape[-1])

    def _completed(self, X: Any, level: float = 0.0) -> tuple[Panel, list[Matrix]]:
        """Panel, and in units: its cells completed, and the bounds of their intervals that hold `level`."""
        check_is_fitted(self)
        panel = self.schema_.read(X)
        believed = self._believed(panel)
        values, centre, scale = standardised(believed, self.scales_)
        line = laid_out(values, panel.lengths, self.model_.window)
        found = self._complete(line, values, panel.lengths)
        half = self.intervals_.half_width(found.deviation, line.observed, level)
        mean, wide = (part[line.place].double().numpy() for part in (found.mean, half))
        observed = np.isfinite(panel.values)
        filled = np.where(observed, panel.values, mean * scale + centre)
        wide, floor = np.where(observed, 0, wide * scale), self.scales_.floor(believed)
        parts = (np.maximum(part, floor) for part in (filled, filled - wide, filled + wide))
        return panel, [np.where(observed, part, self.settled_.put_in(part, panel.future)) for part in parts]

    def _history(self, X: Any) -> Panel:
        """What a forecast of series can feel of them; of those of fit for None."""
        return self.tail_ if X is None else self._believed(last_steps(self.schema_.read(X), self.schema_, self._reach))

    def _steps(self, horizon: int | None) -> int:
        if horizon is None:
            return self.horizon_
        check_number("horizon", horizon, low=1, integer=True, hint="Pass the steps to forecast, for example 24.")
        return horizon

    def _future(self, panel: Panel, horizon: int, X_future: Any) -> Matrix:
        """Columns known ahead (n_series, horizon, K), those of the calendar last."""
        names = self.schema_.future_cols
        if not names:
            if X_future is not None:
                raise ParameterError(
                    "`X_future` must come with `future_cols` in fit; none were named. Name its columns there."
                )
            return self._with_calendar(panel, np.zeros((len(panel.ids), horizon, 0)), horizon)
        if X_future is None:
            raise DataError(
                f"`X_future` must hold {list(names)} for the next {horizon} steps; got None. Pass a frame of them."
            )
        return self._with_calendar(panel, self.schema_.read_future(X_future, panel, horizon), horizon)

    def _ahead(self, panel: Panel, horizon: int, levels: list[float], future: Matrix) -> Ahead:
        """Forecast the series of a panel that is cut to what a forecast can feel."""
        each = max(1, AT_ONCE // (self._reach * panel.values.shape[1]))
        parts = []
        for begin in range(0, len(panel.ids), each):
            chosen = slice(begin, begin + each)
            parts.append(self._ahead_of(some_series(panel, chosen), horizon, levels, future[chosen]))
        bounds = {
            level: (
                np.concatenate([p.bounds[level][0] for p in parts]),
                np.concatenate([p.bounds[level][1] for p in parts]),
            )
            for level in levels
        }
        return Ahead(np.concatenate([part.mean for part in parts]), bounds)

    def _histories(self, panel: Panel) -> tuple[Tensor, Tensor, Units]:
        """Filled histories (n, reach, C) and their observed cells, level and scale (n, 1, C) of each series."""
        values, level, scale = standardised(panel, self.scales_)
        line = laid_out(values, panel.lengths, self.model_.window)
        filled = self._complete(line, values, panel.lengths).mean[line.place].double().numpy()
        if len(self.regressors_.mean):
            known_ahead = self._with_calendar(panel, panel.future)
            filled = self.regressors_.taken_off(filled, known_ahead, Units(level, scale))
        seen = line.observed[line.place].numpy()
        reach = max(self._reach, max(panel.lengths))
        history = np.zeros((len(panel.ids), reach, filled.shape[1]), dtype=np.float32)
        observed = np.zeros(history.shape, dtype=bool)
        for i, (end, length) in enumerate(zip(np.cumsum(panel.lengths), panel.lengths, strict=True)):
            history[i] = led_in(filled[end - length : end], reach)
            observed[i, reach - length :] = seen[end - length : end]
        units = Units(*(part[:, None] for part in self.scales_.of(panel)))
        return torch.from_numpy(history), torch.from_numpy(observed), units

    def _expected(self, panel: Panel, horizon: int) -> tuple[Matrix, Matrix, Units]:
        """Forecasts and what residuals are measured by, (n, horizon, C) without the effect of regressors; units."""
        history, observed, units = self._histories(panel)
        forecaster = self.forecaster_
        mean = forecaster.forecast(self.model_, history, observed, horizon, self._known(panel))
        width = forecaster.scale(history, observed, horizon)
        return mean.double().numpy(), width.double().numpy(), units

    def _ahead_of(self, panel: Panel, horizon: int, levels: list[float], future: Matrix) -> Ahead:
        mean, width, units = self._expected(panel, horizon)
        shares = [(1 - each / 100) / 2 for each in levels] + [(1 + each / 100) / 2 for each in levels]
        floor = self._floor(panel, horizon)
        sides: list[Matrix] = []
        if levels:
            found = self.forecaster_.bounds(shares, horizon, self._known(panel)).double().numpy()
            sides = [self._in_units(mean + part * width, future, units, np.minimum(0, floor)) for part in found]
        bounds = dict(zip(levels, zip(sides[: len(levels)], sides[len(levels) :], strict=True), strict=True))
        return Ahead(self._in_units(mean, future, units, floor), bounds)

    def _in_units(self, values: Matrix, future: Matrix, units: Units, floor: Matrix) -> Matrix:
        """Forecasts (n, horizon, C) in the series' units, with what columns known ahead do and settle."""
        return self.settled_.put_in(np.maximum(self.regressors_.put_on(values, future, units), floor), future)

    def _floor(self, panel: Panel, horizon: int) -> Matrix:
        """The least values (n, 1, C) to forecast; no more than 0 where columns known ahead may lead anywhere."""
        series = [panel.series(i) for i in range(len(panel.ids))]
        floor = np.stack([floor_of(values, horizon) for values in series])[:, None]
        unknown = np.stack([~np.isfinite(values).any(0) for values in series])[:, None]
        floor = np.where(unknown & ~self.scales_.signed, 0.0, floor)
        return np.minimum(0, floor) if self.schema_.future_cols and len(self.regressors_.mean) else floor

    def _known(self, panel: Panel) -> Tensor:
        """Which series of fit each series of a panel is, -1 for none; int64 (n,)."""
        place = {name: i for i, name in enumerate(self.known_)}
        return torch.tensor([place.get(name, -1) for name in panel.ids])

    def _paths(self, X: Any, n_samples: int, horizon: int, X_future: Any, generator: torch.Generator) -> Iterator[Any]:
        """Future paths: the forecast and the residuals of an origin."""
        n_steps = self._steps(horizon)
        panel = self._history(X)
        future = self._future(panel, n_steps, X_future)
        mean, width, units = self._expected(panel, n_steps)
        stamps = self.schema_.future_stamps(panel, n_steps)
        known, floor = self._known(panel), np.minimum(0, self._floor(panel, n_steps))
        for _ in range(n_samples):
            residuals = self.forecaster_.draw(n_steps, known, generator).double().numpy()
            drawn = self._in_units(mean + residuals * width, future, units, floor)
            if self.schema_.layout == "array":
                yield drawn
            else:
                yield in_library_of(self.schema_.frame(panel, stamps, {"TimeSeriesMAE": flat(drawn)}), X)


def some_series(panel: Panel, chosen: slice) -> Panel:
    """A run of the series of a panel."""
    offsets = np.concatenate([[0], np.cumsum(panel.lengths)])
    low, high = offsets[chosen.start], offsets[min(chosen.stop, len(panel.ids))]
    return replace(
        panel,
        ids=panel.ids[chosen],
        starts=panel.starts[chosen],
        lengths=panel.lengths[chosen],
        values=panel.values[low:high],
        future=panel.future[low:high],
    )
