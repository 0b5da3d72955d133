"""What `TimeSeriesMAE` learns and how it is kept: fit, finetune, its quality, save."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.random import RandomState
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tabmae.errors import DataError, listed
from tabmae.estimators import base
from tabmae.estimators.learner import SCORE_FRACTION
from tabmae.estimators.parameters import by_name, is_auto
from tabmae.estimators.series.bridging import bridged_judgement, learnt_bridges
from tabmae.estimators.series.checks import check_series_parameters, series_experts
from tabmae.estimators.series.completing import Beyond, Completed, LinePrior, complete
from tabmae.estimators.series.detecting import Reference, SeriesDetector
from tabmae.estimators.series.fitting import Fitted, Judgement, fit_windows, refit_experts, tune_windows
from tabmae.estimators.series.forecasting import Forecaster, fit_forecaster
from tabmae.estimators.series.intervals import CellIntervals
from tabmae.estimators.series.quality import judged_quality, with_skill
from tabmae.estimators.series.regressors import Chosen, Regressors, Units, early_steps, with_regressors
from tabmae.estimators.series.settled import Settled
from tabmae.estimators.series.sizes import (
    Size,
    auto_size,
    cells_of,
    contexts_of,
    cycle_of,
    horizon_of,
    is_holed,
    season_in,
    window_of,
)
from tabmae.estimators.series.slips import without_slips
from tabmae.estimators.series.standard import Line, Matrix, Scales, each_series, laid_out, last_steps, standardised
from tabmae.estimators.series.stored import restore, stored
from tabmae.estimators.tabular import unchanged_by_failure
from tabmae.experts.bridges import Bridges
from tabmae.experts.seasonal import Seasonal
from tabmae.saving import save
from tabmae.sentinels import warn_of_sentinels
from tabmae.series_model import SeriesAutoencoder
from tabmae.training import Callback, draw_seed
from tabmae.windows import Panel, SeriesSchema, calendar_columns, season_of, unseen_cycles


class SeriesLearner(BaseEstimator):
    """Parameters, fit and state of `TimeSeriesMAE`."""

    @by_name
    def __init__(
        self,
        *,
        horizon: int | None = None,
        context: int | str = "auto",
        window: int | str = "auto",
        freq: str | int | None = None,
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_cols: Sequence[Any] | None = None,
        future_cols: Sequence[str] | None = None,
        static_cols: Sequence[str] | None = None,
        mask_ratio: float | tuple[float, float] | str = "auto",
        mask: str | Callable[..., Tensor] = "mixed",
        patch: int | str = "auto",
        backbone: str | Callable[..., torch.nn.Module] = "auto",
        d_token: int | str = "auto",
        depth: int | str = "auto",
        dropout: float | str = "auto",
        loss: str = "auto",
        experts: Sequence[str] | str = "auto",
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        lr: float | str = "auto",
        patience: int | str = "auto",
        device: str = "auto",
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 0,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.horizon = horizon
        self.context = context
        self.window = window
        self.freq = freq
        self.id_col = id_col
        self.time_col = time_col
        self.target_cols = target_cols
        self.future_cols = future_cols
        self.static_cols = static_cols
        self.mask_ratio = mask_ratio
        self.mask = mask
        self.patch = patch
        self.backbone = backbone
        self.d_token = d_token
        self.depth = depth
        self.dropout = dropout
        self.loss = loss
        self.experts = experts
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.patience = patience
        self.device = device
        self.callbacks = callbacks
        self.verbose = verbose
        self.random_state = random_state

    schema_: SeriesSchema
    model_: SeriesAutoencoder
    forecaster_: Forecaster
    intervals_: CellIntervals
    scales_: Scales
    size_: Size
    tail_: Panel
    known_: tuple[Any, ...]
    regressors_: Regressors
    settled_: Settled
    cycles_: tuple[str, ...]
    usual_: Reference
    seasonal_: Seasonal | None
    bridges_: Bridges | None

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn series once, for everything that is asked of them later.

        Parameters
        ----------
        X : long frame (id, time, value columns), wide frame with a DatetimeIndex, or array (n, T, C). NaN and absent
            time stamps are missing; series may differ in length. The n series of an array are windows of one
            process and share one scale; series in different units go into a long frame.
        y : ignored.

        Raises
        ------
        ParameterError : a parameter is out of range, of the wrong type, or misspelt.
        DataError : X cannot be read, or a channel holds nothing.
        TrainingError : the loss is not finite, or a batch does not fit in the device's memory.
        """
        check_series_parameters(self)
        schema = read_schema(self, X)
        panel = schema.read(X, of_fit=True)
        check_channels(panel.values, schema, "Drop it, or name the others in `target_cols`.")
        known = {name: cells[np.isfinite(cells)] for name, cells in zip(schema.channels, panel.values.T, strict=True)}
        warn_of_sentinels(known)
        settled = Settled.fit(panel)
        panel = without_slips(settled.left_out(panel))
        scales = Scales.fit(panel, shared=schema.layout == "array")
        values = standardised(panel, scales)[0]
        season = season_in(values, panel.lengths, season_of(schema.freq))
        size = self._size(panel, values.shape[1], season)
        line = laid_out(values, panel.lengths, size.window)
        with unchanged_by_failure(self):
            fitted = fit_windows(self, line, values, panel.lengths, size)
            self.schema_, self.settled_, self.scales_ = schema, settled, scales
            self.season_, self.size_ = season, size
            self.horizon_ = horizon_of(panel.lengths, season) if self.horizon is None else self.horizon
            self._keep(fitted, values.shape[1])
            self.seasonal_ = self._fit_seasonal(values, panel.lengths)
            imputed = self._judge(fitted.judgement, values, panel.lengths)
            ahead = self._fit_forecasts(panel, self._complete(line, values, panel.lengths), line)
            self.quality_ = with_skill(pd.concat([imputed, ahead], ignore_index=True))
            refit_experts(self.model_, line)
            self._keep_usual(values, panel.lengths)
        return self

    def finetune(self, X: Any) -> Self:
        """Train the network on with other series of the same channels, and calibrate on them.

        Scales, experts and the coefficients of the forecasters stay those of fit; where every series has its own scale,
        those that fit has not seen are scaled by their own cells. `forecast()` goes on from these series.

        Raises
        ------
        DataError : X cannot be read, or a channel holds nothing.
        """
        check_is_fitted(self)
        check_series_parameters(self)
        panel = self._believed(self.schema_.read(X))
        values = standardised(panel, self.scales_)[0]
        check_channels(values, self.schema_, "Pass series in which it has some.")
        line = laid_out(values, panel.lengths, self.size_.window)
        fitted = tune_windows(self, self.model_, line, panel.lengths, self.size_)
        with unchanged_by_failure(self):
            self._keep(fitted, values.shape[1])
            if fitted.judgement is not None:
                imputed = self._judge(fitted.judgement, values, panel.lengths)
                ahead = self.quality_[self.quality_["task"] == "forecast"]
                self.quality_ = pd.concat([imputed, ahead], ignore_index=True)
            self.tail_ = last_steps(panel, self.schema_, self._reach)
            self._keep_usual(values, panel.lengths, experts_stay=True)
        return self

    def _keep(self, fitted: Fitted, n_channels: int) -> None:
        self.model_, self.history_ = fitted.model, fitted.history
        self.n_iter_ = int(np.ceil(fitted.history[-1]["epoch"])) if fitted.history else 0
        self.n_features_in_ = n_channels

    def _fit_seasonal(self, values: Matrix, lengths: tuple[int, ...]) -> Seasonal | None:
        """What fills gaps that windows cannot see across; nothing in the pure masked autoencoder."""
        if not series_experts(self.experts):
            return None
        return Seasonal.fit(each_series(values, lengths), self._possible_cycles, self.size_.window)

    def _judge(self, judgement: Judgement | None, values: Matrix, lengths: tuple[int, ...]) -> pd.DataFrame:
        """Learn which gaps are bridged, and calibrate what is believed then; the rows of `quality_` for imputation."""
        self.bridges_, cells = None, None
        if self.seasonal_ is not None:
            seed = draw_seed(base.new_generator(self.random_state))
            series = each_series(values, lengths)
            self.bridges_, cells = learnt_bridges(self.model_, self.seasonal_, series, seed)
            judgement = None if judgement is None else bridged_judgement(judgement, self.bridges_)
        self.intervals_ = CellIntervals.fit(judgement, values.shape[1], cells)
        return judged_quality(judgement, self.schema_.channels, self.model_)

    def _beyond(self, line: Line, values: Matrix, lengths: tuple[int, ...]) -> Beyond | None:
        """What is known of the cells of a line beyond its windows, from its series (sum of lengths, C)."""
        if self.seasonal_ is None:
            return None
        return Beyond(LinePrior.of(line, self.seasonal_.prior(each_series(values, lengths))), self.bridges_)

    def _complete(self, line: Line, values: Matrix, lengths: tuple[int, ...]) -> Completed:
        return complete(self.model_, line, self._beyond(line, values, lengths))

    def _fit_forecasts(self, panel: Panel, completed: Completed, line: Line) -> pd.DataFrame:
        """Fit the forecasters to the completed series, with and without regressors, and keep what misses less.

        Returns the rows of `quality_` for the forecasts.
        """
        cells = completed.mean[line.place].double().numpy()
        filled = each_series(cells, panel.lengths)
        observed = each_series(line.observed[line.place].numpy(), panel.lengths)
        usual = contexts_of(panel.lengths, self.horizon_, self.season_)
        contexts = usual if is_auto(self.context) else (int(self.context),)
        if min(contexts, default=0) + 2 * self.horizon_ > max(panel.lengths):
            contexts = ()
        cycle = cycle_of(self.season_, season_of(self.schema_.freq), max(panel.lengths))
        fit = partial(
            fit_forecaster,
            observed=observed,
            horizon=self.horizon_,
            contexts=contexts,
            season=self.season_,
            cycle=cycle,
            experts=series_experts(self.experts),
            own_scales=self.scales_.own is not None,
        )
        plain = Chosen(*fit(self.model_, filled), Regressors.none(panel.values.shape[1]))
        self.cycles_ = unseen_cycles(self.schema_.freq, max(panel.lengths), max(contexts, default=0))
        known_ahead = self._with_calendar(panel, panel.future)
        seen = np.where(line.observed[line.place], cells, np.nan)
        early = early_steps(panel.lengths, cycle, self.horizon_)
        amounts = np.where(np.isfinite(seen), panel.values, np.nan)
        columns = known_ahead, panel.future.shape[1], panel.lengths, early
        units = Units(*standardised(panel, self.scales_)[1:])
        found = with_regressors(plain, partial(fit, None), cells, seen, amounts, *columns, units)
        self.forecaster_, quality, self.regressors_ = found
        table = pd.DataFrame({name: part.double().numpy() for name, part in quality.items()})
        table.insert(0, "task", "forecast")
        table.insert(1, "channel", list(self.schema_.channels))
        self.tail_ = last_steps(panel, self.schema_, self._reach)
        # windows of an array have no names by which to know them again
        self.known_ = () if self.schema_.layout == "array" and len(panel.ids) > 1 else panel.ids
        return table

    def _believed(self, panel: Panel) -> Panel:
        """The panel without cells that nothing is to be told from: settled ones and slips."""
        return without_slips(self.settled_.left_out(panel))

    def _keep_usual(self, values: Matrix, lengths: tuple[int, ...], *, experts_stay: bool = False) -> None:
        """Keep what `detector_` is to learn from, and drop the one there was."""
        seed = draw_seed(base.new_generator(self.random_state))
        self.usual_ = Reference.of(values, lengths, seed, self._possible_cycles, experts_stay=experts_stay)
        self.__dict__.pop("detector_", None)

    @cached_property
    def detector_(self) -> SeriesDetector:
        """What is usual of the series of fit, learnt when it is first asked for, as by `save`."""
        check_is_fitted(self)
        return SeriesDetector.fit(self.model_, self.usual_)

    def _with_calendar(self, panel: Panel, future: Matrix, horizon: int | None = None) -> Matrix:
        """Columns known ahead (..., K) with those of the calendar: of a panel's steps, or of the `horizon` after it."""
        if not self.cycles_:
            return future
        stamps = self.schema_.stamps(panel) if horizon is None else self.schema_.future_stamps(panel, horizon)
        columns = np.concatenate([calendar_columns(index, self.cycles_) for index in stamps])
        return np.concatenate([future, columns.reshape(*future.shape[:-1], -1)], -1)

    @property
    def _possible_cycles(self) -> tuple[int, ...]:
        """Steps that series may repeat themselves after."""
        return (self.season_, *season_of(self.schema_.freq))

    @property
    def _reach(self) -> int:
        """Steps before its begin that a forecast can feel."""
        return max(self.forecaster_.context, self.size_.window) + self.size_.window

    def _size(self, panel: Panel, n_channels: int, season: int) -> Size:
        cells = cells_of(panel.values)
        window = window_of(panel.lengths, n_channels, season, cells) if is_auto(self.window) else int(self.window)
        longest = max(panel.lengths)
        patch = 1 if is_auto(self.patch) else min(int(self.patch), longest)
        if is_auto(self.window) and not series_experts(self.experts):
            window = max(window, 2 * (self.horizon or 0))
        window = max(patch, min(window, longest) // patch * patch)  # beyond, all that a window holds is missing
        positions = sum(max(0, length - window + 1) for length in panel.lengths)
        size = auto_size(window, n_channels, positions, holed=is_holed(panel.values))._replace(patch=patch)
        names = "backbone", "d_token", "depth", "dropout", "batch_size", "lr"
        given = {name: getattr(self, name) for name in names if not is_auto(getattr(self, name))}
        return size._replace(**given)

    def score(self, X: Any, y: object = None) -> float:
        """Minus the mean error of steps of X hidden here, always the same for the same shape; higher is better.

        The error of a channel is its root mean squared error in standard deviations of fit.
        """
        check_is_fitted(self)
        panel = self._believed(self.schema_.read(X))
        values = standardised(panel, self.scales_)[0]
        hidden = np.isfinite(values) & (np.random.default_rng(0).random(values.shape) < SCORE_FRACTION)
        if not hidden.any():
            raise DataError("X must have observed cells to be scored on; it has too few. Pass more steps.")
        left = np.where(hidden, np.nan, values)
        line = laid_out(left, panel.lengths, self.size_.window)
        found = self._complete(line, left, panel.lengths).mean[line.place].double().numpy()
        missed = np.where(hidden, found - values, 0)
        scored = hidden.any(0)
        return -float(np.sqrt((missed**2).sum(0)[scored] / hidden.sum(0)[scored]).mean())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder, whole or not at all; `tabmae.load` reads it.

        What `detect` learns from the series of fit is learnt now, if not before: the folder holds no copy of them but
        the last steps that forecasts go on from. A pickle holds some of them.

        Raises
        ------
        ParameterError : a parameter is a function, which cannot be saved.
        """
        check_is_fitted(self)
        save(self, folder)

    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return stored(self)

    def _set_state(self, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
        restore(self, state, weights)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


def read_schema(estimator: Any, X: Any) -> SeriesSchema:
    """The schema of series, their columns as the estimator's parameters name them."""
    return SeriesSchema.fit(
        X,
        id_col=estimator.id_col,
        time_col=estimator.time_col,
        freq=estimator.freq,
        target_cols=estimator.target_cols,
        future_cols=estimator.future_cols,
        static_cols=estimator.static_cols,
    )


def check_channels(values: Matrix, schema: SeriesSchema, remedy: str) -> None:
    """Refuse channels of cells (T, C) without an observed one.

    Raises
    ------
    DataError : names them, and the remedy.
    """
    empty = [name for name, cells in zip(schema.channels, values.T, strict=True) if not np.isfinite(cells).any()]
    if empty:
        raise DataError(f"Every channel must have an observed value; {listed(empty)} without any. {remedy}")
